"""Whether a learner is still trying: response-time effort, and the probability of having disengaged.

Task: what a learner did at each item (time, right or wrong, skips, hints, leaving the page, pauses) in; response-time
effort, a probability of being disengaged now, and what drives it out.
Method: response-time effort (Wise & Kong 2005) with normative thresholds of 10 % of the item's usual time (Wise & Ma
2012); logistic regression over eight features of the last ten items.
Model: nine coefficients, fitted to SIMULATED learners whose simulator stands in benchmarks/engagement.py; they are
calibrated there and have not been validated on real ones, and every answer says so. Licence: own code.
Limits of use: fast is not the same as careless (some know it by heart), slow not the same as engaged; disabilities,
devices and languages change response times. Offer help or a break on it; never grade, rank or discipline on it.
Camera, microphone and face are not used.
"""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput, Health
from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.kit.engagement import (
    FEATURES,
    MIN_ANSWERS,
    NORMATIVE_SHARE,
    Effort,
    Head,
    Try,
    contributions,
    effort,
    features,
    probability,
)

NOT_VALIDATED: Final = (
    "the probability comes from a head fitted to simulated learners and is not validated on real ones; "
    "response-time effort is"
)
MIN_NORMED: Final = 0.5
"""Share of answers whose item's usual time must be known."""

HEAD: Final = Head(
    bias=-1.1197,
    weights={
        "rapid_share": 0.4003,
        "speed_up": 0.2018,
        "wrong_share": 0.4349,
        "skip_share": 0.2085,
        "hint_share": 0.2604,
        "away_share": 0.1157,
        "pause_share": 0.1791,
        "last_rapid": 1.3415,
    },
    mean={
        "rapid_share": 0.1294,
        "speed_up": 0.1229,
        "wrong_share": 0.5132,
        "skip_share": 0.0375,
        "hint_share": 0.0799,
        "away_share": 0.0391,
        "pause_share": 0.0397,
        "last_rapid": 0.1325,
    },
    sd={
        "rapid_share": 0.1608,
        "speed_up": 0.825,
        "wrong_share": 0.2243,
        "skip_share": 0.0732,
        "hint_share": 0.1111,
        "away_share": 0.0801,
        "pause_share": 0.0647,
        "last_rapid": 0.2319,
    },
)
"""What `python -m benchmarks.engagement --fit` prints."""

_ABOUT: Final = {
    "rapid_share": "answers faster than their thresholds",
    "speed_up": "faster than the learner's own earlier answers",
    "wrong_share": "wrong answers",
    "skip_share": "skipped items",
    "hint_share": "hints asked for",
    "away_share": "time away from the page",
    "pause_share": "pauses of more than a minute before an item",
    "last_rapid": "rapid answers among the last three",
}

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ItemEvent(_Part):
    """An item as the learner left it."""

    item: Name = Field(description="The item.")
    time_s: float = Field(ge=0, le=86_400, description="Seconds from showing the item to answering or leaving it.")
    correct: StrictBool | None = Field(default=None, description="Whether the answer was right; null: skipped.")
    hints: int = Field(default=0, ge=0, le=100, description="Hints asked for.")
    away_s: float = Field(default=0, ge=0, le=86_400, description="Seconds of it with the page not in front.")
    pause_before_s: float = Field(default=0, ge=0, le=604_800, description="Idle seconds since the item before.")


class UsualTime(_Part):
    """How long an item usually takes."""

    item: Name = Field(description="The item.")
    median_s: float = Field(gt=0, le=86_400, description="Median seconds over other learners.")


class Input(EngineInput):
    """One learner's session so far."""

    events: list[ItemEvent] = Field(min_length=1, max_length=5_000, description="Items in the order they were left.")
    usual_times: list[UsualTime] = Field(
        default_factory=list,
        max_length=5_000,
        description="Usual times of items; without, a rapid answer is one under 3 s, which is cruder.",
    )


class Driver(BaseModel):
    """A feature with its part in the answer."""

    feature: str = Field(description="Its name.")
    about: str = Field(description="What it measures, over the last ten items.")
    value: float = Field(description="The learner's: a share from 0 to 1; speed_up in natural logarithms of time.")
    usual: float = Field(description="Mean of the simulated learners.")
    logit: float = Field(description="What it adds to the logit of being disengaged, against the usual.")


class Output(EngineOutput):
    """Effort, and how likely it has ended."""

    p_disengage: float = Field(description="Probability of being disengaged at the last item, 0 to 1; see warnings.")
    rte: float = Field(description="Response-time effort: share of answers that were not rapid, 0 to 1.")
    rapid_answers: int = Field(description="Answers faster than their thresholds.")
    n_answers: int = Field(description="Answers the effort rests on.")
    n_events: int = Field(description="Items in all, skipped ones too.")
    threshold_share: float = Field(description="Share of an item's usual time under which an answer is rapid.")
    drivers: list[Driver] = Field(description="What raises or lowers the probability, strongest first.")
    rte_reliable: bool = Field(description="Whether the effort rests on known usual times.")
    reliable: bool = Field(description="Whether the probability is validated on real learners; it is not.")
    warnings: list[str] = Field(description="What to mind.")


def _example() -> Input:
    """Twenty items: careful first, then ever more rapid guesses."""
    times = (31, 24, 42, 28, 19, 36, 27, 33, 22, 29, 25, 30, 1.4, 1.1, 6, 1.2, 0.9, 1.6, 1.3, 1.0)
    events = [
        ItemEvent(item=f"i{i}", time_s=t, correct=(i % 4 != 3) if t > 5 else i % 4 == 0) for i, t in enumerate(times)
    ]
    return Input(events=events, usual_times=[UsualTime(item=f"i{i}", median_s=27) for i in range(len(times))])


class Engagement(Engine[Input, Output]):
    """Response-time effort and the probability of disengagement."""

    name = "engagement"
    title = "Effort and disengagement of a learner"
    method = "response-time-effort+logistic"
    example = _example()

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Judge the session. Raises InvalidInput below the minimum of answers, and for an item timed twice."""
        tries = [Try(**event.model_dump()) for event in payload.events]
        usual_s = {usual.item: usual.median_s for usual in payload.usual_times}
        if len(usual_s) < len(payload.usual_times):
            raise InvalidInput("`usual_times` names an item twice", hint="give each item once")
        answered = sum(t.correct is not None for t in tries)
        if answered < MIN_ANSWERS:
            raise InvalidInput(
                f"{answered} answers are too few to judge effort", hint=f"send at least {MIN_ANSWERS} answered items"
            )
        tried = effort(tries, usual_s)
        found = features(tries, usual_s)
        warnings = [NOT_VALIDATED, *_warnings(tried)]
        return Output(
            method=self.method,
            p_disengage=round(probability(found, HEAD), 4),
            rte=round(tried.rte, 4),
            rapid_answers=tried.rapid,
            n_answers=tried.n,
            n_events=len(tries),
            threshold_share=NORMATIVE_SHARE,
            drivers=_drivers(found),
            rte_reliable=len(warnings) == 1,
            reliable=False,
            warnings=warnings,
        )

    async def health(self) -> Health:
        """Ready; the detail says what the probability is worth."""
        return (await super().health()).model_copy(update={"detail": NOT_VALIDATED})

    async def post_swap_test(self) -> None:
        """The example, whose end must look less engaged than its first half."""
        await super().post_swap_test()
        whole = await self.run(self.example, self.probe)
        half = self.example.model_copy(update={"events": self.example.events[:12]})
        if whole.p_disengage <= (await self.run(half, self.probe)).p_disengage:
            raise ModelUnavailable("the engagement head does not see its example's learner give up")


def _warnings(tried: Effort) -> list[str]:
    if tried.normed >= MIN_NORMED * tried.n:
        return []
    return [f"usual times are known for {tried.normed} of {tried.n} answers: the others count as rapid below 3 s"]


def _drivers(found: dict[str, float]) -> list[Driver]:
    parts = contributions(found, HEAD)
    ranked = sorted(FEATURES, key=lambda name: (-abs(parts[name]), name))
    return [
        Driver(
            feature=name,
            about=_ABOUT[name],
            value=round(found[name], 4),
            usual=round(HEAD.mean[name], 4),
            logit=round(parts[name], 3),
        )
        for name in ranked
    ]
