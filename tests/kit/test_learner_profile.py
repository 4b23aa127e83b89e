"""The open learner model of a list of answers."""

from datetime import UTC, datetime, timedelta
from math import sqrt

import pytest

from neuroedge.kit.learner_profile import Practice, skills

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_mean_sd_and_provenance_of_each_skill() -> None:
    """Beta posterior by hand; sources counted; skills apart."""
    right = [True, True, False, True]
    practice = [
        Practice(skill="b", correct=c, at=START + timedelta(days=i), source="quiz" if i else "game")
        for i, c in enumerate(right)
    ]
    other = Practice(skill="a", correct=False, at=START, source="quiz")
    first, second = skills([other, *practice])
    assert (first.skill, first.n) == ("a", 1)
    assert first.mean == pytest.approx(1 / 3)
    assert second.mean == pytest.approx(4 / 6)
    assert second.sd == pytest.approx(sqrt(4 * 2 / (36 * 7)))
    assert second.sources == {"game": 1, "quiz": 3}
    assert (second.first_at, second.last_at) == (START, START + timedelta(days=3))
    assert second.p_mastery > first.p_mastery
    assert skills([]) == []
