"""Maximal marginal relevance (Carbonell & Goldstein 1998): relevant results that do not repeat each other."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

DEFAULT_BALANCE: Final = 0.7
"""1: relevance alone; 0: only unlike what was chosen before."""


def maximal_marginal_relevance(
    relevance: NDArray[np.floating], vectors: NDArray[np.floating], *, limit: int, balance: float = DEFAULT_BALANCE
) -> list[int]:
    """Positions of at most `limit` items, each the best of the rest by balance * relevance - (1 - balance) * likeness.

    `relevance` [n] should lie on the scale of cosines, -1 to 1; likeness is the largest cosine of an item's vector
    ([n, dim], L2-normalised) with one already chosen. The first is the most relevant; equal items keep their order.
    Raises ValueError for a balance outside 0 … 1 or arrays of unequal length.
    """
    if not 0 <= balance <= 1:
        raise ValueError(f"the balance must be between 0 and 1, not {balance}")
    if len(relevance) != len(vectors):
        raise ValueError(f"{len(relevance)} scores for {len(vectors)} vectors")
    likeness = np.zeros(len(relevance))
    waiting = np.ones(len(relevance), bool)
    chosen: list[int] = []
    while len(chosen) < min(limit, len(relevance)):
        gain = balance * relevance - (1 - balance) * likeness
        best = int(np.argmax(np.where(waiting, gain, -np.inf)))
        chosen.append(best)
        waiting[best] = False
        cosines = vectors @ vectors[best]
        likeness = cosines if len(chosen) == 1 else np.maximum(likeness, cosines)
    return chosen
