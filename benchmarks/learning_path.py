"""FSRS-6 of the learning path: parity with ts-fsrs, and log loss on simulated reviews.

    python -m benchmarks.learning_path --node-modules DIR

DIR is a folder in which `npm install ts-fsrs` was run; `node` must be on the path. *Parity*: 1000 random histories of 1
to 12 reviews, seed 6, some on the same day; how many agree to ALIKE in stability (as a share), difficulty and recall
after 30 days, and the largest difference of each and of the due time. *Log loss*: no free reviews come with a package,
so learners are simulated: each has FSRS-6 parameters of their own (the published ones times log-normal noise,
coefficient 0.3), reviews when due within a factor, and recalls with the chance their own parameters give. Scored with
the published parameters, as the engine does, on every review of a later day; peers of the same run: the true chances
(the floor), a half-life that doubles and halves (Leitner), the mean. The figure published for FSRS-6 on 350 million
real reviews is 0.3214 (open-spaced-repetition/srs-benchmark); simulated reviews are another data set, so the two do not
compare.
"""

import argparse
import json
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Figure, figure, save
from benchmarks.resampling import interval
from neuroedge.kit.spaced_repetition import RATINGS, Rating, recall

Doubles = NDArray[np.float64]
History = list[tuple[float, int]]
START = datetime(2026, 1, 1, 9, tzinfo=UTC)
PEER = Path(__file__).parent / "data" / "ts_fsrs.mjs"
LEARNERS = 30
CARDS = 15
REVIEWS = 9
ALIKE = 1e-6


def random_histories(n: int, *, seed: int) -> list[History]:
    """Reviews as days since the first and ratings 1 to 4."""
    rng = np.random.default_rng(seed)
    found: list[History] = []
    for _ in range(n):
        at, history = 0.0, []
        for _ in range(int(rng.integers(1, 13))):
            history.append((at, int(rng.choice([1, 2, 3, 4], p=[0.15, 0.15, 0.55, 0.15]))))
            at += float(rng.choice([0.01, 0.1, 1, 3, 8, 30, 120]))
        found.append(history)
    return found


def _reviews(history: History) -> list[tuple[datetime, Rating]]:
    return [(START + timedelta(days=days), RATINGS[grade - 1]) for days, grade in history]


def parity(node_modules: Path) -> list[Figure]:
    """Largest differences over random histories."""
    histories = random_histories(1000, seed=6)
    done = subprocess.run(
        ["node", str(PEER), str(node_modules.resolve())],
        input=json.dumps(histories),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    gaps: dict[str, list[float]] = {"stability": [], "difficulty": [], "recall after 30 days": [], "due time": []}
    for history, theirs in zip(histories, json.loads(done.stdout), strict=True):
        _compare(history, theirs, gaps)
    due = gaps.pop("due time")
    alike = sum(max(three) <= ALIKE for three in zip(*gaps.values(), strict=True))
    same = sum(gap <= 1 for gap in due) / len(due)
    note = f"n={len(due)}, largest {max(due) / 1440:.0f} day: ts-fsrs keeps hard, good and easy a day apart"
    return [
        figure(
            "parity with ts-fsrs: share of histories that agree",
            "",
            [alike / len(histories)],
            at_least=1,
            note=f"{alike} of {len(histories)} histories, each value to {ALIKE:g}",
        ),
        *(
            figure(
                f"parity with ts-fsrs: {name}, largest {'relative ' if name == 'stability' else ''}difference",
                "",
                [max(values)],
                at_most=1e-4,
                note=f"n={len(values)} histories",
            )
            for name, values in gaps.items()
        ),
        figure("parity with ts-fsrs: due at the same minute", "", [same], note=note),
    ]


def _compare(history: History, theirs: dict[str, float], gaps: dict[str, list[float]]) -> None:
    later = START + timedelta(days=history[-1][0] + 30)
    ours = recall(_reviews(history), now=later)
    assert ours is not None
    gaps["stability"].append(abs(ours.stability_days / theirs["stability"] - 1))
    gaps["difficulty"].append(abs(ours.difficulty - theirs["difficulty"]))
    gaps["due time"].append(abs((ours.due_at - START).total_seconds() - theirs["due_s"]) / 60)
    whole = (later.date() - (START + timedelta(days=history[-1][0])).date()).days == 30
    if whole:
        gaps["recall after 30 days"].append(abs(ours.retrievability - theirs["retrievability"]))


def log_loss() -> list[Figure]:
    """Predicting recall of simulated learners."""
    rng = np.random.default_rng(7)
    rows = [row for _ in range(LEARNERS) for row in _learner(rng)]
    people, outcome = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], bool)
    chances = {"fsrs": 2, "truth": 3, "leitner": 4}
    losses = {name: _loss(np.array([r[i] for r in rows]), outcome) for name, i in chances.items()}
    losses["mean"] = _loss(np.full(len(rows), outcome.mean()), outcome)
    own = [losses["fsrs"][people == i] for i in np.unique(people)]
    low, high = interval(len(own), lambda drawn: np.concatenate([own[i] for i in drawn]).mean())
    beside = ", ".join(f"{name} {losses[name].mean():.4f}" for name in ("truth", "leitner", "mean"))
    note = f"n={len(rows)} simulated reviews of {LEARNERS} learners, 95 % {low:.4f} to {high:.4f} by learner; {beside}"
    worst = float(losses["mean"].mean())
    return [
        figure(
            "log loss of recall, published parameters", "nats", [float(losses["fsrs"].mean())], at_most=worst, note=note
        )
    ]


def _learner(rng: np.random.Generator) -> list[tuple[int, bool, float, float, float]]:
    """(learner, recalled, FSRS's chance, true chance, Leitner's chance) of each review after the first."""
    from fsrs import Card, Scheduler
    from fsrs import Rating as Grade
    from fsrs.scheduler import DEFAULT_PARAMETERS, LOWER_BOUNDS_PARAMETERS, UPPER_BOUNDS_PARAMETERS

    own = np.array(DEFAULT_PARAMETERS) * np.exp(0.3 * rng.standard_normal(21))
    own = np.clip(own, LOWER_BOUNDS_PARAMETERS, UPPER_BOUNDS_PARAMETERS)
    truth = Scheduler(own.tolist(), enable_fuzzing=False)
    person = int(rng.integers(2**62))
    rows: list[tuple[int, bool, float, float, float]] = []
    for card_id in range(CARDS):
        card, at, half_life = Card(card_id=card_id), START, 4.0
        history: list[tuple[datetime, Rating]] = []
        for n in range(REVIEWS):
            p = truth.get_card_retrievability(card, at) if n else 0.6
            recalled = bool(rng.random() < p)
            if n:
                ours = recall(history, now=at)
                assert ours is not None
                days = (at - history[-1][0]).days
                rows.append((person, recalled, ours.retrievability, float(p), 2 ** (-days / half_life)))
                half_life = half_life * 2 if recalled else max(1.0, half_life / 2)
            rating: Rating = str(rng.choice(["hard", "good", "easy"], p=[0.2, 0.65, 0.15])) if recalled else "again"  # type: ignore[assignment]
            card, _ = truth.review_card(card, Grade(RATINGS.index(rating) + 1), at)
            history.append((at, rating))
            wait = max(1.0, (card.stability or 1.0) * float(np.exp(0.5 * rng.standard_normal())))
            at += timedelta(days=min(round(wait), 365))
    return rows


def _loss(p: Doubles, outcome: Sequence[bool] | NDArray[Any]) -> Doubles:
    kept = np.clip(p, 1e-4, 1 - 1e-4)
    return np.asarray(-np.where(outcome, np.log(kept), np.log(1 - kept)), np.float64)


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node-modules", type=Path, required=True, help="folder with ts-fsrs installed")
    given = parser.parse_args()
    figures = [*parity(given.node_modules), *log_loss()]
    command = "python -m benchmarks.learning_path --node-modules DIR"
    save("learning_path", figures, title="Spaced repetition of the learning path", command=command)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
