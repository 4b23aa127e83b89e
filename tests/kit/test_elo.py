"""Elo ratings against the formula and simulated students."""

import numpy as np
import pytest

from neuroedge.kit import elo


def test_one_answer_moves_both_by_the_surprise() -> None:
    """By hand: gain 1, even chances, half a logit each way."""
    ratings = elo.rated([("s", "i", True)])
    assert ratings.ability["s"] == pytest.approx(0.5)
    assert ratings.difficulty["i"] == pytest.approx(-0.5)
    assert ratings.p("s", "i") == pytest.approx(1 / (1 + np.exp(-1)))
    assert ratings.p("nobody", "nothing") == 0.5


def test_steps_get_smaller() -> None:
    """U(n) = 1 / (1 + 0.05 n)."""
    ratings = elo.Ratings()
    told = ratings.observe("s", "i", correct=True)
    before = ratings.ability["s"]
    p = ratings.observe("s", "j", correct=False)
    assert told == 0.5
    assert ratings.ability["s"] == pytest.approx(before - p / 1.05)


def test_known_items_stay() -> None:
    """Only the student moves."""
    ratings = elo.rated([("s", "i", True), ("s", "i", True)], known={"i": 1.5})
    assert ratings.difficulty == {"i": 1.5}
    assert ratings.ability["s"] > 1


def test_difficulties_are_found_in_their_order() -> None:
    """Ten items, 400 students."""
    rng = np.random.default_rng(0)
    hard = np.linspace(-2, 2, 10)
    answers = [
        (f"s{s}", f"i{i}", bool(rng.random() < 1 / (1 + np.exp(hard[i] - a))))
        for s, a in enumerate(rng.standard_normal(400))
        for i in rng.permutation(10)
    ]
    found = elo.rated(answers).difficulty
    assert np.corrcoef([found[f"i{i}"] for i in range(10)], hard)[0, 1] > 0.98
