"""Response-time effort by hand, features of plain sessions, and the logistic head's arithmetic."""

import math

import pytest

from neuroedge.kit import engagement
from neuroedge.kit.engagement import FEATURES, Head, Try


def _tries(*times_s: float, **more: object) -> list[Try]:
    return [Try(item=f"i{i}", time_s=t, correct=True, **more) for i, t in enumerate(times_s)]  # type: ignore[arg-type]


def test_a_threshold_is_a_tenth_of_the_usual_time_and_at_most_ten_seconds() -> None:
    """And three seconds where no usual time is known."""
    usual = {"short": 20.0, "long": 300.0}
    assert engagement.threshold_s("short", usual) == 2.0
    assert engagement.threshold_s("long", usual) == 10.0
    assert engagement.threshold_s("other", usual) == 3.0


def test_effort_is_the_share_of_answers_that_took_their_time() -> None:
    """Skipped items are no answers."""
    tries = [*_tries(1, 25, 30, 2.5), Try(item="s", time_s=0.5, correct=None)]
    found = engagement.effort(tries, {"i3": 20.0})
    assert (found.rte, found.n, found.rapid, found.normed) == (0.75, 4, 1, 1)
    with pytest.raises(ValueError, match="no answers"):
        engagement.effort(tries[-1:], {})


def test_features_look_at_the_last_ten_only() -> None:
    """Ten careful items after ten rapid ones show no rapid answer, and a learner who slowed down."""
    found = engagement.features(_tries(*[1.0] * 10, *[30.0] * 10), {})
    assert found["rapid_share"] == found["last_rapid"] == 0
    assert found["speed_up"] == pytest.approx(-math.log(30))
    assert set(found) == set(FEATURES)


def test_features_of_skips_hints_and_leaving() -> None:
    """Shares of the tries, and of the time."""
    tries = [Try(item="a", time_s=20, correct=None, hints=9, away_s=10, pause_before_s=100), *_tries(20)]
    found = engagement.features(tries, {})
    assert (found["skip_share"], found["hint_share"], found["away_share"], found["pause_share"]) == (
        0.5,
        0.5,
        0.25,
        0.5,
    )


def test_an_answer_without_time_is_no_error() -> None:
    """Zero seconds are rapid."""
    assert engagement.features(_tries(0, 0), {})["rapid_share"] == 1


def test_contributions_add_up_to_the_logit() -> None:
    """Bias alone for the average learner; extreme logits stay probabilities."""
    head = Head(
        bias=-1.0,
        weights=dict.fromkeys(FEATURES, 2.0),
        mean=dict.fromkeys(FEATURES, 0.5),
        sd=dict.fromkeys(FEATURES, 0.5),
    )
    average = dict.fromkeys(FEATURES, 0.5)
    assert engagement.probability(average, head) == pytest.approx(1 / (1 + math.e))
    one = {**average, "rapid_share": 1.0}
    assert engagement.contributions(one, head)["rapid_share"] == pytest.approx(2.0)
    assert engagement.probability(one, head) == pytest.approx(1 / (1 + math.exp(-1)))
    assert 0 < engagement.probability(dict.fromkeys(FEATURES, -1e9), head) < 1e-9
