"""Intervals of means: against scipy's, and what weights do."""

from collections.abc import Callable

import numpy as np
import pytest

from neuroedge.kit.intervals import linearised, skewed_t_interval, t_interval


def test_it_is_students_interval() -> None:
    """The same as scipy.stats.ttest_1samp's."""
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(0).normal(3, 2, 12)
    for level in (0.8, 0.95):
        found = ttest_1samp(values, 0).confidence_interval(level)
        assert t_interval(values, level=level) == pytest.approx((found.low, found.high))


def test_one_value_says_nothing_of_its_spread() -> None:
    """No end on either side; values that are all the same have no spread."""
    assert t_interval(np.array([1.0])) == (float("-inf"), float("inf"))
    assert t_interval(np.full(5, 2.0)) == (2.0, 2.0)


def test_skewed_values_are_held_more_often_and_symmetric_ones_as_often() -> None:
    """Two thousand means of ten values each: exponential ones, whose mean Student's interval misses in a tenth."""
    rng = np.random.default_rng(3)
    skewed, plain = rng.exponential(size=(2000, 10)), rng.normal(1, 1, (2000, 10))

    def held(rows: np.ndarray, of: Callable[[np.ndarray], tuple[float, float]]) -> float:
        return float(np.mean([low <= 1 <= high for low, high in map(of, rows)]))

    assert held(skewed, t_interval) < 0.92
    assert held(skewed, skewed_t_interval) > 0.93
    assert held(plain, skewed_t_interval) == pytest.approx(0.95, abs=0.015)


def test_without_skewness_it_is_students() -> None:
    """Symmetric about the mean, all the same, or too few to tell."""
    for values in ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0], [1.0, 4.0]):
        assert skewed_t_interval(np.array(values)) == t_interval(np.array(values))
    assert skewed_t_interval(np.array([1.0])) == (float("-inf"), float("inf"))


def test_its_ends_mirror_with_the_values() -> None:
    """The longer end is on the side of the long tail."""
    values = np.array([1.0, 1.2, 1.1, 1.4, 5.0])
    low, high = skewed_t_interval(values)
    assert skewed_t_interval(-values) == pytest.approx((-high, -low))
    assert high - values.mean() > values.mean() - low


def test_runs_count_by_their_units() -> None:
    """The mean over all units together; with equal weights nothing changes."""
    values, units = np.array([1.0, 4.0]), np.array([30.0, 10.0])
    assert linearised(values, units).mean() == pytest.approx((30 * 1 + 10 * 4) / 40)
    assert linearised(values, np.full(2, 7.0)).tolist() == pytest.approx([1.0, 4.0])


def test_its_interval_holds_the_truth_where_that_of_plain_means_is_off() -> None:
    """Runs with more units have higher means: 600 experiments of ten runs; nominal 95 %."""
    rng = np.random.default_rng(1)
    held, plain = 0, 0
    truth = (10**2 + 30**2) / (10 + 30) / 4
    for _ in range(600):
        units = rng.choice([10.0, 30.0], 10)
        values = units / 4 + rng.normal(0, 0.1, 10)
        low, high = t_interval(linearised(values, units))
        held += low <= truth <= high
        low, high = t_interval(values)
        plain += low <= truth <= high
    assert held / 600 == pytest.approx(0.95, abs=0.05)
    assert plain / 600 < held / 600
