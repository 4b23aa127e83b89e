"""How focused a learner is now against their own usual, and when they will want a break.

Score: mean and variation of reaction times, lapses (over twice one's median, as the 500 ms of a vigilance test; Dinges
& Powell 1985) and idle time of the last 20 responses, exponentially weighted, against the learner's own earlier
sessions; 50 is usual. Interval: moving-block bootstrap. Segments: two-state hidden Markov model over log reactions
(Rabiner 1989), kept only where BIC prefers it to one state. Break: discrete-time hazard over five-minute periods
(Singer & Willett 1993), fitted to the learner's own sessions. Next page: Markov model with Witten-Bell fallback.
No model weights. Licence of the code: Apache-2.0.
Limits: for pacing a learner's own work only, NEVER FOR GRADING, ranking or discipline: the best published detectors of
attention from logs reach an AUC of about 0.61. Slow is not inattentive: hard items, a slow line and disabilities slow
reactions too. Not a diagnosis (attention deficit, fatigue).
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.kit.attention import (
    MEASURES,
    MIN_SEGMENTED,
    WINDOW,
    Doubles,
    Score,
    Stretch,
    Usual,
    counts,
    score,
    segments,
    usual,
)
from neuroedge.kit.break_hazard import PERIOD_S, Hazard, WorkedSession, fit
from neuroedge.kit.next_item import following

MIN_RESPONSES: Final = 10
MIN_PAGES: Final = 6
MAX_RESPONSES: Final = 100_000
MAX_SESSION_S: Final = 86_400.0
PURPOSE: Final = "for pacing the learner's own work; never for grading, ranking or discipline"


class Response(BaseModel):
    """One answer, click or key press that was asked for."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    at_s: float = Field(ge=0, le=MAX_SESSION_S, description="When it came, seconds from the start of the session.")
    reaction_ms: float = Field(gt=0, le=3_600_000, description="How long it took, milliseconds.")


class Idle(BaseModel):
    """A stretch without any activity."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    start_s: float = Field(ge=0, le=MAX_SESSION_S, description="Start, seconds from the start of the session.")
    end_s: float = Field(ge=0, le=MAX_SESSION_S, description="End, seconds from the start of the session.")

    @model_validator(mode="after")
    def _in_order(self) -> "Idle":
        if self.end_s < self.start_s:
            raise ValueError("'end_s' must not be before 'start_s'")
        return self


class PastSession(BaseModel):
    """An earlier session of the same learner."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    responses: list[Response] = Field(default_factory=list, max_length=5000, description="Its responses, any order.")
    idle: list[Idle] = Field(default_factory=list, max_length=1000, description="Its idle stretches.")
    duration_s: float = Field(gt=0, le=MAX_SESSION_S, description="How long it lasted, seconds.")
    ended_by: Literal["break", "other"] = Field(description="break: the learner wanted one; other: anything else.")


class Input(EngineInput):
    """A running session, and earlier ones of the same learner to compare with."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    responses: list[Response] = Field(max_length=5000, description="Responses of the running session, any order.")
    idle: list[Idle] = Field(default_factory=list, max_length=1000, description="Idle stretches of it.")
    elapsed_s: float | None = Field(
        default=None, ge=0, le=MAX_SESSION_S, description="Time since its start, seconds; the last response if absent."
    )
    past: list[PastSession] = Field(default_factory=list, max_length=200, description="Earlier sessions, any order.")
    pages: list[Annotated[str, Field(min_length=1, max_length=500)]] = Field(
        default_factory=list, max_length=5000, description="Pages visited, oldest first, the present one last."
    )

    @model_validator(mode="after")
    def _sizes(self) -> "Input":
        total = len(self.responses) + sum(len(s.responses) for s in self.past)
        if total > MAX_RESPONSES:
            raise ValueError(f"{total} responses in all; at most {MAX_RESPONSES}")
        return self


class Interval(BaseModel):
    """A 95 % interval."""

    low: float = Field(description="Lower end.")
    high: float = Field(description="Upper end.")


class Component(BaseModel):
    """One measure behind the score."""

    name: str = Field(description="log_reaction (of milliseconds), variation (sd/mean), lapses or idle (shares 0..1).")
    value: float = Field(description="Of the last responses.")
    usual: float = Field(description="Mean of the learner's earlier windows.")
    z: float = Field(description="Spreads above usual; positive is less focused. From -1 to 4.")


class AttentionSegment(BaseModel):
    """A stretch of responses in one state."""

    start_s: float = Field(description="First response, seconds from the start of the session.")
    end_s: float = Field(description="Last response, seconds from the start of the session.")
    state: Literal["steady", "quick", "slow"] = Field(description="steady: the session has one state only.")
    mean_reaction_ms: float = Field(description="Geometric mean reaction, milliseconds.")
    n: int = Field(description="Responses in it.")


class NextPage(BaseModel):
    """A page likely to be opened next."""

    page: str = Field(description="The page.")
    p: float = Field(description="Probability (0..1).")


class Output(EngineOutput):
    """Focus now, the session's course, and the next break."""

    score_0_100: float | None = Field(
        description="50 is this learner's usual, lower is less focused; null: too little."
    )
    ci95: Interval | None = Field(description="95 % interval of the score.")
    components: list[Component] = Field(description="What the score is made of.")
    segments: list[AttentionSegment] = Field(description="Course of the session; empty without responses.")
    p_break_5min: float | None = Field(
        description="Probability that a break is wanted within 5 minutes; null: too little."
    )
    suggest_at_s: float | None = Field(
        description="When to suggest a break, seconds from the session's start; null: not within two hours, or unknown."
    )
    next_pages: list[NextPage] = Field(description="At most 3, likeliest first.")
    n_responses: int = Field(description="Responses of the running session.")
    n_baseline_responses: int = Field(description="Responses of earlier sessions the score is compared with.")
    n_past_sessions: int = Field(description="Earlier sessions the break model rests on.")
    reliable: bool = Field(description="Whether score and break both rest on enough observations.")
    warnings: list[str] = Field(description="What is missing or uncertain.")
    purpose: str = Field(default=PURPOSE, description="What this may be used for.")


class Focus(Engine[Input, Output]):
    """Score against one's own baseline, segments, hazard of a break, next page."""

    name = "focus"
    title = "Focus and breaks of a learner"
    method = "own-baseline-ewma+hmm+discrete-hazard"
    example = Input(
        responses=[Response(at_s=20.0 * i, reaction_ms=900 + 35 * (i % 7) + 12 * i) for i in range(30)],
        past=[
            PastSession(
                responses=[Response(at_s=25.0 * i, reaction_ms=850 + 40 * ((i * 3 + day) % 7)) for i in range(40)],
                duration_s=1200 + 150.0 * day,
                ended_by="break" if day % 4 else "other",
            )
            for day in range(10)
        ],
        pages=["home", "fractions", "quiz", "home", "fractions", "quiz", "home"],
    )

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Measure; parts that rest on too little are null with a warning that says how much is needed."""
        return await asyncio.to_thread(assess, payload)

    async def post_swap_test(self) -> None:
        """The example's learner slows down: below usual."""
        await super().post_swap_test()
        answer = await self.run(self.example, self.probe)
        if answer.score_0_100 is None or answer.score_0_100 >= 50:
            raise NeuroEdgeError("the focus engine does not see its example slow down")


def assess(payload: Input) -> Output:
    """The engine's answer; pure, so that a benchmark can call it."""
    warnings: list[str] = []
    responses = sorted(payload.responses, key=lambda r: r.at_s)
    elapsed_s = payload.elapsed_s if payload.elapsed_s is not None else (responses[-1].at_s if responses else 0.0)
    past = [_stretch(sorted(s.responses, key=lambda r: r.at_s), s.idle, s.duration_s) for s in payload.past]
    own = _usual(past, warnings)
    now = _stretch(responses, payload.idle, elapsed_s)
    scored = _scored(now, own, warnings)
    hazard = _hazard(payload.past, own, warnings)
    recent = _slowness([r for r in responses if r.at_s > elapsed_s - PERIOD_S], own)
    suggest = None if hazard is None else hazard.median_s(elapsed_s=elapsed_s, slowness=recent)
    if 0 < len(payload.pages) < MIN_PAGES:
        warnings.append(f"{len(payload.pages)} pages, a next page needs {MIN_PAGES}")
    pages = following(payload.pages) if len(payload.pages) >= MIN_PAGES else []
    return Output(
        method=Focus.method,
        score_0_100=None if scored is None else round(scored.value, 1),
        ci95=None if scored is None else Interval(low=round(scored.low, 1), high=round(scored.high, 1)),
        components=[] if scored is None or own is None else _components(scored, own),
        segments=_segments(responses),
        p_break_5min=None if hazard is None else round(hazard.next_period(elapsed_s=elapsed_s, slowness=recent), 4),
        suggest_at_s=suggest,
        next_pages=[NextPage(page=page, p=round(p, 4)) for page, p in pages],
        n_responses=len(responses),
        n_baseline_responses=sum(len(s.reactions_ms) for s in past if counts(s)),
        n_past_sessions=len(payload.past),
        reliable=scored is not None and hazard is not None,
        warnings=warnings,
    )


def _stretch(responses: Sequence[Response], idle: Sequence[Idle], duration_s: float) -> Stretch:
    away = _covered([(i.start_s, min(i.end_s, duration_s)) for i in idle if i.start_s < duration_s])
    share = away / duration_s if duration_s > 0 else 0.0
    return Stretch(reactions_ms=np.array([r.reaction_ms for r in responses], np.float64), idle_share=share)


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union, so that overlapping reports of idleness do not count twice."""
    total, reached = 0.0, 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _usual(past: Sequence[Stretch], warnings: list[str]) -> Usual | None:
    try:
        own = usual(past)
    except ValueError as e:
        warnings.append(f"no score: {e}")
        return None
    if own.windows < 5:
        warnings.append(f"the usual rests on {own.windows} windows of {WINDOW} responses only: the score is rough")
    return own


def _scored(now: Stretch, own: Usual | None, warnings: list[str]) -> Score | None:
    if own is None:
        return None
    if len(now.reactions_ms) < MIN_RESPONSES:
        warnings.append(f"no score: {len(now.reactions_ms)} responses in this session, needs {MIN_RESPONSES}")
        return None
    if len(now.reactions_ms) < MIN_SEGMENTED:
        warnings.append(f"one segment: {len(now.reactions_ms)} responses, states need {MIN_SEGMENTED}")
    return score(now, own)


def _components(scored: Score, own: Usual) -> list[Component]:
    columns = zip(MEASURES, scored.measures, own.mean, scored.z, strict=True)
    return [
        Component(name=name, value=round(float(v), 4), usual=round(float(u), 4), z=round(float(z), 2))
        for name, v, u, z in columns
    ]


def _hazard(past: Sequence[PastSession], own: Usual | None, warnings: list[str]) -> Hazard | None:
    try:
        return fit([_worked(session, own) for session in past])
    except ValueError as e:
        warnings.append(f"no break predicted: {e}")
        return None


def _worked(session: PastSession, own: Usual | None) -> WorkedSession:
    periods: list[list[Response]] = [[] for _ in range(int(session.duration_s // PERIOD_S) + 1)]
    for r in session.responses:
        periods[min(int(r.at_s // PERIOD_S), len(periods) - 1)].append(r)
    return WorkedSession(
        duration_s=session.duration_s,
        took_break=session.ended_by == "break",
        slowness=[_slowness(period, own) for period in periods],
    )


def _slowness(responses: Sequence[Response], own: Usual | None) -> float:
    """z of the mean log reaction; usual (0) where nothing is known."""
    if not responses or own is None:
        return 0.0
    mean = float(np.log([r.reaction_ms for r in responses]).mean())
    return float(np.clip((mean - own.mean[0]) / own.spread[0], -4, 4))


def _segments(responses: Sequence[Response]) -> list[AttentionSegment]:
    if not responses:
        return []
    reactions: Doubles = np.array([r.reaction_ms for r in responses], np.float64)
    return [
        AttentionSegment(
            start_s=responses[s.first].at_s,
            end_s=responses[s.stop - 1].at_s,
            state="steady" if s.slow is None else ("slow" if s.slow else "quick"),
            mean_reaction_ms=round(float(np.exp(np.log(reactions[s.first : s.stop]).mean())), 1),
            n=s.stop - s.first,
        )
        for s in segments(reactions)
    ]
