"""Maximal marginal relevance, on vectors whose likeness is plain to see."""

import numpy as np
import pytest

from neuroedge.kit.mmr import maximal_marginal_relevance

EAST, NORTH = [1.0, 0.0], [0.0, 1.0]


def test_a_repetition_waits_behind_something_new() -> None:
    """The second says the same as the first; the third is a little less relevant and unlike it."""
    order = maximal_marginal_relevance(np.array([0.9, 0.89, 0.6]), np.array([EAST, EAST, NORTH]), limit=3)
    assert order == [0, 2, 1]


def test_by_relevance_alone_nothing_moves() -> None:
    """Balance 1 is plain sorting, ties in the order given."""
    order = maximal_marginal_relevance(np.array([0.2, 0.9, 0.9]), np.array([EAST, EAST, EAST]), limit=3, balance=1.0)
    assert order == [1, 2, 0]


def test_what_points_away_is_welcome() -> None:
    """A negative cosine with everything chosen counts in an item's favour."""
    away = [-1.0, 0.0]
    order = maximal_marginal_relevance(np.array([0.9, 0.5, 0.5]), np.array([EAST, NORTH, away]), limit=2, balance=0.5)
    assert order == [0, 2]


@pytest.mark.parametrize(("limit", "expected"), [(0, []), (1, [1]), (9, [1, 0])])
def test_the_limit_is_kept(limit: int, expected: list[int]) -> None:
    """No more than asked for, no more than there are."""
    assert maximal_marginal_relevance(np.array([0.1, 0.8]), np.array([EAST, NORTH]), limit=limit) == expected


def test_nothing_to_choose_from() -> None:
    """An empty result stays empty."""
    assert maximal_marginal_relevance(np.zeros(0), np.zeros((0, 2)), limit=5) == []


def test_bad_input_is_refused() -> None:
    """A balance that is no share, and scores without vectors."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        maximal_marginal_relevance(np.ones(1), np.array([EAST]), limit=1, balance=1.1)
    with pytest.raises(ValueError, match="2 scores for 1"):
        maximal_marginal_relevance(np.ones(2), np.array([EAST]), limit=1)
