"""What to learn or review next: prerequisites, mastery and forgetting together.

Method: skills and prerequisites form a directed acyclic graph; a new skill is offered when all it needs is mastered
(mastery learning, Bloom 1968; knowledge spaces, Doignon & Falmagne 1985). Forgetting: FSRS-6 (Ye et al. 2022) with its
published parameters, by `fsrs` (MIT). Mastery: as given (engine `difficulty`, a student profile), else the mean of a
beta posterior over the reviews, each of them counted as recalled or not. Order: what is due and least remembered, then
what was begun, then what is new; among equals what most other skills wait for. No model weights.
Limits: parameters are those of the public's flash cards, not fitted to this learner. Prerequisites are the caller's:
`curriculum` checks them. A suggestion for learner and teacher, not an assessment.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput
from neuroedge.kit.skill_graph import cycles, graph, leading_to, unlocks
from neuroedge.kit.spaced_repetition import Rating, Recall, recall

MIN_OBSERVATIONS: Final = 3
"""Fewer do not make a skill mastered."""
CLOCK_SKEW: Final = timedelta(minutes=5)
OLDEST: Final = datetime(1980, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
SkillId = Annotated[str, Field(min_length=1, max_length=200)]
State = Literal["mastered", "due", "learning", "ready", "locked"]


class Skill(BaseModel):
    """Something to learn."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=200, description="The caller's name for it, unique in the request.")
    prerequisites: list[SkillId] = Field(
        default_factory=list, max_length=100, description="Ids of the skills that must be mastered first."
    )


class Review(BaseModel):
    """One attempt to recall or use a skill."""

    model_config = ConfigDict(extra="forbid")

    skill: str = Field(min_length=1, max_length=200, description="Id of the skill.")
    at: AwareDatetime = Field(description="When, with a time zone.")
    rating: Rating = Field(description="again: not recalled; hard, good, easy: recalled, with this effort.")


class Mastery(BaseModel):
    """How well a skill is mastered, by another measure."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    skill: str = Field(min_length=1, max_length=200, description="Id of the skill.")
    p: float = Field(ge=0, le=1, description="Probability (0..1) that it is mastered.")
    n: int = Field(ge=0, le=1_000_000, description="Observations this rests on.")


class Input(EngineInput):
    """Skills, and what one learner has done."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    skills: list[Skill] = Field(min_length=1, max_length=2000, description="All skills, any order.")
    reviews: list[Review] = Field(default_factory=list, max_length=20_000, description="Attempts, any order.")
    mastery: list[Mastery] = Field(
        default_factory=list, max_length=2000, description="Replaces what the reviews say of a skill's mastery."
    )
    goals: list[SkillId] = Field(
        default_factory=list, max_length=200, description="Only what leads to these; else all."
    )
    now: AwareDatetime | None = Field(default=None, description="The time to plan for; the present if absent.")
    mastered_at: float = Field(default=0.8, ge=0.5, le=0.99, description="Mastery (0..1) from which a skill counts.")
    desired_retention: float = Field(default=0.9, ge=0.7, le=0.97, description="Chance of recall to review at.")
    limit: int = Field(default=5, ge=1, le=100, description="Longest list of next steps.")


class Step(BaseModel):
    """Something to do next."""

    skill: str = Field(description="Id of the skill.")
    kind: Literal["review", "practise", "learn"] = Field(description="review: due; practise: begun; learn: new.")
    reason: str = Field(description="Why it, and why now.")
    unlocks: int = Field(description="Skills that need this one, directly or not.")


class SkillState(BaseModel):
    """Where the learner stands in one skill."""

    skill: str = Field(description="Its id.")
    state: State = Field(
        description="mastered; due: to be reviewed now; learning: begun; ready: all it needs is mastered; locked: not."
    )
    mastery: float | None = Field(description="Probability (0..1) of mastery; null without observations.")
    n_observations: int = Field(description="Observations behind the mastery.")
    n_reviews: int = Field(description="Reviews behind the memory.")
    due_at: datetime | None = Field(description="When to review it (UTC); null without reviews.")
    stability_days: float | None = Field(description="Days after which the chance of recall is 0.9; null likewise.")
    difficulty_1_10: float | None = Field(description="FSRS difficulty for this learner, 1 to 10; null likewise.")
    retrievability: float | None = Field(description="Chance of recall now (0..1); null likewise.")
    missing: list[str] = Field(description="Prerequisites that are not mastered.")


class Output(EngineOutput):
    """The next steps, and the state of every skill that was looked at."""

    next: list[Step] = Field(description="Best first.")
    skills: list[SkillState] = Field(
        description="In the order given; only what leads to the goals where there are any."
    )
    n_reviews: int = Field(description="Reviews of these skills.")
    reliable: bool = Field(description="Whether every skill that was begun rests on enough observations.")
    warnings: list[str] = Field(description="What is uncertain.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What is known of one skill."""

    mastery: float | None
    n: int
    reviews: int
    memory: Recall | None


class LearningPath(Engine[Input, Output]):
    """Prerequisite graph, mastery, and FSRS-6."""

    name = "learning_path"
    title = "Learning path and review schedule"
    method = "prerequisite-dag+fsrs-6"
    example = Input(
        skills=[
            Skill(id="counting"),
            Skill(id="addition", prerequisites=["counting"]),
            Skill(id="multiplication", prerequisites=["addition"]),
        ],
        reviews=[
            Review(skill="counting", at=datetime(2026, 1, day, 9, tzinfo=UTC), rating="good") for day in (1, 3, 10, 28)
        ],
        now=datetime(2026, 2, 1, 9, tzinfo=UTC),
    )

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Plan. Raises InvalidInput for unknown or double ids, cycles, and reviews of the future."""
        now = payload.now or ctx.clock.now()
        _check(payload, now)
        return await asyncio.to_thread(_plan, payload, now)


def _check(payload: Input, now: datetime) -> None:
    """What pydantic cannot see: references, and times against now."""
    ids: set[str] = set()
    for i, skill in enumerate(payload.skills):
        if skill.id in ids:
            raise _refused(("skills", i, "id"), f"'{skill.id}' is there twice", "give each skill one entry")
        ids.add(skill.id)
    mentioned: list[tuple[tuple[Any, ...], str]] = [
        (("skills", i, "prerequisites", j), name)
        for i, s in enumerate(payload.skills)
        for j, name in enumerate(s.prerequisites)
    ]
    mentioned += [(("reviews", i, "skill"), r.skill) for i, r in enumerate(payload.reviews)]
    mentioned += [(("mastery", i, "skill"), m.skill) for i, m in enumerate(payload.mastery)]
    mentioned += [(("goals", i), goal) for i, goal in enumerate(payload.goals)]
    for path, name in mentioned:
        if name not in ids:
            raise _refused(path, f"there is no skill '{name}'", "list it under 'skills'")
    if not OLDEST < now < LATEST:
        raise _refused(("now",), "the time to plan for is not between 1980 and 2200", "give the present time")
    for i, r in enumerate(payload.reviews):
        if not OLDEST < r.at <= now + CLOCK_SKEW:
            raise _refused(
                ("reviews", i, "at"), f"{r.at.isoformat()} is not before now", "check the clock and the zone"
            )


def _refused(path: tuple[Any, ...], message: str, hint: str) -> InvalidInput:
    errors = [{"loc": path, "msg": message, "type": "value_error"}]
    return InvalidInput(f"{'.'.join(map(str, path))}: {message}", hint=hint, errors=errors)


def _plan(payload: Input, now: datetime) -> Output:
    built = graph({s.id: s.prerequisites for s in payload.skills})
    if found := cycles(built):
        way = " → ".join([*found[0], found[0][0]])
        raise _refused(("skills",), f"skills need each other in a circle: {way}", "remove one of these prerequisites")
    wanted = leading_to(built, payload.goals) if payload.goals else {s.id for s in payload.skills}
    known = _known(payload, now, wanted)
    mastered = {id_ for id_, k in known.items() if _masters(k, payload)}
    states = [_state(s, known[s.id], mastered, now) for s in payload.skills if s.id in wanted]
    thin = [s.skill for s in states if 0 < s.n_observations < MIN_OBSERVATIONS]
    warnings = (
        [f"fewer than {MIN_OBSERVATIONS} observations of {len(thin)} skills: {', '.join(thin[:5])}"] if thin else []
    )
    if not any(s.n_observations for s in states):
        warnings.append("no observations: the order rests on the prerequisites alone")
    return Output(
        method=LearningPath.method,
        next=_steps(states, unlocks(built, wanted))[: payload.limit],
        skills=states,
        n_reviews=sum(s.n_reviews for s in states),
        reliable=not warnings,
        warnings=warnings,
    )


def _known(payload: Input, now: datetime, wanted: set[str]) -> dict[str, _Known]:
    histories: defaultdict[str, list[tuple[datetime, Rating]]] = defaultdict(list)
    for r in payload.reviews:
        histories[r.skill].append((r.at, r.rating))
    given = {m.skill: m for m in payload.mastery}
    return {id_: _of(histories[id_], given.get(id_), now, payload.desired_retention) for id_ in wanted}


def _of(
    history: Sequence[tuple[datetime, Rating]], given: Mastery | None, now: datetime, desired_retention: float
) -> _Known:
    recalled = sum(rating != "again" for _, rating in history)
    own = (recalled + 1) / (len(history) + 2) if history else None
    return _Known(
        mastery=own if given is None else given.p,
        n=len(history) if given is None else given.n,
        reviews=len(history),
        memory=recall(history, now=now, desired_retention=desired_retention),
    )


def _masters(known: _Known, payload: Input) -> bool:
    return known.mastery is not None and known.mastery >= payload.mastered_at and known.n >= MIN_OBSERVATIONS


def _state(skill: Skill, known: _Known, mastered: set[str], now: datetime) -> SkillState:
    missing = [name for name in dict.fromkeys(skill.prerequisites) if name not in mastered]
    memory = known.memory
    state: State = "locked" if missing else "ready"
    if memory is not None and memory.due_at <= now:
        state = "due"
    elif skill.id in mastered:
        state = "mastered"
    elif known.n:
        state = "learning"
    return SkillState(
        skill=skill.id,
        state=state,
        mastery=None if known.mastery is None else round(known.mastery, 4),
        n_observations=known.n,
        n_reviews=known.reviews,
        due_at=None if memory is None else memory.due_at,
        stability_days=None if memory is None else round(memory.stability_days, 4),
        difficulty_1_10=None if memory is None else round(memory.difficulty, 4),
        retrievability=None if memory is None else round(memory.retrievability, 4),
        missing=missing,
    )


def _steps(states: Sequence[SkillState], waiting: dict[str, int]) -> list[Step]:
    """Due reviews by how little is remembered, then begun skills, then new ones, by how many wait for them."""
    by_state = {"due": 0, "learning": 1, "ready": 2}
    ranked = sorted(
        (s for s in states if s.state in by_state),
        key=lambda s: (
            by_state[s.state],
            s.retrievability if s.state == "due" and s.retrievability is not None else 0.0,
            -waiting[s.skill],
            s.skill,
        ),
    )
    return [_step(s, waiting[s.skill]) for s in ranked]


def _step(s: SkillState, waiting: int) -> Step:
    tail = f"; {waiting} {'skill needs' if waiting == 1 else 'skills need'} it" if waiting else ""
    if s.state == "due":
        chance = 0.0 if s.retrievability is None else s.retrievability
        return Step(skill=s.skill, kind="review", reason=f"chance of recall is {chance:.0%}{tail}", unlocks=waiting)
    if s.state == "learning":
        gap = f"; still missing: {', '.join(s.missing[:3])}" if s.missing else ""
        reason = f"mastery is {s.mastery or 0:.0%} on {s.n_observations} observations{gap}{tail}"
        return Step(skill=s.skill, kind="practise", reason=reason, unlocks=waiting)
    return Step(skill=s.skill, kind="learn", reason=f"all it needs is mastered{tail}", unlocks=waiting)
