"""Networks of queues: simulated event by event, and in closed form where there is one.

Simulated with simpy: customers arrive, wait for one of a station's servers in the order of arrival, are served, and go
on by the routing's probabilities until they leave. A run begins empty and its warm-up is not counted. Means over
customers are of all who arrive in the counted time: the run goes on until they have left, though not for more than as
long again, because who is still there at its end are those who stay longest. Closed form: open networks of exponential
stations, each of which behaves like an M/M/c queue on its own (J. R. Jackson 1957, Operations Research 5), with A. K.
Erlang's 1917 formula for the chance to wait.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Law = Literal["exponential", "constant", "uniform", "gamma", "lognormal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """A random duration of this mean (seconds) and coefficient of variation (used by gamma, lognormal, uniform)."""

    law: Law
    mean_s: float
    variation: float = 1.0

    def sampler(self, rng: np.random.Generator) -> Callable[[], float]:
        """Draws one after the other, in blocks."""
        draws: list[float] = []

        def draw() -> float:
            if not draws:
                draws.extend(self._block(rng, 256).tolist())
            return draws.pop()

        return draw

    def _block(self, rng: np.random.Generator, n: int) -> Numbers:
        mean, squared = self.mean_s, self.variation**2
        if self.law == "exponential":
            return rng.exponential(mean, n)
        if self.law == "gamma":
            return rng.gamma(1 / squared, mean * squared, n)
        if self.law == "lognormal":
            return rng.lognormal(math.log(mean) - math.log1p(squared) / 2, math.sqrt(math.log1p(squared)), n)
        half = mean * self.variation * math.sqrt(3) if self.law == "uniform" else 0.0
        return rng.uniform(mean - half, mean + half, n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """Servers with one line before them; `route` gives the probability of each next station, the rest leaves."""

    name: str
    servers: int
    service: Duration
    arrivals: Duration | None
    """Time between arrivals from outside; None: nobody comes from outside."""
    route: Mapping[str, float]
    places: int | None = None
    """Customers that fit in, those in service included; who finds no place is lost. None: any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Of a station, or of the whole network (name ""), in one run or in the long run; seconds and counts."""

    wait_s: float
    sojourn_s: float
    waiting: float
    present: float
    utilisation: float
    throughput_per_s: float
    lost: float
    customers: int = 0
    arrived: int = 0


PER: Final = {"wait_s": "customers", "sojourn_s": "customers", "lost": "arrived"}
"""Measures that are means over customers, and what counts these: runs are to be weighed by it."""


def arrival_rates(stations: Sequence[Station]) -> Numbers:
    """Customers per second at each station in the long run, all admitted. Raises ValueError where some never leave."""
    place = {s.name: i for i, s in enumerate(stations)}
    outside = np.array([0.0 if s.arrivals is None else 1 / s.arrivals.mean_s for s in stations])
    route = np.zeros((len(stations), len(stations)))
    for i, station in enumerate(stations):
        for name, p in station.route.items():
            route[i, place[name]] += p
    # Spectral radius 1 means a closed part, which fills for ever.
    if np.abs(np.linalg.eigvals(route)).max() >= 1 - 1e-9:
        raise ValueError("customers who enter some stations never leave")
    rates: Numbers = np.linalg.solve(np.eye(len(stations)) - route.T, outside)
    return np.maximum(rates, 0.0)


def loads(stations: Sequence[Station]) -> Numbers:
    """Share of each station's servers that is needed; from 1 on the line grows for ever."""
    needed = np.array([s.service.mean_s / s.servers for s in stations])
    shares: Numbers = arrival_rates(stations) * needed
    return shares


def closed_form(stations: Sequence[Station]) -> dict[str, Measures] | None:
    """The long run's measures by station, "" for the network; None where there is no closed form, or no long run."""
    simple = all(
        s.service.law == "exponential" and s.places is None and (s.arrivals is None or s.arrivals.law == "exponential")
        for s in stations
    )
    if not simple or loads(stations).max() >= 1:
        return None
    rates = arrival_rates(stations)
    told = {s.name: _mmc(float(rate), s) for rate, s in zip(rates, stations, strict=True)}
    entering = sum(1 / s.arrivals.mean_s for s in stations if s.arrivals is not None)
    servers = sum(s.servers for s in stations)
    total = {key: sum(getattr(m, key) for m in told.values()) for key in ("waiting", "present")}
    told[""] = Measures(
        wait_s=total["waiting"] / entering,
        sojourn_s=total["present"] / entering,
        waiting=total["waiting"],
        present=total["present"],
        utilisation=(total["present"] - total["waiting"]) / servers,
        throughput_per_s=entering,
        lost=0.0,
    )
    return told


def _mmc(rate: float, station: Station) -> Measures:
    """M/M/c; Erlang's C by the stable recursion of Erlang's B."""
    c, offered = station.servers, rate * station.service.mean_s
    blocked = 1.0
    for k in range(1, c + 1):
        blocked = offered * blocked / (k + offered * blocked)
    load = offered / c
    waits = blocked / (1 - load * (1 - blocked))
    wait = waits * station.service.mean_s / (c * (1 - load))
    return Measures(
        wait_s=wait,
        sojourn_s=wait + station.service.mean_s,
        waiting=rate * wait,
        present=rate * wait + offered,
        utilisation=load,
        throughput_per_s=rate,
        lost=0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEvent:
    """Something that happened to a customer; seconds from the run's start."""

    at_s: float
    customer: int
    station: str
    what: Literal["arrives", "is served", "leaves", "is lost"]


@dataclass(slots=True)
class _Tally:
    """Sums over the counted time of one station."""

    waits: list[float] = field(default_factory=list)
    stays: list[float] = field(default_factory=list)
    waiting_area: float = 0.0
    busy_area: float = 0.0
    lost: int = 0
    present: int = 0
    left: int = 0


def run(
    stations: Sequence[Station], *, duration_s: float, warmup_s: float, seed: int, trace: int = 0
) -> tuple[dict[str, Measures], list[QueueEvent]]:
    """One run: measures by station and, as "", of the network; the first `trace` events."""
    return _Run(stations, duration_s, warmup_s, np.random.default_rng(seed), trace).measures()


class _Run:
    def __init__(
        self, stations: Sequence[Station], duration_s: float, warmup_s: float, rng: np.random.Generator, trace: int
    ) -> None:
        import simpy

        self.env: Any = simpy.Environment()
        self.end, self.warm, self.trace = warmup_s + duration_s, warmup_s, trace
        self.stations = {s.name: s for s in stations}
        self.servers: dict[str, Any] = {s.name: simpy.Resource(self.env, capacity=s.servers) for s in stations}
        self.service = {s.name: s.service.sampler(rng) for s in stations}
        self.luck = rng
        self.tally = {name: _Tally() for name in self.stations}
        self.stays: list[float] = []
        self.waits: list[float] = []
        self.left = 0
        self.open = 0
        """Counted customers, and counted visits to stations, that have not ended."""
        self.events: list[QueueEvent] = []
        self.customers = 0
        for station in stations:
            if station.arrivals is not None:
                self.env.process(self._arrivals(station.name, station.arrivals.sampler(rng)))

    def measures(self) -> tuple[dict[str, Measures], list[QueueEvent]]:
        self.env.run(until=self.end)
        while self.open and self.env.peek() < 2 * self.end:
            self.env.step()
        self._settle_open()
        span = self.end - self.warm
        told = {name: _measures(t, span, self.stations[name].servers) for name, t in self.tally.items()}
        whole = _Tally(
            waits=self.waits,
            stays=self.stays,
            waiting_area=sum(t.waiting_area for t in self.tally.values()),
            busy_area=sum(t.busy_area for t in self.tally.values()),
            lost=sum(t.lost for t in self.tally.values()),
            left=self.left,
        )
        told[""] = _measures(whole, span, sum(s.servers for s in self.stations.values()))
        return told, self.events

    def _arrivals(self, name: str, gap: Callable[[], float]) -> Generator[Any, Any, None]:
        while True:
            yield self.env.timeout(gap())
            self.customers += 1
            self.env.process(self._customer(self.customers, name))

    def _customer(self, number: int, name: str) -> Generator[Any, Any, None]:
        entered, waited = self.env.now, 0.0
        counted = self._in_time(entered)
        self.open += counted
        current: str | None = name
        while current is not None:
            before = self.env.now
            station, tally = self.stations[current], self.tally[current]
            if station.places is not None and tally.present >= station.places:
                self._note(number, current, "is lost")
                tally.lost += self._in_time(before)
                self.open -= counted
                return
            tally.present += 1
            self._note(number, current, "arrives")
            waited += yield from self._served(number, current, before)
            tally.present -= 1
            current = self._next(station)
        self.open -= counted
        self.left += self._in_time(self.env.now)
        if counted:
            self.stays.append(self.env.now - entered)
            self.waits.append(waited)

    def _served(self, number: int, name: str, before: float) -> Generator[Any, Any, float]:
        tally, counted = self.tally[name], self._in_time(before)
        self.open += counted
        claim = self.servers[name].request()
        claim.since = before
        yield claim
        began = claim.began = self.env.now
        self._note(number, name, "is served")
        yield self.env.timeout(self.service[name]())
        self.servers[name].release(claim)
        now = self.env.now
        self._note(number, name, "leaves")
        tally.waiting_area += self._counted(before, began)
        tally.busy_area += self._counted(began, now)
        tally.left += self._in_time(now)
        self.open -= counted
        if counted:
            tally.waits.append(began - before)
            tally.stays.append(now - before)
        return float(began - before)

    def _settle_open(self) -> None:
        """Those still there at the end count for the time they have been there."""
        for name, resource in self.servers.items():
            for claim in resource.queue:
                self.tally[name].waiting_area += self._counted(claim.since, self.end)
            for claim in resource.users:
                began = getattr(claim, "began", self.end)
                self.tally[name].waiting_area += self._counted(claim.since, began)
                self.tally[name].busy_area += self._counted(began, self.end)

    def _in_time(self, at_s: float) -> bool:
        return self.warm <= at_s < self.end

    def _counted(self, since: float, until: float) -> float:
        return max(0.0, min(until, self.end) - max(since, self.warm))

    def _next(self, station: Station) -> str | None:
        if not station.route:
            return None
        left = float(self.luck.random())
        for name, p in station.route.items():
            left -= p
            if left < 0:
                return name
        return None

    def _note(self, customer: int, station: str, what: Literal["arrives", "is served", "leaves", "is lost"]) -> None:
        if len(self.events) < self.trace and self.env.now < self.end:
            self.events.append(QueueEvent(at_s=float(self.env.now), customer=customer, station=station, what=what))


def _measures(tally: _Tally, span_s: float, servers: int) -> Measures:
    return Measures(
        wait_s=float(np.mean(tally.waits)) if tally.waits else math.nan,
        sojourn_s=float(np.mean(tally.stays)) if tally.stays else math.nan,
        waiting=tally.waiting_area / span_s,
        present=(tally.waiting_area + tally.busy_area) / span_s,
        utilisation=tally.busy_area / (span_s * servers),
        throughput_per_s=tally.left / span_s,
        lost=tally.lost / max(tally.lost + len(tally.stays), 1),
        customers=len(tally.stays),
        arrived=tally.lost + len(tally.stays),
    )
