"""Simulation: closed forms inside the intervals, and parameters found again.

    python -m benchmarks.simulation

Queues: M/M/1 at loads 0.5 and 0.8, M/M/3 at 0.8, and a network of three stations with a way back; share of the 95 %
intervals of the mean time in the system that hold the closed form (Jackson 1957), 80 experiments each of ten
replications, with the 95 % interval of that share (Wilson 1927). A replication lasts 200 times the mean time in the
system after a warm-up of 50 times. Students: 500 answer 20 Rasch items (and 2,000 answer 20 items of the two-parameter
model); correlation of the estimated difficulties with the true ones, and the share of true difficulties within their
own 95 % intervals; ten replications. The form of the interval was chosen on other runs of M/M/1 (loads 0.5 and 0.8,
drawn by Lindley's recursion), after Student's had held the closed form in 0.89 of the experiments at load 0.8.
"""

import argparse

import numpy as np
from scipy.stats import binomtest

from benchmarks.report import Figure, figure, save
from neuroedge.kit import queueing, simulated_students
from neuroedge.kit.intervals import linearised, skewed_t_interval
from neuroedge.kit.queueing import Duration, Measures, Station

LONG = 200
WARM = 50
"""Mean times in the system."""


def main() -> int:
    """Score and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=80)
    given = parser.parse_args()
    save(
        "simulation",
        [*queues(given.experiments), *students()],
        title="Simulation: closed forms and recovered parameters",
        command="python -m benchmarks.simulation",
    )
    return 0


def exponential(mean_s: float) -> Duration:
    """Of this mean."""
    return Duration(law="exponential", mean_s=mean_s)


def networks() -> dict[str, list[Station]]:
    """By name; service of one second."""
    desk = {"service": exponential(1), "route": {}}
    return {
        "M/M/1, load 0.5": [Station(name="desk", servers=1, arrivals=exponential(2), **desk)],  # type: ignore[arg-type]
        "M/M/1, load 0.8": [Station(name="desk", servers=1, arrivals=exponential(1.25), **desk)],  # type: ignore[arg-type]
        "M/M/3, load 0.8": [Station(name="desk", servers=3, arrivals=exponential(1 / 2.4), **desk)],  # type: ignore[arg-type]
        "three stations with a way back": [
            Station(name="in", servers=1, service=exponential(1), arrivals=exponential(2), route={"a": 0.6, "b": 0.4}),
            Station(name="a", servers=2, service=exponential(3), arrivals=None, route={"in": 0.2}),
            Station(name="b", servers=1, service=exponential(2), arrivals=None, route={}),
        ],
    }


def queues(experiments: int, *, replications: int = 10) -> list[Figure]:
    """Coverage, and the mean's deviation."""
    figures = []
    for name, stations in networks().items():
        exact = queueing.closed_form(stations)
        assert exact is not None
        truth = exact[""].sojourn_s
        held, off = 0, []
        for experiment in range(experiments):
            runs = [_run(stations, truth, seed=1000 * experiment + k) for k in range(replications)]
            customers = np.array([run.customers for run in runs], float)
            means = linearised(np.array([run.sojourn_s for run in runs]), customers)
            low, high = skewed_t_interval(means)
            held += low <= truth <= high
            off.append(float(means.mean() / truth - 1))
        share = binomtest(held, experiments).proportion_ci(method="wilson")
        amount = f"{experiments} experiments of {replications} replications of {LONG * truth:.0f} s"
        note = f"closed form {truth:.3f} s; {amount}"
        figures += [
            figure(
                f"{name}: 95 % intervals that hold the closed form",
                "",
                [float(share.low), held / experiments, float(share.high)],
                at_least=0.9,
                note=note,
            ),
            figure(f"{name}: mean deviation from the closed form", "", [float(np.mean(off))]),
        ]
        print(name, held / experiments, float(np.mean(off)), flush=True)
    return figures


def _run(stations: list[Station], truth: float, *, seed: int) -> Measures:
    told, _ = queueing.run(stations, duration_s=LONG * truth, warmup_s=WARM * truth, seed=seed)
    return told[""]


def students(*, replications: int = 10) -> list[Figure]:
    """Recovery of difficulties and slopes."""
    figures = []
    for name, count, two in (
        ("Rasch, 500 students, 20 items", 500, False),
        ("2PL, 2,000 students, 20 items", 2000, True),
    ):
        found = []
        for seed in range(replications):
            rng = np.random.default_rng(seed)
            difficulty = rng.normal(0, 1, 20)
            slope = rng.lognormal(0, 0.3, 20) if two else np.ones(20)
            ability = simulated_students.abilities(count, mean=0, sd=1, rng=rng)
            solved = simulated_students.answers(ability, difficulty, slope, rng=rng)
            told = simulated_students.recovered(solved, difficulty, slope, shift=0.0)
            assert told is not None
            found.append(told)
        figures += [
            figure(f"{name}: correlation of difficulties", "", [f.correlation for f in found], at_least=0.9),
            figure(f"{name}: RMSE of difficulties", "logits", [f.rmse for f in found]),
            figure(
                f"{name}: difficulties within their 95 % interval", "", [float(np.mean([f.covered for f in found]))]
            ),
        ]
        if two:
            slopes = [f.slope_correlation for f in found if f.slope_correlation is not None]
            figures.append(figure(f"{name}: correlation of discriminations", "", slopes))
    return figures


if __name__ == "__main__":
    raise SystemExit(main())
