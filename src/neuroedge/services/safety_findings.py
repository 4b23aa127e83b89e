"""What is found in a text of what a policy's rules look for: by the moderation engine, presidio and a parser."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from neuroedge.contract.engine import EngineContext
from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.contract.models import ENTITIES
from neuroedge.engines.language.moderation import Input, Output
from neuroedge.infra.personal_data import LONGEST_CHARS, NationalIdentifiers
from neuroedge.kit import personal_data
from neuroedge.kit.passages import passages
from neuroedge.kit.personal_data import Found, apart
from neuroedge.services.safety_policy import Action, Category, Rule, Stage

_MAX_PLACES: Final = 100
_NAME_TYPES: Final = {"PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION"}
_NAMES_CHARS: Final = 100_000
"""A parser needs a second for so much; of a longer text only the beginning is looked through for names."""
_BATCH_CHARS: Final = 5_000
_OVERLAP_CHARS: Final = 200
"""Of two batches, so that a name stands whole in one of them; no name is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why: a category reached the threshold of the policy's rule. `places` are characters of the text as given."""

    category: str
    """Of the policy, or "unchecked"."""
    action: Action
    p: float | None
    threshold: float | None
    rule: str
    """As the policy has it: `output.hate`."""
    details: Sequence[str] = ()
    """Names of signs, types of personal data, or why it could not be judged; never words of the text."""
    places: Sequence[Found] = ()

    def as_json(self) -> dict[str, Any]:
        """Without words of the text."""
        return {
            "category": self.category,
            "action": self.action,
            "p": self.p,
            "threshold": self.threshold,
            "rule": self.rule,
            "details": list(self.details),
            "places": [{"start": f.start, "end": f.end, "type": f.type} for f in self.places[:_MAX_PLACES]],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found for each category; `unchecked` why some could not be looked for."""

    reasons: list[Reason] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


async def find(
    text: str, rules: dict[Category, Rule], ctx: EngineContext, identifiers: NationalIdentifiers, *, stage: Stage
) -> Findings:
    """Everything the rules of a pass look for."""
    found = Findings()
    of_engine: dict[Category, Rule] = {
        name: rule for name, rule in rules.items() if name in ("hate", "offensive", "injection")
    }
    if of_engine:
        await _by_engine(text, of_engine, ctx, stage=stage, into=found)
    if "personal_data" in rules:
        hits = await asyncio.to_thread(personal_data.find, text) + await identifiers.find(text)
        _add_places("personal_data", rules["personal_data"], hits, stage=stage, into=found)
        if len(text) > LONGEST_CHARS:
            found.unchecked.append("too long to look for identifiers to its end")
    if "names" in rules:
        await _names(text, rules["names"], ctx, stage=stage, into=found)
        if len(text) > _NAMES_CHARS:
            found.unchecked.append("too long to look for names to its end")
    return found


async def _by_engine(
    text: str, rules: dict[Category, Rule], ctx: EngineContext, *, stage: Stage, into: Findings
) -> None:
    payload = Input.model_validate(
        {"text": text, "checks": list(rules), "thresholds": {name: rule.threshold for name, rule in rules.items()}}
    )
    try:
        answer = await ctx.call("moderation", payload)
    except NeuroEdgeError as error:
        if not error.retryable:
            raise
        into.unchecked.append(error.code)
        if "injection" in rules and len(rules) > 1:  # needs no model
            await _by_engine(text, {"injection": rules["injection"]}, ctx, stage=stage, into=into)
        return
    assert isinstance(answer, Output)
    for reason in answer.reasons:
        rule = rules[reason.category]
        kind = "INSTRUCTION" if reason.category == "injection" else reason.category.upper()
        into.reasons.append(
            Reason(
                category=reason.category,
                action=rule.action,
                p=reason.p,
                threshold=rule.threshold,
                rule=f"{stage}.{reason.category}",
                details=reason.details,
                places=[Found(place.start, place.end, kind, place.p) for place in reason.places],
            )
        )


async def _names(text: str, rule: Rule, ctx: EngineContext, *, stage: Stage, into: Findings) -> None:
    batches = list(_batches(text[:_NAMES_CHARS]))
    try:
        async with ctx.models.lease(ENTITIES) as parser:
            parsed = await parser.parse([text[start:end] for start, end in batches])
    except NeuroEdgeError as error:
        if not error.retryable:
            raise
        into.unchecked.append(error.code)
        return
    hits = []
    for (at, _), piece in zip(batches, parsed, strict=True):
        for name in piece.names:
            if (kind := _NAME_TYPES.get(name.label)) is not None:
                first, last = piece.tokens[name.first], piece.tokens[name.stop - 1]
                hits.append(Found(at + first.start, at + last.end, kind, 0.85))
    _add_places("names", rule, hits, stage=stage, into=into)


def _batches(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of whole sentences up to _BATCH_CHARS, each with the words before it."""
    for start, end in passages(text, max_chars=_BATCH_CHARS):
        latest = max(0, start - _OVERLAP_CHARS)
        earliest = max(0, latest - _OVERLAP_CHARS)
        space = max(text.rfind(" ", earliest, latest), text.rfind("\n", earliest, latest))
        yield space + 1 or latest, end


def _add_places(category: Category, rule: Rule, hits: list[Found], *, stage: Stage, into: Findings) -> None:
    kept = apart(f for f in hits if f.score >= rule.threshold and (rule.types is None or f.type in rule.types))
    if kept:
        into.reasons.append(
            Reason(
                category=category,
                action=rule.action,
                p=max(f.score for f in kept),
                threshold=rule.threshold,
                rule=f"{stage}.{category}",
                details=sorted({f.type for f in kept}),
                places=kept,
            )
        )
