"""Topics of texts: non-negative matrix factorisation (Lee & Seung 1999) over TF-IDF, and how well their words agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

TOP_WORDS: Final = 10
_MAX_WORDS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """Words that come together; `npmi` says how often in the same texts, -1 to 1 (Bouma 2009)."""

    words: list[str]
    share: float
    """Of the texts, those of which it is the strongest topic."""
    npmi: float


def topics(texts: Sequence[str], *, count: int, seed: int) -> tuple[list[Topic], NDArray[np.int64]]:
    """Topics by share, and of each text its strongest one (-1: no word is left of it).

    Raises ValueError when the texts have fewer words in common than there are to be topics.
    """
    from sklearn.decomposition import NMF
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(max_features=_MAX_WORDS, min_df=2, max_df=0.7, sublinear_tf=True)
    x = vectors.fit_transform(texts)
    if x.shape[1] < count:
        raise ValueError(f"the texts have {x.shape[1]} words in common, too few for {count} topics")
    model = NMF(count, init="nndsvda", random_state=seed, max_iter=400, tol=1e-3)
    weights = model.fit_transform(x)
    strongest = np.where(weights.max(axis=1) > 0, weights.argmax(axis=1), -1)
    words, there = vectors.get_feature_names_out(), x > 0
    found = []
    for i, row in enumerate(model.components_):
        top = np.argsort(-row)[: min(TOP_WORDS, int((row > 0).sum()))]
        share = float((strongest == i).mean())
        found.append(Topic(words=[str(words[j]) for j in top], share=share, npmi=_npmi(there[:, top])))
    order = sorted(range(count), key=lambda i: -found[i].share)
    rank = np.empty(count + 1, np.int64)
    rank[order], rank[-1] = np.arange(count), -1
    return [found[i] for i in order], rank[strongest]


def _npmi(there: Any) -> float:
    """Mean over pairs of words of the normalised pointwise mutual information of standing in the same text."""
    seen = np.asarray(there.todense(), float)
    together, alone = seen.T @ seen / len(seen), seen.mean(axis=0)
    values = []
    for i in range(seen.shape[1]):
        for j in range(i):
            p = together[i, j]
            values.append(-1.0 if p == 0 else 1.0 if p == 1 else float(np.log(p / (alone[i] * alone[j])) / -np.log(p)))
    return float(np.mean(values)) if values else 0.0
