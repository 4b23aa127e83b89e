"""Tells the language of a text, its script, and where a mixed text changes.

Method: naive Bayes over byte n-grams (Lui & Baldwin 2012), py3langid (BSD) with its own weights, 139 languages, among
those of the script (Unicode); stretches of a mixed text by the most probable sequence (kit/language_id.py).
No model file of ours. Limits: names, single words and code are no evidence, and a text in a language it does not know
gets one it knows, mostly with a low p; close relatives (Bosnian, Croatian, Serbian; Malay, Indonesian; Danish,
Norwegian) are confused. Below `min_p` the answer is und, with the alternatives.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, NeuroEdgeError
from neuroedge.kit import language_id
from neuroedge.kit.language_id import UNDETERMINED, Guess, LanguagePiece

MIN_P: Final = 0.4
"""Chosen on development articles (benchmarks/language_detection.py)."""
SURE_LETTERS: Final = 20
"""With fewer letters the answer is marked unreliable, in scripts that several languages share."""
_ALTERNATIVES: Final = 5
LanguageCode = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]


class Input(EngineInput):
    """A text."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    text: str = Field(min_length=1, max_length=100_000, description="1 to 100,000 characters.")
    languages: list[LanguageCode] | None = Field(
        default=None,
        min_length=1,
        max_length=139,
        description="Codes that come into question; all known ones if absent.",
    )
    min_p: float = Field(default=MIN_P, ge=0, le=1, description="A language less probable than this is given as und.")


class LanguageAlternative(BaseModel):
    """A language that comes into question."""

    lang: str = Field(description="ISO 639-1 code, 639-3 where there is none.")
    p: float = Field(description="Probability among the languages of the script, 0 to 1.")


class LanguageSegment(BaseModel):
    """A stretch of the text in one language and script."""

    start: int = Field(description="First character.")
    end: int = Field(description="Character after the last.")
    lang: str = Field(description="Its language, or und.")
    p: float = Field(description="Probability of that language for this stretch alone, 0 to 1.")
    script: str = Field(description="ISO 15924 code: Latn, Deva, …; Zyyy for scripts of no language that is known.")


class Output(EngineOutput):
    """The language most letters are in, and the stretches."""

    lang: str = Field(description="ISO 639-1 code (639-3 where there is none) or und.")
    p: float = Field(description="Its probability, 0 to 1: mean over its stretches, weighted by letters.")
    script: str | None = Field(description="ISO 15924 code of the script most letters are in; null without letters.")
    scripts: dict[str, int] = Field(description="Letters by script.")
    alternatives: list[LanguageAlternative] = Field(
        description="The most probable languages of the longest stretch, best first."
    )
    segments: list[LanguageSegment] = Field(description="Stretches in order; they cover the text unless it is und.")
    mixed: bool = Field(description="Whether stretches of more than one language were told.")
    n_letters: int = Field(description="Letters the answer rests on.")
    reliable: bool = Field(description="Whether a language was told from enough letters.")
    warnings: list[str] = Field(description="What is uncertain.")


class LanguageDetection(Engine[Input, Output]):
    """py3langid within scripts."""

    name = "language_detection"
    title = "Language, script and changes of language of a text"
    method = "naive-bayes-ngrams+scripts"
    example = Input(
        text="The children walk to school in the morning. Am Abend kommen sie müde nach Hause zurück. "
        "बच्चे रात को जल्दी सो जाते हैं।"
    )

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Tell the language. Raises InvalidInput for `languages` that are not known."""
        return await asyncio.to_thread(_told, payload, self.method)

    async def post_swap_test(self) -> None:
        """The example's three languages are told."""
        answer = await self.run(self.example, self.probe)
        if [s.lang for s in answer.segments] != ["en", "de", "hi"]:
            raise NeuroEdgeError("the language_detection engine does not tell the languages of its own example")


def _told(payload: Input, method: str) -> Output:
    if payload.languages is not None:
        _refuse_unknown(payload.languages)
    text = payload.text
    pieces = language_id.pieces(text, among=payload.languages)
    scripts = language_id.scripts(text)
    letters = sum(scripts.values())
    longest = max(pieces, key=lambda piece: piece.letters, default=None)
    guesses = [] if longest is None else language_id.guesses(text[longest.start : longest.end], among=payload.languages)
    segments = [_segment(piece, payload.min_p) for piece in pieces]
    lang, p = _dominant(pieces, segments)
    told = {segment.lang for segment in segments} - {UNDETERMINED}
    warnings = _warnings(lang, letters, guesses, payload.min_p)
    if segments and UNDETERMINED in {s.lang for s in segments} and told:
        warnings.append("stretches of no certain language are marked und")
    several = longest is not None and len(guesses) > 1
    if lang != UNDETERMINED and several and letters < SURE_LETTERS:
        warnings.append(f"{letters} letters: below {SURE_LETTERS} a language is often mistaken")
    return Output(
        method=method,
        lang=lang,
        p=round(p, 4),
        script=next(iter(scripts), None),
        scripts=scripts,
        alternatives=[LanguageAlternative(lang=g.lang, p=round(g.p, 4)) for g in guesses[:_ALTERNATIVES]],
        segments=segments,
        mixed=len(told) > 1,
        n_letters=letters,
        reliable=lang != UNDETERMINED and (letters >= SURE_LETTERS or not several),
        warnings=warnings,
    )


def _refuse_unknown(languages: Sequence[str]) -> None:
    known = set(language_id.known_languages())
    for n, code in enumerate(languages):
        if code not in known:
            raise InvalidInput(
                f"the language {code} is not known",
                hint=f"known: {', '.join(sorted(known))}",
                errors=[{"loc": ["languages", n], "msg": "this language is not known", "type": "unknown_language"}],
            )


def _segment(piece: LanguagePiece, min_p: float) -> LanguageSegment:
    lang = piece.lang if piece.p >= min_p else UNDETERMINED
    return LanguageSegment(start=piece.start, end=piece.end, lang=lang, p=round(piece.p, 4), script=piece.script)


def _dominant(pieces: Sequence[LanguagePiece], segments: Sequence[LanguageSegment]) -> tuple[str, float]:
    """The language that most letters were told to be in, with its mean probability."""
    letters: dict[str, int] = {}
    weighted: dict[str, float] = {}
    for piece, segment in zip(pieces, segments, strict=True):
        letters[segment.lang] = letters.get(segment.lang, 0) + piece.letters
        weighted[segment.lang] = weighted.get(segment.lang, 0.0) + piece.letters * piece.p
    if not letters:
        return UNDETERMINED, 0.0
    lang = max(letters, key=lambda each: letters[each])
    return lang, weighted[lang] / max(1, letters[lang])


def _warnings(lang: str, letters: int, guesses: Sequence[Guess], min_p: float) -> list[str]:
    if not letters:
        return ["no letters: nothing to tell a language from"]
    if lang != UNDETERMINED:
        return []
    if not guesses:
        return ["the script is none of a language that is known, or of those asked for"]
    if guesses[0].p < min_p:
        return [f"no language reaches {min_p:g}: the most probable one is {guesses[0].lang} with {guesses[0].p:.2f}"]
    return [f"{letters} letters are too few to tell a language from"]
