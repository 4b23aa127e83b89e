"""Bootstrap intervals of benchmarks."""

import numpy as np
import pytest
from benchmarks.resampling import interval


def test_it_is_about_that_of_the_normal_law() -> None:
    """Of a mean of 400 values with deviation 1: 1.96 / 20 to either side."""
    values = np.random.default_rng(1).normal(5.0, 1.0, 400)
    low, high = interval(len(values), lambda rows: values[rows].mean())
    assert low < values.mean() < high
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_of_equal_values_it_is_none() -> None:
    """And the same draws come every time."""
    assert interval(5, lambda rows: np.full(5, 0.3)[rows].mean()) == pytest.approx((0.3, 0.3))
    assert interval(9, lambda rows: rows.sum(), samples=50) == interval(9, lambda rows: rows.sum(), samples=50)
