"""Which of two topics needs the other, from who mentions whom: reference distance (Liang, Wu, Huang & Giles 2015).

RefD(A, B) is how far the topics that matter to A mention B, less how far those that matter to B mention A. It is
positive where B is the prerequisite. Weights: tf-idf of a topic's name in a text, as in the paper's better variant.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit.words import words

Doubles = NDArray[np.float64]

CLEAR: Final = 0.05
"""Beyond it the paper takes a distance for a direction."""


def reference_distances(names: Sequence[str], texts: Sequence[str]) -> Doubles:
    """RefD [n, n] of topics by name with a text each: element [a, b] is positive where b comes before a."""
    bodies = [_spaced(text) for text in texts]
    keys = [_spaced(name) for name in names]
    counts = np.array([[float(body.count(key)) if key.strip() else 0.0 for key in keys] for body in bodies])
    n = len(names)
    np.fill_diagonal(counts, np.maximum(counts.max(axis=1, initial=0.0), 1.0))
    mentions = (counts > 0).astype(np.float64)
    np.fill_diagonal(mentions, 0.0)
    rarity = np.log((1 + n) / np.maximum((counts > 0).sum(axis=0), 1.0))
    weights = counts * rarity
    total = np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    toward = (weights / total) @ mentions
    return np.asarray(toward - toward.T, np.float64)


def _spaced(text: str) -> str:
    """Stems with a space on each side, so that a name is found as whole words."""
    return " " + "  ".join(words(text)) + " "
