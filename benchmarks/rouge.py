"""ROUGE (Lin 2004): overlap of n-grams, and of the longest common subsequence, of a summary with a reference.

As the package rouge-score counts it without stemming: lower case, runs of letters a-z and digits. tests/benchmarks hold
values that package gave.
"""

import re
from collections import Counter


def tokens(text: str) -> list[str]:
    """Runs of a-z and digits."""
    return re.findall(r"[a-z0-9]+", text.lower())


def rouge_n(summary: str, reference: str, *, n: int) -> float:
    """F1 of the n-grams, 0 to 1."""
    a, b = (Counter(_grams(tokens(text), n)) for text in (summary, reference))
    return _f1(sum((a & b).values()), sum(a.values()), sum(b.values()))


def rouge_l(summary: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, 0 to 1."""
    a, b = tokens(summary), tokens(reference)
    row = [0] * (len(b) + 1)
    for x in a:
        above = 0
        for j, y in enumerate(b):
            above, row[j + 1] = row[j + 1], above + 1 if x == y else max(row[j], row[j + 1])
    return _f1(row[-1], len(a), len(b))


def _grams(found: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]


def _f1(common: int, of: int, wanted: int) -> float:
    return 2 * common / (of + wanted) if of and wanted else 0.0
