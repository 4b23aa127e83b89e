"""What comes next in a sequence of names: a first-order Markov model that falls back on how frequent names are.

Witten & Bell 1991 interpolation, so that a page never left before still gets an answer.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise


def following(sequence: Sequence[str], *, top: int = 3) -> list[tuple[str, float]]:
    """The likeliest successors of the last name with their probabilities, best first; none without a transition."""
    if len(sequence) < 2:
        return []
    after: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for a, b in pairwise(sequence):
        after[a][b] += 1
    overall = Counter(sequence[1:])
    seen = after[sequence[-1]] if sequence[-1] in after else Counter[str]()
    kinds, total = len(seen) or 1, sum(seen.values())
    p = {name: (seen[name] + kinds * count / (len(sequence) - 1)) / (total + kinds) for name, count in overall.items()}
    return sorted(p.items(), key=lambda item: (-item[1], item[0]))[:top]
