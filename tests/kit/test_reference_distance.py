"""Reference distance: who leans on whom."""

import numpy as np

from neuroedge.kit.reference_distance import reference_distances

NAMES = ["Counting", "Addition", "Multiplication", "Area"]
TEXTS = [
    "Saying numbers in order.",
    "Addition by counting on. Counting helps.",
    "Multiplication is repeated addition, with counting in steps.",
    "Area of a rectangle by multiplication and addition.",
]


def test_the_one_that_is_mentioned_comes_first() -> None:
    """Along the ladder every distance is positive towards the earlier topic."""
    refd = reference_distances(NAMES, TEXTS)
    assert refd[1, 0] > 0
    assert refd[2, 1] > 0
    assert refd[3, 2] > 0


def test_it_is_antisymmetric_and_within_one() -> None:
    """RefD(a, b) = -RefD(b, a)."""
    refd = reference_distances(NAMES, TEXTS)
    assert np.allclose(refd, -refd.T)
    assert np.abs(refd).max() <= 1


def test_topics_that_do_not_name_each_other_have_no_direction() -> None:
    """Nor has a name without letters."""
    refd = reference_distances(["Clouds", "Verbs", "!!"], ["Rain and snow.", "Words that act.", "Nothing."])
    assert np.allclose(refd, 0)
