"""Confidence intervals of means."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_SYMMETRIC: Final = 1e-6


def t_interval(values: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """Of the mean of independent values by Student's t; without end on both sides for fewer than two."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return float("-inf"), float("inf")
    half = float(t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return float(values.mean()) - half, float(values.mean()) + half


def skewed_t_interval(values: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """As `t_interval`, with the values' skewness taken out by a cubic transformation (P. Hall 1992, JRSS B 54).

    Means of few skewed values, as queues give them, lie outside Student's interval too often, and nearly always on the
    same side. Of symmetric values the two hardly differ.
    """
    n = len(values)
    low, high = t_interval(values, level=level)
    off = values - values.mean()
    if n < 3 or not off.any():
        return low, high
    root, deviation = np.sqrt(n), float(values.std(ddof=1))
    skewness = float((off**3).sum() * n / ((n - 1) * (n - 2))) / deviation**3
    if abs(skewness) < _SYMMETRIC:
        return low, high

    def straight(t: float) -> float:
        return float(3 * root / skewness * (np.cbrt(1 + skewness / root * (t - skewness / (6 * root))) - 1))

    error, reach = deviation / root, (high - low) / 2 / (deviation / root)
    return float(values.mean()) - error * straight(reach), float(values.mean()) - error * straight(-reach)


def linearised(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values whose plain mean is the weighted mean, and whose spread is its own to first order (Cochran 1977, 6.3).

    For means per unit over runs that hold different numbers of units: the plain mean of the runs' means is too low
    where runs with more units have higher means.
    """
    value = float((weights * values).sum() / weights.sum())
    return np.asarray(value + weights * (values - value) / weights.mean(), float)
