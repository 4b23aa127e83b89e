"""How good a model is on rows it never saw: how the rows are split, figures with bootstrap intervals."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit import calibration

Score = Callable[[NDArray[Any], NDArray[Any]], float]
SAMPLES: Final = 300
_VALIDATION: Final = 0.15
"""Of what is not held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A figure with its 95 % interval over samples of the held-out rows."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure by name with its 95 % interval, beside a baseline's."""

    name: str
    value: float
    low: float
    high: float
    baseline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How good a model is on the rows held out; `better_*`: 95 % interval of the gain by the first figure."""

    rows: int
    baseline: str
    figures: list[Figure]
    better_low: float
    better_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Row numbers: to train on, to know when to stop, and to measure on once."""

    train: NDArray[Any]
    validation: NDArray[Any]
    test: NDArray[Any]


def split(rows: int, *, share: float, seed: int, classes: NDArray[Any] | None, groups: NDArray[Any] | None) -> Split:
    """Random rows; with as much of each class in every part, or with no group in two parts.

    Raises ValueError where there are too few rows of a class, or too few groups.
    """
    train, test = _parted(np.arange(rows), share, seed, classes, groups)
    train, validation = _parted(train, _VALIDATION, seed + 1, classes, groups)
    return Split(train=train, validation=validation, test=test)


def _parted(
    rows: NDArray[Any], share: float, seed: int, classes: NDArray[Any] | None, groups: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    from sklearn.model_selection import GroupShuffleSplit, train_test_split

    if groups is not None:
        parts = GroupShuffleSplit(1, test_size=share, random_state=seed).split(rows, groups=groups[rows])
        first, second = next(iter(parts))
        return rows[first], rows[second]
    kept, held = train_test_split(
        rows, test_size=share, random_state=seed, stratify=None if classes is None else classes[rows]
    )
    return kept, held


def measured(score: Callable[[NDArray[Any]], float], rows: int, *, seed: int) -> Measured:
    """`score` of all rows (their numbers), and of samples with replacement."""
    rng = np.random.default_rng(seed)
    values = [score(rng.integers(0, rows, rows)) for _ in range(SAMPLES)]
    low, high = np.percentile(values, [2.5, 97.5])
    return Measured(value=score(np.arange(rows)), low=float(low), high=float(high))


def beside(
    truth: NDArray[Any], said: NDArray[Any], base: NDArray[Any], *, scale: tuple[float, float] | None, seed: int
) -> Held:
    """Figures of a model's answers with their intervals, beside a baseline's on the same samples of rows.

    Without a `scale` the answers are probabilities [n, classes]; with one they are values in units of its standard
    deviation from its mean.
    """
    scores: dict[str, Score] = {"log_loss": log_loss, "accuracy": accuracy, "macro_f1": macro_f1}
    if scale is not None:
        truth, said, base = (values * scale[1] + scale[0] for values in (truth, said, base))
        scores = {"mae": mae, "r2": r2}

    def figure(name: str, score: Score) -> Figure:
        found = measured(lambda i: score(truth[i], said[i]), len(truth), seed=seed)
        return Figure(name=name, value=found.value, low=found.low, high=found.high, baseline=score(truth, base))

    # The first figure of both is a loss: less is better.
    first = next(iter(scores.values()))
    gain = measured(lambda i: first(truth[i], base[i]) - first(truth[i], said[i]), len(truth), seed=seed)
    return Held(
        rows=len(truth),
        baseline="mean" if scale is not None else "logistic regression",
        figures=[figure(name, score) for name, score in scores.items()],
        better_low=gain.low,
        better_high=gain.high,
    )


def log_loss(truth: NDArray[Any], p: NDArray[Any]) -> float:
    """Mean negative logarithm of the true class's probability, in nats."""
    return calibration.log_loss(np.clip(p, 1e-7, 1), truth)


def accuracy(truth: NDArray[Any], p: NDArray[Any]) -> float:
    """Share of rows whose likeliest class is the true one."""
    return float((p.argmax(axis=1) == truth).mean())


def macro_f1(truth: NDArray[Any], p: NDArray[Any]) -> float:
    """Mean over the true classes of the harmonic mean of precision and recall."""
    # scikit-learn's f1_score gives the same and takes 3 ms a call, of which an interval makes hundreds.
    said, values = p.argmax(axis=1), []
    for label in np.unique(truth):
        hits = int(((said == label) & (truth == label)).sum())
        values.append(2 * hits / max(1, int((said == label).sum()) + int((truth == label).sum())))
    return float(np.mean(values))


def r2(truth: NDArray[Any], said: NDArray[Any]) -> float:
    """Share of the variance explained; below 0 is worse than the mean of these rows."""
    from sklearn.metrics import r2_score

    return float(r2_score(truth, said))


def mae(truth: NDArray[Any], said: NDArray[Any]) -> float:
    """Mean absolute error, in the target's unit."""
    return float(np.abs(truth - said).mean())
