"""BM25 as a sum over words of a weight of the document and a weight of the query (Robertson & Zaragoza 2009).

The document's part is fixed when the document is stored, with the average length known then; the query's part holds
what changes with every document added, the inverse document frequency, which stores/memory_search.py lets the database
count. So a document is a sparse vector and ranking is an inner product, which it computes without knowing any word.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

K1: Final = 1.5
B: Final = 0.75


def document_weights(terms: Iterable[int], *, average_length: float) -> dict[int, float]:
    """Weight of each term of a document: its saturated, length-normalised frequency, in (0, 1)."""
    counts = Counter(terms)
    length = counts.total()
    norm = K1 * (1 - B + B * length / average_length) if average_length else K1
    return {term: tf / (tf + norm) for term, tf in counts.items()}
