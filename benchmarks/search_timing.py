"""Searches timed from several callers at once, with the processor time they cost this process and PostgreSQL's."""

import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import psutil

from benchmarks.calling import percentile, users
from benchmarks.report import Figure, figure

MOST: Final = 8
"""Callers at once that targets are set for."""
FEWER: Final = (1, 2, 4)
Search = Callable[[int], Awaitable[Any]]
"""A search for the question of this number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one round of searches took."""

    p50_ms: float
    p95_ms: float
    own_ms: float
    """Processor time of a search in this process."""
    postgres_ms: float
    """The same in PostgreSQL's processes."""


async def timed(
    ways: Mapping[str, Search], server: psutil.Process, *, rounds: int, callers: int, searches: int
) -> dict[str, list[Taken]]:
    """Of each way, its rounds; the ways take turns."""
    taken: dict[str, list[Taken]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, search in ways.items():
            latencies = list[float]()
            numbers = itertools.count()

            async def one(_: int, search: Search = search, numbers: Any = numbers, out: Any = latencies) -> None:
                while (i := next(numbers)) < searches:
                    started = time.perf_counter()
                    await search(i)
                    out.append(1e3 * (time.perf_counter() - started))

            own, postgres = time.process_time(), processor_s(server)
            await users(callers, one)
            each = 1e3 / len(latencies)
            if turn:  # the first is for warming up
                taken[name].append(
                    Taken(
                        p50_ms=percentile(latencies, 0.5),
                        p95_ms=percentile(latencies, 0.95),
                        own_ms=each * (time.process_time() - own),
                        postgres_ms=each * (processor_s(server) - postgres),
                    )
                )
    return taken


def processor_s(server: psutil.Process, *others: psutil.Process) -> float:
    """Processor time of all processes of a PostgreSQL server, and of others."""
    times = [process.cpu_times() for process in (*server.children(), *others)]
    return sum(each.user + each.system for each in times)


def p95(taken: Mapping[str, Sequence[Taken]], callers: int, at_most_ms: Mapping[str, float]) -> list[Figure]:
    """p95 of each way."""
    return [
        figure(
            f"{name}{'' if callers == MOST else f', {named(callers)}'}: p95",
            "ms",
            [each.p95_ms for each in rounds],
            at_most=at_most_ms.get(name),
            note=f"callers: {callers}; p50 {np.median([each.p50_ms for each in rounds]):.1f} ms",
        )
        for name, rounds in taken.items()
    ]


def named(count: int) -> str:
    """So many callers, in words."""
    return {1: "one caller", 2: "two callers", 4: "four callers"}[count]


def met(name: str, p95_ms: Mapping[int, Sequence[float]], at_most_ms: float) -> Figure:
    """How many callers at once still get their answers in time, when fewer do too."""
    counts = sorted(p95_ms)
    in_time = list(itertools.takewhile(lambda n: float(np.median(p95_ms[n])) <= at_most_ms, counts))
    return figure(
        f"{name}: callers at once with p95 ≤ {at_most_ms:g} ms",
        "",
        [max(in_time, default=0)],
        at_least=MOST,
        note=f"of {', '.join(map(str, counts))}",
    )


def processor(taken: Mapping[str, Sequence[Taken]]) -> list[Figure]:
    """Processor time of a search, which bounds how many this machine can answer."""
    figures = []
    for name, rounds in taken.items():
        own, postgres = (
            float(np.median(values)) for values in ([t.own_ms for t in rounds], [t.postgres_ms for t in rounds])
        )
        parts = f"this process {own:.1f}, PostgreSQL {postgres:.1f}; "
        figures.append(cost(name, [each.own_ms + each.postgres_ms for each in rounds], parts=parts))
    return figures


def cost(name: str, each_ms: Sequence[float], *, parts: str = "") -> Figure:
    """Processor time of a search, and what waiting for it follows from it."""
    cores = len(psutil.Process().cpu_affinity() or [0])
    waits_ms = MOST * float(np.median(each_ms)) / cores
    note = f"{parts}{MOST} callers on {cores} cores wait at least {waits_ms:.0f} ms"
    return figure(f"{name}: processor time", "ms", list(each_ms), note=note)
