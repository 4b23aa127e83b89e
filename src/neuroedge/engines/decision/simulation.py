"""What would happen: queues of customers, or students who answer, played through many times.

Task: a network of stations, or a class of students, as given; out come means over independent replications with 95 %
intervals, and traces.
Method: discrete events (simpy, MIT) with Jackson's closed form beside where it holds (Jackson 1957); students by the
Rasch or two-parameter model or Bayesian knowledge tracing (Corbett & Anderson 1995), whose parameters are estimated
again from the simulated answers to show what so much data can tell. Intervals: t, without the skewness (Hall 1992).
Model: none; everything comes from the call. Licence: own code.
Limits: the answer is as true as what is given: durations that do not depend on time or load, independent customers,
lines in the order of arrival. Simulated students are no students. An overloaded network has no long run: marked.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.kit import bkt, queueing, simulated_students
from neuroedge.kit.intervals import linearised, skewed_t_interval
from neuroedge.kit.queueing import PER, Duration, Measures, Station

MAX_VISITS: Final = 400_000
"""Expected visits of customers to stations over all replications."""
MAX_ANSWERS: Final = 1_000_000
"""Simulated answers over all replications."""
MIN_REPLICATIONS: Final = 5
HIGH_LOAD: Final = 0.95
"""From here on runs must be very long to settle."""
MIN_CUSTOMERS: Final = 100
"""Customers a replication needs to count, on average, before its means are trusted."""
MEASURES: Final = ("wait_s", "sojourn_s", "waiting", "present", "utilisation", "throughput_per_s", "lost")

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Seconds = Annotated[float, Field(gt=0, le=1e8)]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class RandomDuration(_Part):
    """A random duration."""

    law: Literal["exponential", "constant", "uniform", "gamma", "lognormal"] = Field(
        default="exponential", description="Its distribution."
    )
    mean_s: Seconds = Field(description="Its mean, seconds.")
    variation: float = Field(
        default=0.5,
        ge=0.01,
        le=5,
        description="Standard deviation over mean, of gamma, lognormal and uniform (there at most 0.577).",
    )

    @model_validator(mode="after")
    def _not_negative(self) -> "RandomDuration":
        if self.law == "uniform" and self.variation > 1 / math.sqrt(3):
            raise ValueError("a uniform duration with a 'variation' above 0.577 would be negative at times")
        return self


class QueueRoute(_Part):
    """Where customers go after a station."""

    to: Name = Field(description="The next station.")
    p: Probability = Field(description="Probability of going there, 0 to 1; the rest leaves.")


class QueueStation(_Part):
    """A line with servers behind it."""

    name: Name = Field(description="The station's name.")
    servers: int = Field(default=1, ge=1, le=1000, description="Customers served at the same time.")
    service: RandomDuration = Field(description="How long serving one takes.")
    interarrival: RandomDuration | None = Field(
        default=None, description="Time between arrivals from outside; null: nobody comes from outside."
    )
    route: list[QueueRoute] = Field(default_factory=list, max_length=50, description="Where customers go next.")
    places: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Customers that fit in, served ones included; null: any number."
    )


class QueueModel(_Part):
    """A network of queues."""

    stations: list[QueueStation] = Field(min_length=1, max_length=50, description="All stations.")
    duration_s: Seconds = Field(description="Counted time of a replication, seconds.")
    warmup_s: float = Field(default=0.0, ge=0, le=1e8, description="Time before counting begins, seconds.")

    @model_validator(mode="after")
    def _connected(self) -> "QueueModel":
        names = [s.name for s in self.stations]
        if len(set(names)) < len(names):
            raise ValueError("two stations have the same name")
        for station in self.stations:
            if unknown := [r.to for r in station.route if r.to not in names]:
                raise ValueError(f"station {station.name!r} routes to {unknown[0]!r}, which is no station")
            if sum(r.p for r in station.route) > 1 + 1e-9:
                raise ValueError(f"the probabilities behind station {station.name!r} are more than 1 together")
        if all(s.interarrival is None for s in self.stations):
            raise ValueError("nobody comes from outside: give a station an 'interarrival'")
        return self


class SimulatedItem(_Part):
    """An item of a simulated test."""

    difficulty_logit: float = Field(ge=-10, le=10, description="Its difficulty, logits.")
    discrimination: float = Field(default=1.0, ge=0.1, le=5, description="Its slope; 1 everywhere is the Rasch model.")


class ExamModel(_Part):
    """Students who answer each item of a test once."""

    students: int = Field(ge=2, le=20_000, description="Students in each replication.")
    ability_mean_logit: float = Field(default=0.0, ge=-10, le=10, description="Mean ability, logits.")
    ability_sd_logit: float = Field(default=1.0, gt=0, le=5, description="Spread of abilities, logits.")
    items: list[SimulatedItem] = Field(min_length=1, max_length=500, description="The items.")


class PracticeModel(_Part):
    """Students who practise one skill."""

    students: int = Field(ge=2, le=20_000, description="Students in each replication.")
    opportunities: int = Field(ge=1, le=200, description="Answers of each student.")
    known_at_first: float = Field(ge=0.01, le=0.99, description="Probability to know the skill at first.")
    learn: float = Field(ge=0.01, le=0.99, description="Probability to learn it at each practice.")
    guess: float = Field(ge=0.01, le=0.5, description="Probability of a right answer without the skill.")
    slip: float = Field(ge=0.01, le=0.5, description="Probability of a wrong answer with it.")


class Input(EngineInput):
    """What to play through: one of `queue`, `test` and `practice`."""

    queue: QueueModel | None = Field(default=None, description="A network of queues.")
    test: ExamModel | None = Field(default=None, description="Students who take a test.")
    practice: PracticeModel | None = Field(default=None, description="Students who practise a skill.")
    replications: int = Field(
        default=20, ge=MIN_REPLICATIONS, le=500, description="Independent runs; the interval narrows with their root."
    )
    seed: int = Field(default=0, ge=0, le=2**31, description="The same seed gives the same answer.")
    trace: int = Field(
        default=0, ge=0, le=2000, description="Events of a queue, or students' answers, of the first run to give back."
    )

    @model_validator(mode="after")
    def _one(self) -> "Input":
        if sum(x is not None for x in (self.queue, self.test, self.practice)) != 1:
            raise ValueError("give exactly one of 'queue', 'test' and 'practice'")
        return self


class Interval95(BaseModel):
    """A 95 % interval."""

    low: float = Field(description="Lower end.")
    high: float = Field(description="Upper end.")


class SimulatedMean(BaseModel):
    """A measure over all replications."""

    name: str = Field(description="What is measured, with its unit.")
    of: str = Field(description="Of what: a station, an item, an opportunity; empty: of the whole.")
    mean: float | None = Field(description="Mean over replications; null: never observed.")
    ci95: Interval95 | None = Field(description="95 % interval of the mean over replications, skewness taken out.")
    n: int = Field(description="Replications it rests on.")
    closed_form: float | None = Field(default=None, description="The long run's exact value, where there is a formula.")


class TracedEvent(BaseModel):
    """Something that happened in the first replication."""

    at_s: float | None = Field(description="When, seconds from the start of the warm-up; null: of an answer.")
    who: int = Field(description="Number of the customer or student.")
    where: str = Field(description="The station, item or opportunity.")
    what: str = Field(description="arrives, is served, leaves, is lost; right or wrong.")


class Output(EngineOutput):
    """Means with their uncertainty, and traces."""

    means: list[SimulatedMean] = Field(description="Every measure.")
    traces: list[TracedEvent] = Field(description="The first events of the first replication.")
    n_replications: int = Field(description="Independent runs.")
    reliable: bool = Field(description="Whether no warning is serious.")
    warnings: list[str] = Field(description="What to mind.")


class Simulation(Engine[Input, Output]):
    """Queues and students, played through with intervals."""

    name = "simulation"
    title = "Simulation of queues and of students"
    method = "discrete-events"
    example = Input(
        queue=QueueModel(
            stations=[
                QueueStation(
                    name="desk", service=RandomDuration(mean_s=60), interarrival=RandomDuration(mean_s=120), servers=1
                )
            ],
            duration_s=50_000,
            warmup_s=5_000,
        ),
        replications=10,
        trace=4,
    )
    timeout_s = 300.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Play through, run by run. Raises InvalidInput for too much, and where customers never leave."""
        if payload.queue is not None:
            return await _queue(payload.queue, payload, ctx)
        return await _students(payload, ctx)

    async def post_swap_test(self) -> None:
        """The example: an M/M/1 queue at half load, one customer in it on average."""
        await super().post_swap_test()
        means = (await self.run(self.example, self.probe)).means
        present = next(m for m in means if m.name == "present" and not m.of)
        if present.mean is None or abs(present.mean - 1.0) > 0.35:
            raise ModelUnavailable("the simulation of a half-loaded queue is far from its closed form")


async def _queue(model: QueueModel, payload: Input, ctx: EngineContext) -> Output:
    stations = [_station(s) for s in model.stations]
    load = _checked(stations, model, payload.replications)
    runs: list[dict[str, Measures]] = []
    traces: list[TracedEvent] = []
    for number in range(payload.replications):
        await ctx.progress("simulation", number / payload.replications)
        told, events = await asyncio.to_thread(
            queueing.run,
            stations,
            duration_s=model.duration_s,
            warmup_s=model.warmup_s,
            seed=_seed(payload, number),
            trace=payload.trace if number == 0 else 0,
        )
        runs.append(told)
        traces += [TracedEvent(at_s=round(e.at_s, 6), who=e.customer, where=e.station, what=e.what) for e in events]
    exact = queueing.closed_form(stations)
    means = [
        _mean(
            key,
            of,
            [getattr(run[of], key) for run in runs],
            getattr(exact[of], key) if exact else None,
            weights=[getattr(run[of], PER[key]) for run in runs] if key in PER else None,
        )
        for of in ("", *(s.name for s in stations))
        for key in MEASURES
    ]
    warnings = _queue_warnings(stations, load, runs, model)
    return Output(
        method="discrete-events+jackson" if exact else "discrete-events",
        means=means,
        traces=traces,
        n_replications=payload.replications,
        reliable=not warnings,
        warnings=warnings,
    )


def _station(given: QueueStation) -> Station:
    return Station(
        name=given.name,
        servers=given.servers,
        service=_duration(given.service),
        arrivals=_duration(given.interarrival) if given.interarrival is not None else None,
        route={r.to: sum(x.p for x in given.route if x.to == r.to) for r in given.route},
        places=given.places,
    )


def _duration(given: RandomDuration) -> Duration:
    return Duration(law=given.law, mean_s=given.mean_s, variation=given.variation)


def _checked(stations: Sequence[Station], model: QueueModel, replications: int) -> list[float]:
    """The stations' loads. Raises InvalidInput."""
    try:
        rates = queueing.arrival_rates(stations)
    except ValueError as error:
        raise InvalidInput(str(error), hint="let the routing's probabilities leave a way out") from error
    visits = float(rates.sum()) * (model.duration_s + model.warmup_s) * replications
    if visits > MAX_VISITS:
        raise InvalidInput(
            f"about {visits:,.0f} visits to simulate; at most {MAX_VISITS:,}",
            hint="shorten `duration_s` or ask for fewer `replications`",
        )
    return [float(x) for x in queueing.loads(stations)]


def _queue_warnings(
    stations: Sequence[Station], load: Sequence[float], runs: Sequence[dict[str, Measures]], model: QueueModel
) -> list[str]:
    warnings = []
    for station, share in zip(stations, load, strict=True):
        if share >= 1 and station.places is None:
            warnings.append(f"station {station.name!r} is overloaded ({share:.2f}): its line grows with `duration_s`")
        elif share > HIGH_LOAD and station.places is None:
            warnings.append(f"station {station.name!r} is loaded to {share:.3f}: runs settle only slowly")
    counted = float(np.mean([run[""].throughput_per_s for run in runs])) * model.duration_s
    if counted < MIN_CUSTOMERS:
        warnings.append(f"{counted:.0f} customers counted in a replication on average, needs {MIN_CUSTOMERS}")
    return warnings


async def _students(payload: Input, ctx: EngineContext) -> Output:
    model = payload.test or payload.practice
    assert model is not None
    length = len(payload.test.items) if payload.test is not None else payload.practice.opportunities  # type: ignore[union-attr]
    if model.students * length * payload.replications > MAX_ANSWERS:
        raise InvalidInput(
            f"{model.students * length * payload.replications:,} answers to simulate; at most {MAX_ANSWERS:,}",
            hint="ask for fewer students, items or `replications`",
        )
    runs: list[simulated_students.Told] = []
    traces: list[TracedEvent] = []
    for number in range(payload.replications):
        await ctx.progress("simulation", number / payload.replications)
        told, right = await asyncio.to_thread(_played, model, _seed(payload, number))
        runs.append(told)
        traces += _answers(right, payload.trace) if number == 0 else []
    keys = list(dict.fromkeys(key for run in runs for key in run))
    means = [_mean(name, of, [run.get((name, of), math.nan) for run in runs], None) for name, of in keys]
    warnings = _student_warnings(means, payload)
    return Output(
        method="simulated-irt" if payload.test is not None else "simulated-bkt",
        means=means,
        traces=traces,
        n_replications=payload.replications,
        reliable=not warnings,
        warnings=warnings,
    )


def _student_warnings(means: Sequence[SimulatedMean], payload: Input) -> list[str]:
    if payload.practice is not None:
        beyond = payload.practice.guess > bkt.MAX_GUESS or payload.practice.slip > bkt.MAX_SLIP
        bounds = f"guess is estimated up to {bkt.MAX_GUESS} and slip up to {bkt.MAX_SLIP}"
        return [f"{bounds}: the estimates cannot reach the given values"] if beyond else []
    found = next((m.mean for m in means if m.name == "difficulty_correlation"), None)
    if found is None:
        return ["too few items that some solve and some do not: difficulties cannot be estimated from such a test"]
    if found < 0.9:
        return [f"difficulties estimated from so many answers correlate only {found:.2f} with the true ones"]
    return []


def _played(model: ExamModel | PracticeModel, seed: int) -> tuple[simulated_students.Told, simulated_students.Booleans]:
    if isinstance(model, ExamModel):
        return simulated_students.played_exam(
            model.students,
            mean=model.ability_mean_logit,
            sd=model.ability_sd_logit,
            difficulty=np.array([i.difficulty_logit for i in model.items]),
            slope=np.array([i.discrimination for i in model.items]),
            seed=seed,
        )
    skill = bkt.Skill(known_at_first=model.known_at_first, learn=model.learn, guess=model.guess, slip=model.slip)
    return simulated_students.played_practice(model.students, model.opportunities, skill, seed=seed)


def _answers(right: simulated_students.Booleans, most: int) -> list[TracedEvent]:
    places = ((s, i) for s in range(right.shape[0]) for i in range(right.shape[1]))
    return [
        TracedEvent(at_s=None, who=s, where=str(i), what="right" if right[s, i] else "wrong")
        for (s, i), _ in zip(places, range(most), strict=False)
    ]


def _seed(payload: Input, number: int) -> int:
    """Of one replication; runs of neighbouring seeds do not overlap."""
    return int(np.random.SeedSequence([payload.seed, number]).generate_state(1)[0])


def _mean(
    name: str, of: str, values: Sequence[float], exact: float | None, *, weights: Sequence[float] | None = None
) -> SimulatedMean:
    """Over replications, which weigh the same unless there are `weights`."""
    given = np.array(values, float)
    usable = np.isfinite(given) if weights is None else np.isfinite(given) & (np.array(weights) > 0)
    seen, n = given[usable], int(usable.sum())
    if weights is not None and n:
        seen = linearised(seen, np.array(weights, float)[usable])
    ci95 = None
    if n >= 2:
        low, high = skewed_t_interval(seen)
        ci95 = Interval95(low=low, high=high)
    return SimulatedMean(name=name, of=of, mean=float(seen.mean()) if n else None, ci95=ci95, n=n, closed_form=exact)
