"""Confidence intervals of means."""

import numpy as np
from numpy.typing import NDArray


def t_interval(values: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """Of the mean of independent values by Student's t; without end on both sides for fewer than two."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return float("-inf"), float("inf")
    half = float(t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return float(values.mean()) - half, float(values.mean()) + half


def linearised(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values whose plain mean is the weighted mean, and whose spread is its own to first order (Cochran 1977, 6.3).

    For means per unit over runs that hold different numbers of units: the plain mean of the runs' means is too low
    where runs with more units have higher means.
    """
    value = float((weights * values).sum() / weights.sum())
    return np.asarray(value + weights * (values - value) / weights.mean(), float)
