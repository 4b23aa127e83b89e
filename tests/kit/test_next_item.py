"""What comes next in a sequence of names."""

import pytest

from neuroedge.kit.next_item import following


def test_the_usual_successor_comes_first() -> None:
    """After a comes b two times of three; Witten-Bell: (2 + 2 * 2/6) / (3 + 2)."""
    found = dict(following(["a", "b", "a", "c", "a", "b", "a"], top=9))
    assert max(found, key=lambda name: found[name]) == "b"
    assert found["b"] == pytest.approx((2 + 2 * 2 / 6) / 5)
    assert sum(found.values()) == pytest.approx(1)


def test_a_page_never_left_before_gets_the_overall_frequencies() -> None:
    """x was never left: the share of arrivals."""
    assert dict(following(["a", "b", "a", "x"]))["a"] == pytest.approx(1 / 3)


def test_nothing_follows_from_less_than_two() -> None:
    """No transition, no prediction."""
    assert following([]) == following(["a"]) == []
