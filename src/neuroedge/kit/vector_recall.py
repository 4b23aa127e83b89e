"""How much of what an exact search finds an approximate one finds, too."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TIE: Final = 1e-3
"""Cosines this near count as equal: half precision, in which vectors are kept, rounds that far."""
_ROWS_AT_ONCE: Final = 64


def exact_cosines(vectors: Floats, queries: Floats, *, k: int) -> Floats:
    """The `k` highest cosines of each query [q, k], descending; both sets are L2-normalised."""
    best = np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), _ROWS_AT_ONCE):
        cosines = queries[start : start + _ROWS_AT_ONCE] @ vectors.T
        best[start : start + len(cosines)] = -np.sort(-np.partition(cosines, -k, axis=1)[:, -k:], axis=1)
    return best


def recalls(vectors: Floats, queries: Floats, found: Sequence[Sequence[int]], *, k: int) -> NDArray[np.float64]:
    """recall@k of each query: the part of the `k` nearest it was given.

    A row as near as the k-th nearest counts as one of them, whichever of them it is.
    """
    worst = exact_cosines(vectors, queries, k=k)[:, -1]
    shares = np.zeros(len(queries))
    for i, (query, positions) in enumerate(zip(queries, found, strict=True)):
        cosines = vectors[list(positions)[:k]] @ query if len(positions) else np.zeros(0)
        shares[i] = np.count_nonzero(cosines >= worst[i] - TIE) / k
    return shares


def mean_ci95(values: NDArray[Any], *, seed: int = 0, rounds: int = 1000) -> tuple[float, float]:
    """95 % confidence interval of the mean by the percentile bootstrap."""
    drawn = np.random.default_rng(seed).integers(0, len(values), (rounds, len(values)))
    low, high = np.percentile(np.asarray(values, np.float64)[drawn].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)
