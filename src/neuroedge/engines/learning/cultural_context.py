"""What is customary in writing where a text will be read, and which places of the text do not fit there.

Method: tables, no model. Numbers, money, dates, weeks, direction of writing: Unicode CLDR through `babel`. Measures,
paper, order of names: CLDR 48. Public holidays: `holidays`. Pronouns of address: grammars (WALS 45A, Helmbrecht 2013).
Flags: patterns over the text (kit/culture_flags.py) for units, ambiguous dates, foreign money, number signs, 24-hour
times, holidays that are none there, and mixed address. Licences: Unicode, BSD, MIT.
Limits: customs of writing only; nothing is said of what people of a nation are like, believe or value. Usage differs
between families, regions and generations. Flags look for digits and English words for units and holidays; other
languages' unit words are not found. Not a judgement of offence or taste.
"""

import asyncio
from datetime import date
from typing import Final, Literal

from pydantic import BaseModel, Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput
from neuroedge.kit.culture import Place, facts, place
from neuroedge.kit.culture_flags import flags

LANGUAGE_TAG: Final = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$"
MAX_FLAGS: Final = 500


class Input(EngineInput):
    """Where a text will be read, and perhaps the text."""

    locale: str = Field(max_length=35, pattern=LANGUAGE_TAG, description="Language of the readers (BCP 47): hi-IN, de.")
    country: str | None = Field(
        default=None,
        pattern=r"^[A-Z]{2}$",
        description="Their country (ISO 3166, two capitals); the locale's if absent.",
    )
    text: str = Field(default="", max_length=100_000, description="A text to look through for what does not fit.")
    source_locale: str | None = Field(
        default=None, max_length=35, pattern=LANGUAGE_TAG, description="Locale the text was written for, if known."
    )
    on: date | None = Field(
        default=None,
        ge=date(1990, 1, 1),
        le=date(2090, 12, 31),
        description="Day holidays count from; today if absent.",
    )


class CultureFact(BaseModel):
    """One custom of writing."""

    topic: Literal["writing", "measures", "money", "dates", "names", "address", "holidays"] = Field(
        description="Topic."
    )
    name: str = Field(description="What it is of; for a holiday its name.")
    value: str = Field(description="The value; for a holiday its date (ISO 8601).")
    source: str = Field(description="Where this is published, with its version.")


class CultureFlag(BaseModel):
    """A place of the text that does not fit."""

    kind: Literal["unit", "date", "time", "currency", "number", "holiday", "register"] = Field(description="Kind.")
    start: int = Field(description="First character in the text.")
    end: int = Field(description="Character after the last.")
    quote: str = Field(description="The place.")
    message: str = Field(description="What does not fit.")
    suggestion: str | None = Field(description="What could stand there; null where that needs a person.")
    certainty: Literal["certain", "likely", "possible"] = Field(description="How sure it is that this is meant.")


class Output(EngineOutput):
    """Customs with their sources, places that do not fit, and what is uncertain."""

    locale: str = Field(description="The CLDR locale the formats are of.")
    country: str | None = Field(description="The country; null where none is known.")
    facts: list[CultureFact] = Field(description="Customs of writing.")
    flags: list[CultureFlag] = Field(description="At most 500, in the order of the text.")
    uncertainty: list[str] = Field(description="What was assumed, and what these tables cannot tell.")
    reliable: bool = Field(description="False where language or country had to be assumed or is not in the tables.")
    warnings: list[str] = Field(description="Why it is not reliable, or not complete.")


class CulturalContext(Engine[Input, Output]):
    """Facts from CLDR and lists of holidays; flags by patterns."""

    name = "cultural_context"
    title = "Customs of writing by language and country"
    method = "cldr+holidays+patterns"
    example = Input(
        locale="hi-IN",
        text="The school is 5 miles away. Classes start on 03/04/2026 and cost $20. It was 90 °F at Thanksgiving.",
        on=date(2026, 1, 1),
    )

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Look up and look through. Raises InvalidInput for a locale or country CLDR does not know."""
        where = _place("locale", payload.locale, payload.country)
        source = None if payload.source_locale is None else _place("source_locale", payload.source_locale, None)
        return await asyncio.to_thread(_answer, payload, where, source, payload.on or ctx.clock.now().date())

    async def post_swap_test(self) -> None:
        """The example's rupees, and its miles, date, dollars, Fahrenheit and Thanksgiving."""
        await super().post_swap_test()
        answer = await self.run(self.example, self.probe)
        if {f.kind for f in answer.flags} != {"unit", "date", "currency", "holiday"}:
            raise InvalidInput("the cultural_context engine does not find what is planted in its example")


def _place(field: str, tag: str, country: str | None) -> Place:
    try:
        return place(tag, country)
    except ValueError as e:
        at = "country" if "country" in str(e) else field
        raise InvalidInput(
            f"{at}: {e}",
            hint="use a BCP 47 tag such as hi-IN, and an ISO 3166 country such as IN",
            errors=[{"loc": (at,), "msg": str(e), "type": "value_error"}],
        ) from e


def _answer(payload: Input, where: Place, source: Place | None, today: date) -> Output:
    known = facts(where, today=today)
    found = flags(payload.text, where, source=source, year=today.year)
    topics = {f.topic for f in known}
    warnings = list(where.assumed)
    if "holidays" not in topics:
        warnings.append(f"no list of public holidays for {where.country or 'an unknown country'}")
    if len(found) > MAX_FLAGS:
        warnings.append(f"{len(found)} flags, the first {MAX_FLAGS} are given")
    uncertain = [*where.assumed, "names: families and persons differ from the usual order; ask for the name as written"]
    if "holidays" in topics:
        uncertain.append("holidays: regions have more, and dates by a lunar calendar may move when they are announced")
    if "address" in topics:
        uncertain.append("address: which pronoun is right depends on age, region and setting")
    if payload.text and source is None:
        uncertain.append("source_locale is not given: number signs are not checked, dates are read both ways")
    return Output(
        method=CulturalContext.method,
        locale=str(where.locale),
        country=where.country,
        facts=[CultureFact.model_validate(f, from_attributes=True) for f in known],
        flags=[
            CultureFlag(
                kind=f.kind,
                start=f.start,
                end=f.end,
                quote=payload.text[f.start : f.end],
                message=f.message,
                suggestion=f.suggestion,
                certainty=f.certainty,
            )
            for f in found[:MAX_FLAGS]
        ],
        uncertainty=uncertain,
        reliable=not where.assumed and where.country is not None,
        warnings=warnings,
    )
