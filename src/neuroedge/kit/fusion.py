"""Reciprocal rank fusion (Cormack, Clarke & Büttcher 2009): one ranking out of several, from ranks alone."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

DEFAULT_K: Final = 60
"""The paper's constant: how little the first ranks weigh more than the next ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused(Generic[K]):
    """An item of the fused ranking; `parts` gives what each ranking that holds it added to `score`."""

    id: K
    score: float
    parts: dict[str, float]


def reciprocal_rank_fusion(rankings: Mapping[str, Sequence[K]], *, k: int = DEFAULT_K) -> list[Fused[K]]:
    """All items of the named `rankings` (ids, best first), by the sum of 1 / (k + rank), rank from 1, best first.

    Equal scores keep the order in which the items were first seen, so the result is deterministic. An id that a
    ranking repeats counts at its best rank.
    """
    parts: dict[K, dict[str, float]] = {}
    for name, ids in rankings.items():
        for rank, item in enumerate(ids, start=1):
            parts.setdefault(item, {}).setdefault(name, 1.0 / (k + rank))
    fused = [Fused(id=item, score=sum(p.values()), parts=p) for item, p in parts.items()]
    return sorted(fused, key=lambda f: -f.score)
