"""How good a model is on rows it never saw: how the rows are split, figures with bootstrap intervals."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

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


def accuracy(truth: NDArray[Any], p: NDArray[Any]) -> float:
    """Share of rows whose likeliest class is the true one."""
    return float((p.argmax(axis=1) == truth).mean())


def log_loss(truth: NDArray[Any], p: NDArray[Any]) -> float:
    """Mean negative logarithm of the true class's probability, in nats."""
    return float(-np.log(np.clip(p[np.arange(len(truth)), truth], 1e-7, 1)).mean())


def macro_f1(truth: NDArray[Any], p: NDArray[Any]) -> float:
    """Mean over the true classes of the harmonic mean of precision and recall."""
    said, values = p.argmax(axis=1), []
    for label in np.unique(truth):
        hits = int(((said == label) & (truth == label)).sum())
        values.append(2 * hits / max(1, int((said == label).sum()) + int((truth == label).sum())))
    return float(np.mean(values))


def r2(truth: NDArray[Any], said: NDArray[Any]) -> float:
    """Share of the variance explained; below 0 is worse than the mean of these rows."""
    spread = float(((truth - truth.mean()) ** 2).sum())
    return 1 - float(((truth - said) ** 2).sum()) / spread if spread else 0.0


def mae(truth: NDArray[Any], said: NDArray[Any]) -> float:
    """Mean absolute error, in the target's unit."""
    return float(np.abs(truth - said).mean())
