"""FSRS-6 over review histories: as ts-fsrs 5.4.2 computes it (made by benchmarks/data/ts_fsrs.mjs)."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from neuroedge.kit.spaced_repetition import RATINGS, recall

START = datetime(2026, 1, 1, 9, tzinfo=UTC)
VECTORS = [
    ([(0, 3)], 2.3065, 2.11810397, 600, 0.66752633),
    ([(0, 3), (1 / 144, 3), (2, 3), (7, 3), (21, 3)], 75.43403989, 2.09058635, 8294400, 0.95050146),
    ([(0, 1), (0.5, 2), (3, 4)], 3.74642738, 6.78887669, 604800, 0.71446252),
    ([(0, 3), (0.1, 3), (5, 1), (5.1, 3), (9, 3)], 4.70684079, 7.36792257, 1209600, 0.7368012),
    ([(0, 4), (30, 2), (31, 1), (400, 3)], 24.43846379, 8.00376807, 36633600, 0.88530635),
    ([(0, 2), (1, 2), (2, 2)], 4.68264235, 7.8213935, 173160, 0.73629637),
]


@pytest.mark.parametrize(("history", "stability", "difficulty", "due_s", "chance"), VECTORS)
def test_it_computes_what_ts_fsrs_does(
    history: list[tuple[float, int]], stability: float, difficulty: float, due_s: float, chance: float
) -> None:
    """Ratings 1 to 4 after so many days; same-day reviews and lapses among them."""
    reviews = [(START + timedelta(days=days), RATINGS[grade - 1]) for days, grade in history]
    found = recall(reviews, now=reviews[-1][0] + timedelta(days=30))
    assert found is not None
    assert found.stability_days == pytest.approx(stability, rel=1e-6)
    assert found.difficulty == pytest.approx(difficulty, rel=1e-6)
    assert (found.due_at - START).total_seconds() == pytest.approx(due_s, abs=31)
    assert found.retrievability == pytest.approx(chance, abs=1e-6)


def test_order_and_time_zone_of_the_reviews_do_not_matter() -> None:
    """Late events and local times give the same memory."""
    reviews = [(START + timedelta(days=d), RATINGS[g]) for d, g in [(0, 2), (3, 0), (4, 2)]]
    kolkata = timezone(timedelta(hours=5, minutes=30))
    moved = [(at.astimezone(kolkata), rating) for at, rating in reversed(reviews)]
    now = START + timedelta(days=10)
    assert recall(moved, now=now) == recall(reviews, now=now)


def test_no_review_leaves_no_memory() -> None:
    """And nothing is due."""
    assert recall([], now=START) is None


def test_a_higher_retention_is_due_sooner() -> None:
    """At the stability itself for 0.9."""
    reviews = [(START + timedelta(days=d), RATINGS[2]) for d in (0, 1, 4)]
    usual, careful = (recall(reviews, now=START, desired_retention=r) for r in (0.9, 0.97))
    assert usual is not None
    assert careful is not None
    assert careful.due_at < usual.due_at
    assert (usual.due_at - reviews[-1][0]).days == round(usual.stability_days)
