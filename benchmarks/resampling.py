"""Intervals by bootstrap (B. Efron 1979, Annals of Statistics 7), percentile method."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def interval(count: int, measure: Callable[[NDArray[np.int64]], Any], *, samples: int = 2000) -> tuple[float, float]:
    """95 % bounds of what `measure` gives of `count` units drawn again with repetition, as indices [count]; seed 0.

    Units are what does not depend on each other: people rather than their answers, texts rather than their sentences.
    """
    draws = np.random.default_rng(0).integers(0, count, (samples, count))
    low, high = np.percentile([measure(rows) for rows in draws], [2.5, 97.5])
    return float(low), float(high)
