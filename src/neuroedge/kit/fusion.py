"""One ranking out of several: from ranks alone to choose candidates, from scores to put the candidates in order.

Reciprocal rank fusion (Cormack, Clarke & Büttcher 2009) needs nothing but ranks. A convex combination of scores (Bruch,
Gai & Ingber 2023) keeps how much better one candidate is than the next, which ranks lose.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

DEFAULT_K: Final = 60
"""The paper's constant: how little the first ranks weigh more than the next ones."""

RERANK_WEIGHTS: Final = {"keyword": 1.0, "dense": 2.0, "late-interaction": 0.5}
"""For `combined_scores` of BM25, cosine and MaxSim of the default encoder, each known for every candidate: with scores
missing it orders worse than ranks alone. Chosen on the development halves of two unlike collections; what it gains on
the other halves, and which sample was too small to tell, benchmarks/retrieval_quality.py measures. MaxSim over token
states that were never trained for it orders candidates about as well as the cosine, but errs on other passages."""


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


def combined_scores(parts: Mapping[str, Sequence[float | None]], weights: Mapping[str, float]) -> list[float]:
    """One score an item, 0 to 1, out of several scores of the same candidates; higher is better in all of them.

    Each part is brought to 0 … 1 over the candidates (min-max; Bruch et al. 2023 find this better than ranks), then
    averaged by its weight. None (that search does not know the item) counts as the least known score; a part that
    cannot tell the candidates apart counts 0 for all. Raises ValueError for parts of unequal length, KeyError for a
    part without weight.
    """
    if len({len(scores) for scores in parts.values()}) > 1:
        raise ValueError("every part must score the same candidates")
    total = sum(weights[name] for name in parts) or 1.0
    scaled = [[weights[name] / total * value for value in _scaled(scores)] for name, scores in parts.items()]
    return [sum(values) for values in zip(*scaled, strict=True)]


def _scaled(scores: Sequence[float | None]) -> list[float]:
    known = [score for score in scores if score is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    if high <= low:
        return [0.0] * len(scores)
    return [0.0 if score is None else (score - low) / (high - low) for score in scores]
