"""Every engine answers its own example over HTTP, one after the other, in a budget of 6 GB: latency and memory.

    python -m benchmarks.engines [--calls 5] [--budget-gib 6]

The first call of each engine loads what it needs, and the pool evicts as the budget asks; it counts as "first". The
median is of the calls after it; a call whose answer another call may have left in the cache counts as any other.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from benchmarks import report
from benchmarks.serving import Served, serve

GROUP: Final = "engines"
_ANSWER_S: Final = 180.0
_MANY_S: Final = 5.0
"""An engine whose call takes longer is called once more only: the figure is of the order, not of the noise."""


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5, help="calls of each engine after its first")
    parser.add_argument("--budget-gib", type=float, default=6.0, help="memory budget of the server")
    asked = parser.parse_args()
    budget = str(int(asked.budget_gib * 2**30))
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(Path(folder) / "data", NEUROEDGE_MEMORY_BUDGET_BYTES=budget) as served,
        served.log_in() as client,
    ):
        figures = measured(served, client, calls=asked.calls, budget_gib=asked.budget_gib)
    report.save(
        GROUP,
        figures,
        title=f"Every engine answers its example, budget {asked.budget_gib:g} GiB",
        command=f"python -m benchmarks.engines --calls {asked.calls} --budget-gib {asked.budget_gib:g}",
    )


def measured(served: Served, client: httpx.Client, *, calls: int, budget_gib: float) -> list[report.Figure]:
    """A figure for each engine, then the sum of them."""
    names = [engine["name"] for engine in client.get("/v1/engines").raise_for_status().json()["engines"]]
    figures, answered, most = [], 0, 0.0
    began = time.perf_counter()
    for name in names:
        example = client.get(f"/v1/engines/{name}").raise_for_status().json()["example"]
        first_s, problem = _call(client, name, example)
        if problem:
            print(f"{name}: {problem}")
            continue
        answered += 1
        after = [_call(client, name, example)[0] for _ in range(calls if first_s < _MANY_S else 1)]
        most = max(most, _resident_gib(served))
        note = f"first call {first_s * 1000:.0f} ms"
        figures.append(report.figure(f"{name}: a call", "ms", [seconds * 1000 for seconds in after], note=note))
    whole_s = time.perf_counter() - began
    total = len(names)
    return [
        report.figure("engines that answered their example", f"of {total}", [answered], at_least=total),
        report.figure("resident memory, server with its children, most", "GiB", [most], at_most=budget_gib),
        report.figure("all examples, first and later calls", "s", [whole_s], at_most=360),
        *figures,
    ]


def _call(client: httpx.Client, name: str, example: dict[str, Any]) -> tuple[float, str | None]:
    """Seconds of a call, and what went wrong with it."""
    began = time.perf_counter()
    answer = client.post(f"/v1/engines/{name}/run", json=example, timeout=_ANSWER_S)
    wrong = None if answer.status_code == httpx.codes.OK else f"{answer.status_code} {answer.text[:300]}"
    return time.perf_counter() - began, wrong


def _resident_gib(served: Served) -> float:
    """Resident memory of the server and all its children; pages that children share count once for each."""
    process = psutil.Process(served.process.pid)
    resident = [process.memory_info().rss]
    for child in process.children(recursive=True):
        try:
            resident.append(child.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return sum(resident) / 2**30


if __name__ == "__main__":
    main()
