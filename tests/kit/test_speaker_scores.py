"""Scores of speakers against closed-form truth: error rates, calibration, open-set probabilities."""

import math

import numpy as np
import pytest

from neuroedge.kit.speaker_calibration import calibration_of
from neuroedge.kit.speaker_scores import (
    Calibration,
    cllr_bits,
    decide,
    equal_error_rate,
    features,
    fit,
    llr,
    p_each,
    p_same,
    pooled,
    score,
    threshold_accepting,
    threshold_rejecting,
)

CALIBRATION = Calibration(
    model_id="m",
    centre=np.zeros(2, np.float32),
    weights=(0.0, 10.0, 0.0, 0.0),
    same_llr=4.0,
    different_llr=-4.0,
    far=0.01,
    frr=0.05,
    source="s",
)


def test_equal_error_rate_of_two_gaussians_is_the_normal_tail() -> None:
    """Means 2 apart, unit variance: the rates meet at 1 with Φ(-1) = 0.1587."""
    source = np.random.default_rng(0)
    rate, threshold = equal_error_rate(source.normal(2, 1, 200_000), source.normal(0, 1, 200_000))
    assert rate == pytest.approx(0.1587, abs=0.002)
    assert threshold == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("same", "different", "rate"), [([2, 3], [0, 1], 0.0), ([0, 1], [2, 3], 1.0), ([1], [1], 0.5)])
def test_equal_error_rate_at_the_ends(same: list[float], different: list[float], rate: float) -> None:
    """Separable, upside down, and all equal."""
    assert equal_error_rate(np.array(same, float), np.array(different, float))[0] == pytest.approx(rate)


def test_equal_error_rate_needs_both_kinds() -> None:
    """One kind alone has no rate."""
    with pytest.raises(ValueError, match="both kinds"):
        equal_error_rate(np.array([1.0]), np.array([]))


def test_calibration_finds_the_likelihood_ratio_of_gaussians() -> None:
    """Scores N(1, 1) and N(-1, 1): the ratio is 2 s, whatever the share of each kind."""
    source = np.random.default_rng(1)
    scores = np.concatenate([source.normal(1, 1, 20_000), source.normal(-1, 1, 60_000)])
    same = np.arange(len(scores)) < 20_000
    found = fit(np.stack([np.ones_like(scores), scores], axis=1), same, ridge=1e-9)
    assert found == pytest.approx([0.0, 2.0], abs=0.06)


def test_calibration_stays_finite_on_separable_scores() -> None:
    """The ridge keeps what any slope would separate."""
    rows = np.stack([np.ones(4), np.array([-2.0, -1.0, 1.0, 2.0])], axis=1)
    found = fit(rows, np.array([False, False, True, True]))
    assert np.isfinite(found).all()
    assert found[1] > 0


def test_cost_in_bits_of_no_answer_and_of_sure_ones() -> None:
    """Ratios of 0 cost one bit; right and sure ones nothing; wrong and sure ones much."""
    assert cllr_bits(np.zeros(3), np.zeros(5)) == pytest.approx(1.0)
    assert cllr_bits(np.full(3, 50.0), np.full(3, -50.0)) == pytest.approx(0.0)
    assert cllr_bits(np.full(3, -50.0), np.full(3, 50.0)) > 50


def test_thresholds_hold_their_rates() -> None:
    """At most 1 % of others are accepted, at most 5 % of the same rejected, and not needlessly fewer."""
    source = np.random.default_rng(2)
    different, same = source.normal(-3, 1, 1000), source.normal(3, 1, 1000)
    assert np.mean(different >= threshold_accepting(different, 0.01)) == pytest.approx(0.01)
    assert np.mean(same <= threshold_rejecting(same, 0.05)) == pytest.approx(0.05)


def test_a_voice_is_the_weighted_mean_direction_of_its_samples() -> None:
    """Twice the speech, twice the weight; the result is a unit vector."""
    mean = pooled(np.array([[1, 0], [0, 1]], np.float32), np.array([2, 1], np.float32))
    assert mean == pytest.approx(np.array([2, 1]) / math.sqrt(5), abs=1e-6)


def test_centring_tells_apart_what_lies_in_one_corner() -> None:
    """Two vectors of cosine 0.98 point in opposite directions from their mean."""
    one, other = np.array([1.0, 0.1], np.float32), np.array([1.0, -0.1], np.float32)
    assert score(one, other, np.zeros(2, np.float32)) == pytest.approx(0.9802, abs=1e-3)
    assert score(one, other, np.array([1.0, 0.0], np.float32)) == pytest.approx(-1.0)


def test_decisions_lie_on_both_sides_of_doubt() -> None:
    """Thresholds belong to their decision."""
    assert [decide(x, CALIBRATION) for x in (4.0, 3.9, 0.0, -3.9, -4.0)] == [
        "same",
        "uncertain",
        "uncertain",
        "uncertain",
        "different",
    ]
    assert llr(0.5, 3.0, CALIBRATION) == pytest.approx(5.0)


def test_a_prior_moves_the_probability_and_nothing_overflows() -> None:
    """Odds multiply; ratios of thousands are 0 and 1."""
    assert p_same(0.0, prior=0.2) == pytest.approx(0.2)
    assert p_same(math.log(4), prior=0.2) == pytest.approx(0.5)
    assert (p_same(5000.0), p_same(-5000.0)) == (1.0, 0.0)
    assert p_each([5000.0, -5000.0]) == [1.0, 0.0]


def test_candidates_share_the_prior() -> None:
    """One candidate is verification; a hundred need ln(100) more; two alike halve each other; nobody keeps the rest."""
    assert p_each([2.0]) == pytest.approx([p_same(2.0)])
    assert p_each([2.0, *[-60.0] * 99])[0] == pytest.approx(p_same(2.0 - math.log(100)))
    assert p_each([30.0, 30.0]) == pytest.approx([0.5, 0.5])
    assert sum(p_each([-5.0, -6.0])) < 0.01
    assert p_each([]) == []


def test_features_clip_the_length_of_speech() -> None:
    """A tenth of a second and an hour are as half a second and twelve."""
    rows = features(np.array([0.3, 0.3]), np.array([0.1, 3600.0]))
    assert rows[:, 2] == pytest.approx([math.log(0.5), math.log(12.0)])


def test_the_calibration_in_use_is_sound() -> None:
    """More alike is never less likely, at any length; another encoder has none."""
    found = calibration_of("resemblyzer-ge2e")
    assert found is not None
    assert found.different_llr <= 0 < found.same_llr
    assert found.centre.shape == (256,)
    for seconds in (0.5, 3.0, 30.0):
        ratios = [llr(value, seconds, found) for value in np.linspace(-1, 1, 21)]
        assert ratios == sorted(ratios)
    assert calibration_of("another-encoder") is None
