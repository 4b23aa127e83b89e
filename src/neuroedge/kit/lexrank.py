"""LexRank: sentences that many others resemble are the central ones of a text (Erkan & Radev 2004), and a selection of
them that does not repeat itself (maximal marginal relevance, Carbonell & Goldstein 1998).

Plain numpy: the stationary distribution of a random walk over sentences, by power iteration.
"""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit.mmr import maximal_marginal_relevance
from neuroedge.kit.words import words

Floats = NDArray[np.floating]
THRESHOLD: Final = 0.1
"""Cosines below it are no likeness; of the paper, for TF-IDF."""
JUMP: Final = 0.15
"""Probability that the walk goes on at any sentence."""
BALANCE: Final = 0.7
"""Of centrality against repetition; as in kit/mmr.py."""
_TOLERANCE: Final = 1e-6
_MOST_STEPS: Final = 1000
_UNSPACED: Final = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


def tfidf(sentences: Sequence[str], *, language: str = "english") -> Floats:
    """Vectors [n, terms] whose products are the cosines of the sentences' TF-IDF; idf over these sentences.

    Words of one sentence only are in its length and nowhere else: they add to no product. A sentence's product with
    itself is therefore at most 1.
    """
    bags = [Counter(_terms(sentence, language)) for sentence in sentences]
    within = Counter(word for bag in bags for word in bag)
    shared = {word: i for i, word in enumerate(word for word, n in within.items() if n > 1)}
    vectors = np.zeros((len(bags), max(1, len(shared))), np.float32)
    for row, bag in zip(vectors, bags, strict=True):
        square = 0.0
        for word, n in bag.items():
            # 1 + log: a word of every sentence still tells two equal sentences from two unlike ones.
            weight = n * (1.0 + np.log(len(bags) / within[word]))
            square += weight * weight
            if word in shared:
                row[shared[word]] = weight
        if square:
            row /= np.sqrt(square)
    return vectors


def _terms(sentence: str, language: str) -> list[str]:
    """Words; where a script sets no spaces between them, pairs of characters."""
    if not _UNSPACED.search(sentence):
        return words(sentence, language=language)
    signs = [c for c in sentence if c.isalnum()]
    return ["".join(pair) for pair in itertools.pairwise(signs)]


def lexrank(vectors: Floats, *, threshold: float = THRESHOLD, jump: float = JUMP) -> Floats:
    """Centrality [n] of sentences by their vectors [n, dim] (L2-normalised); sums to 1.

    Weights of the walk are cosines of at least `threshold` (continuous LexRank); a sentence like no other leads
    anywhere. Raises ValueError for no sentences.
    """
    n = len(vectors)
    if not n:
        raise ValueError("no sentences")
    likeness = np.clip(vectors @ vectors.T, 0.0, 1.0)
    likeness[likeness < threshold] = 0.0
    np.fill_diagonal(likeness, 0.0)
    sums = likeness.sum(axis=1, keepdims=True)
    walk = np.divide(likeness, sums, out=np.full_like(likeness, 1.0 / n), where=sums > 0)
    rank, moved, step = np.full(n, 1.0 / n), 1.0, 0
    while moved >= _TOLERANCE and step < _MOST_STEPS:
        following = jump / n + (1.0 - jump) * (rank @ walk)
        moved, rank, step = float(np.abs(following - rank).sum()), following, step + 1
    return np.asarray(rank / rank.sum())


def chosen(
    ranks: Floats,
    vectors: Floats,
    *,
    balance: float = BALANCE,
    limit: int | None = None,
    position_weight: float = 0.0,
) -> list[int]:
    """Positions of sentences, best first: central ones, unlike those before them.

    `position_weight`: share of an early place in what makes a sentence worth taking (after MEAD, Radev et al. 2004);
    the i-th sentence has 1 / sqrt(i) of it.
    """
    early = 1.0 / np.sqrt(1.0 + np.arange(len(ranks)))
    relevance = (1.0 - position_weight) * ranks / ranks.max() + position_weight * early
    return maximal_marginal_relevance(relevance, vectors, limit=len(ranks) if limit is None else limit, balance=balance)
