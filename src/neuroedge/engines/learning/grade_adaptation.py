"""Brings an English text to a school grade: measures, simplifies, measures again.

Method: the median of four readability formulas (Flesch-Kincaid 1975, Dale-Chall 1948, Spache 1974, SMOG 1969;
kit/readability.py) in a loop with the engine `simplification`, until the grade is within the tolerance or nothing more
changes. Each formula's grade is given, and their spread: formulas disagree by grades, and none knows the reader.
No model of its own; licence Apache-2.0. Limits: English; texts are made easier only, never harder; formulas count words
and sentences, so a low grade is no proof that a text is understood. Topic, layout and prior knowledge are not seen.
"""

import asyncio
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.models import ENTITIES, TEXT_EMBEDDING
from neuroedge.engines.language.simplification import Input as SimplifyInput
from neuroedge.engines.language.simplification import SimplifyingEdit
from neuroedge.kit.readability import MIN_WORDS, USUAL_WORDS, Readability, looks_english, readability

MAX_ROUNDS: Final = 3
_PROGRESS: Final = 0.05


class Input(EngineInput):
    """A text and the grade it is for."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    text: str = Field(min_length=1, max_length=20_000, description="An English text, 1 to 20,000 characters.")
    target_grade: float = Field(ge=1, le=16, description="US school grade to reach, 1 to 16.")
    tolerance: float = Field(default=1.0, ge=0.25, le=4, description="How many grades off the target still hit it.")
    method: Literal["rules", "llm"] = Field(default="rules", description="Who rewrites, as for `simplification`.")
    keep: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default_factory=list, max_length=500, description="Words that must stay: terms to be learnt."
    )


class Round(BaseModel):
    """One pass of simplification."""

    grade: float = Field(description="Median grade after it.")
    edits: list[SimplifyingEdit] = Field(description="What it changed in the text before it.")
    cosine: float | None = Field(description="Mean cosine of what was changed with what stood there before.")
    method: str = Field(description="How it was rewritten.")


class Output(EngineOutput):
    """The text for the grade, with every formula's grade."""

    text: str = Field(description="The text; the one given where nothing was changed.")
    grade: dict[str, float] = Field(description="US school grade by formula: flesch_kincaid, dale_chall, spache, smog.")
    grade_median: float | None = Field(
        description="Their median, which is compared with the target; null without words."
    )
    spread: float | None = Field(description="Highest less lowest formula: how uncertain a grade is.")
    grade_before: float | None = Field(description="Median grade of the text given.")
    target_grade: float = Field(description="The target.")
    hit: bool = Field(description="Whether the median is within the tolerance of the target.")
    reason: str | None = Field(description="Why it is not.")
    rounds: list[Round] = Field(description="Passes that changed something.")
    n_words: int = Field(description="Words of the result.")
    reliable: bool = Field(description="Whether the text is English and has at least 100 words.")
    warnings: list[str] = Field(description="What is uncertain, or was undone.")


class GradeAdaptation(Engine[Input, Output]):
    """Readability in a loop with simplification."""

    name = "grade_adaptation"
    title = "Text for a school grade"
    method = "median-readability-loop"
    example = Input(
        text=(
            "Photosynthesis is the process by which green plants manufacture their own nourishment. Sunlight is "
            "received by the leaves, and the plants utilize its energy in order to make sugar; water is obtained from "
            "the soil, and carbon dioxide is taken from the air. The sugar, which is subsequently moved through the "
            "plant, is consumed for growth. A plant does not commence this process in the dark, so the residue of the "
            "day is stored."
        ),
        target_grade=7,
    )
    needs = (ENTITIES, TEXT_EMBEDDING)
    timeout_s = 600.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Adapt. Raises what `simplification` raises."""
        text, rounds, models = payload.text, list[Round](), list[str]()
        first = now = await asyncio.to_thread(readability, text)
        if first is None or now is None or not looks_english(text):
            return _answer(payload, text, first, first, rounds, models, ["no words" if first is None else _FOREIGN])
        warnings: list[str] = []
        while now.grade > payload.target_grade + payload.tolerance and len(rounds) < MAX_ROUNDS:
            ask = SimplifyInput(text=text, target_grade=payload.target_grade, method=payload.method, keep=payload.keep)
            answer: Any = await ctx.call("simplification", ask)
            warnings = list(dict.fromkeys([*warnings, *answer.warnings]))
            then = await asyncio.to_thread(readability, answer.text)
            if then is None or now.grade - then.grade < _PROGRESS or len(answer.text) > 20_000:
                break
            rounds.append(
                Round(grade=round(then.grade, 2), edits=answer.edits, cosine=answer.cosine, method=answer.method)
            )
            models, text, now = list(dict.fromkeys([*models, *answer.models])), answer.text, then
            await ctx.progress("grade_adaptation", len(rounds) / MAX_ROUNDS)
        return _answer(payload, text, first, now, rounds, models, warnings)


_FOREIGN: Final = "the text does not look English: the formulas do not apply"


def _answer(
    payload: Input,
    text: str,
    first: Readability | None,
    now: Readability | None,
    rounds: list[Round],
    models: list[str],
    warnings: list[str],
) -> Output:
    english = now is not None and _FOREIGN not in warnings
    off = None if now is None else now.grade - payload.target_grade
    hit = english and off is not None and abs(off) <= payload.tolerance
    reason = None
    if not english or off is None:
        reason = warnings[0]
    elif not hit:
        reason = (
            f"{off:.1f} grades above the target after {len(rounds)} rounds: the rest needs a person, or 'llm'"
            if off > 0
            else f"{-off:.1f} grades below the target: texts are not made harder"
        )
    if english and now is not None and now.words < USUAL_WORDS:
        level = "mean little" if now.words < MIN_WORDS else "are rough"
        warnings = [*warnings, f"{now.words} words: grades {level} below {USUAL_WORDS}"]
    return Output(
        method=GradeAdaptation.method,
        models=models,
        text=text,
        grade={} if now is None else {name: round(grade, 2) for name, grade in now.grades.items()},
        grade_median=None if now is None else round(now.grade, 2),
        spread=None if now is None else round(now.spread, 2),
        grade_before=None if first is None else round(first.grade, 2),
        target_grade=payload.target_grade,
        hit=hit,
        reason=reason,
        rounds=rounds,
        n_words=0 if now is None else now.words,
        reliable=english and now is not None and now.words >= USUAL_WORDS,
        warnings=warnings,
    )
