"""Whether a learner's results differ by form of presentation; the answer is "insufficient" until evidence says more.

Task: outcomes of one learner by modality (and, for comparison, of others) in; effect of each modality in logits with an
interval, a verdict, and apart from it what the learner chooses out.
Method: hierarchical beta-binomial around the share of right answers expected from level and item difficulty; a verdict
of "difference" needs a permutation test at 1 %, an interval corrected for the number of modalities beyond zero, enough
answers in each modality, and modalities that were assigned, not chosen.
Model: none; licence: own code.
Limits of use: matching teaching to a "learning style" has no good evidence (Pashler, McDaniel, Rohrer & Bjork 2008,
Psychological Science in the Public Interest 9): a preference is not an effect, and an effect on some items is no trait
of a person. Never sort learners into types, nor withhold a modality, on this.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.kit.modality_effects import (
    Cell,
    Effect,
    Outcome,
    cells,
    concentration,
    effects,
    item_difficulties,
    permutation_p,
)

MIN_ANSWERS: Final = 10
"""Of the learner in all; fewer are refused."""
MIN_PER_MODALITY: Final = 30
"""Fewer, and the verdict is insufficient."""
MIN_PER_ITEM: Final = 5
"""Answers of others to an item whose difficulty is not given; with fewer it is taken as average."""
SIGNIFICANCE: Final = 0.01
EQUIVALENT_LOGIT: Final = 0.4
"""Intervals within it say that there is no difference worth the name."""
PASHLER: Final = (
    "matching instruction to learning styles lacks evidence (Pashler et al. 2008): offer every modality; "
    "a difference here holds for these items, not for the person"
)

Verdict = Literal["insufficient", "no_difference", "difference"]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ModalityOutcome(_Part):
    """An answer after some form of presentation."""

    item: Name = Field(description="The item.")
    modality: Annotated[str, StringConstraints(min_length=1, max_length=50)] = Field(
        description="How it was presented: text, video, audio, game …"
    )
    correct: StrictBool = Field(description="Whether the answer was right.")
    learner: Name | None = Field(default=None, description="Whose; null: the learner asked about.")
    difficulty_logit: float | None = Field(
        default=None, ge=-15, le=15, description="The item's difficulty; null: from the answers of all learners."
    )
    chosen: StrictBool | None = Field(
        default=None, description="Whether the learner chose the modality; false: it was assigned; null: not known."
    )


class Input(EngineInput):
    """Outcomes of one learner, and of others for comparison."""

    outcomes: list[ModalityOutcome] = Field(min_length=1, max_length=20_000, description="Answers, in any order.")


class ModalityEffect(BaseModel):
    """How a modality went for the learner, against the learner's own level."""

    modality: str = Field(description="The modality.")
    logit: float = Field(description="Posterior effect, logits; positive: better than expected.")
    ci95: tuple[float, float] = Field(description="95 % credible interval, logits, not corrected for several.")
    n: int = Field(description="Answers it rests on.")
    p_observed: float = Field(description="Share of right answers.")
    p_expected: float = Field(description="Share expected from level and difficulty.")


class Output(EngineOutput):
    """Effects, and whether they may be believed."""

    verdict: Verdict = Field(description="insufficient unless everything the method asks for is there.")
    reasons: list[str] = Field(description="Why the verdict is insufficient; empty otherwise.")
    effects: list[ModalityEffect] = Field(description="One for each modality, best first.")
    choice_rate: dict[str, float] = Field(
        description="Share of each modality among what the learner chose: a preference, not an effect."
    )
    n_choices: int = Field(description="Choices it rests on.")
    permutation_p: float = Field(description="Chance of such differences if modalities meant nothing.")
    n: int = Field(description="Answers of the learner.")
    prior_answers: float = Field(description="Weight of 'modalities do not matter', in answers (kappa).")
    prior_fitted: bool = Field(description="Whether that weight was fitted on other learners.")
    reliable: bool = Field(description="Whether the verdict is more than insufficient.")
    warnings: list[str] = Field(description="What to mind.")


def _example() -> Input:
    """Forty answers, about alike in both modalities."""
    return Input(
        outcomes=[
            ModalityOutcome(
                item=f"i{i}",
                modality="text" if i % 2 else "video",
                correct=i % 5 not in (0, 3),
                difficulty_logit=0.5 if i % 5 == 0 else -0.5,
                chosen=i % 4 == 0,
            )
            for i in range(40)
        ]
    )


class LearningPreference(Engine[Input, Output]):
    """Effects of modalities on one learner, with a verdict that is insufficient by default."""

    name = "learning_preference"
    title = "Outcome by form of presentation, sceptical by default"
    method = "hierarchical-beta-binomial"
    example = _example()
    timeout_s = 60.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Estimate. Raises InvalidInput below the minimum of the learner's own answers."""
        own = [o for o in payload.outcomes if o.learner is None]
        if len(own) < MIN_ANSWERS:
            raise InvalidInput(
                f"{len(own)} answers of the learner are too few",
                hint=f"send at least {MIN_ANSWERS} without `learner`; those with it are other learners' answers",
            )
        return await asyncio.to_thread(_judged, payload.outcomes, own)

    async def post_swap_test(self) -> None:
        """The example, on which nothing may be concluded."""
        await super().post_swap_test()
        if (await self.run(self.example, self.probe)).verdict != "insufficient":
            raise ModelUnavailable("learning_preference concludes something from forty answers")


def _judged(given: Sequence[ModalityOutcome], own: Sequence[ModalityOutcome]) -> Output:
    outcomes, thin = _outcomes(given)
    mine = [o for o in outcomes if o.learner == ""]
    found = cells(outcomes)
    kappa, fitted = concentration(found)
    parts = found.get("", [])
    told = effects(parts, kappa=kappa)
    reasons = _reasons(own, parts)
    verdict, p = judged(mine, kappa=kappa)
    if reasons:
        verdict = "insufficient"
    elif verdict == "insufficient":
        reasons.append("the answers fit a difference as well as none")
    warnings = [PASHLER]
    if thin:
        warnings.append(
            f"{thin} items have no difficulty and fewer than {MIN_PER_ITEM} answers of others: taken as average"
        )
    if not fitted:
        warnings.append("too few other learners to tell how much modalities matter: a weak prior is used")
    choices = [o.modality for o in own if o.chosen]
    return Output(
        method=LearningPreference.method,
        verdict=verdict,
        reasons=reasons,
        effects=sorted(map(_effect, told), key=lambda e: -e.logit),
        choice_rate={name: round(choices.count(name) / len(choices), 4) for name in sorted(set(choices))},
        n_choices=len(choices),
        permutation_p=round(p, 4),
        n=len(own),
        prior_answers=round(kappa, 1),
        prior_fitted=fitted,
        reliable=verdict != "insufficient",
        warnings=warnings,
    )


def _outcomes(given: Sequence[ModalityOutcome]) -> tuple[list[Outcome], int]:
    """With difficulties, given or from OTHER learners' answers (an item's difficulty must not be made of the very
    answer it explains); and how many items are taken as of average difficulty for want of these."""
    others = [o for o in given if o.learner is not None]
    known = item_difficulties([o.item for o in others], [o.correct for o in others], at_least=MIN_PER_ITEM)
    thin = {o.item for o in given if o.learner is None and o.difficulty_logit is None and o.item not in known}
    return [
        Outcome(
            learner=o.learner or "",
            modality=o.modality,
            difficulty_logit=known.get(o.item, known[""]) if o.difficulty_logit is None else o.difficulty_logit,
            correct=o.correct,
        )
        for o in given
    ], len(thin)


def _reasons(own: Sequence[ModalityOutcome], parts: Sequence[Cell]) -> list[str]:
    """What is missing for a verdict."""
    reasons = []
    if len({o.modality for o in own}) < 2:
        reasons.append("all answers are of one modality")
    elif not parts:
        reasons.append("all answers are right, or all are wrong")
    few = [f"{c.modality} ({c.n})" for c in parts if c.n < MIN_PER_MODALITY]
    if few:
        reasons.append(f"fewer than {MIN_PER_MODALITY} answers with {', '.join(few)}")
    if not all(o.chosen is False for o in own):
        reasons.append("modalities were not all assigned (`chosen` false): who chooses also chooses when and what")
    return reasons


def judged(own: Sequence[Outcome], *, kappa: float) -> tuple[Verdict, float]:
    """What one learner's outcomes say by themselves, and their permutation p; minimums are not looked at."""
    parts = cells(own).get(own[0].learner, [])
    if len(parts) < 2:
        return "insufficient", 1.0
    p = permutation_p(own)
    corrected = effects(parts, kappa=kappa, level=1 - 0.05 / len(parts))
    if p <= SIGNIFICANCE and any(e.low > 0 or e.high < 0 for e in corrected):
        return "difference", p
    if all(e.low > -EQUIVALENT_LOGIT and e.high < EQUIVALENT_LOGIT for e in corrected):
        return "no_difference", p
    return "insufficient", p


def _effect(found: Effect) -> ModalityEffect:
    return ModalityEffect(
        modality=found.cell.modality,
        logit=round(found.logit, 3),
        ci95=(round(found.low, 3), round(found.high, 3)),
        n=found.cell.n,
        p_observed=round(found.cell.right / found.cell.n, 4),
        p_expected=round(found.cell.expected, 4),
    )
