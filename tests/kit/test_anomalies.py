"""Anomalies against brute force and closed form."""

import numpy as np
import pytest

from neuroedge.kit.anomalies import discords, matrix_profile, outliers, row_scores


def _brute(y: np.ndarray, window: int) -> np.ndarray:
    cut = [y[i : i + window] for i in range(len(y) - window + 1)]
    z = [(c - c.mean()) / c.std() for c in cut]
    near = -(-window // 4)
    return np.array(
        [min(float(np.linalg.norm(a - b)) for j, b in enumerate(z) if abs(i - j) > near) for i, a in enumerate(z)]
    )


def test_the_matrix_profile_is_exact() -> None:
    """Equal to the definition, on any series."""
    y = np.cumsum(np.random.default_rng(1).normal(size=150))
    np.testing.assert_allclose(matrix_profile(y, 12), _brute(y, 12), atol=1e-6)


def test_stretches_without_change_are_alike() -> None:
    """No division by zero; a flat series has distance 0 throughout."""
    assert matrix_profile(np.ones(80), 10).max() == 0
    step = np.r_[np.zeros(40), np.ones(40)]
    assert np.isfinite(matrix_profile(step, 10)).all()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_an_outlier_is_one_in_any_unit(scale: float) -> None:
    """Scores do not depend on the unit."""
    y = np.random.default_rng(2).normal(size=100)
    y[40] = 12
    assert [o.index for o in outliers(y * scale, season=1, threshold=6)] == [40]


def test_a_straight_line_and_a_constant_have_none() -> None:
    """Nothing is far from a perfect fit."""
    assert outliers(np.full(50, 3.0), season=1, threshold=4) == []
    assert outliers(np.arange(48.0) % 12, season=12, threshold=4) == []


def test_discords_do_not_overlap() -> None:
    """Each stands for its own stretch."""
    y = np.sin(np.arange(300) / 4)
    y[100:110], y[200:210] = np.linspace(0, 3, 10), np.linspace(3, -3, 10)
    found = [d.index for d in discords(y, window=15, threshold=3)]
    assert len(found) >= 2
    assert all(abs(a - b) >= 15 for i, a in enumerate(found) for b in found[:i])


def test_a_far_row_is_easily_set_apart() -> None:
    """The highest score of all."""
    rows = np.random.default_rng(3).normal(size=(100, 4))
    rows[17] = 10
    scores = row_scores(rows)
    assert scores.argmax() == 17
    assert scores[17] > 0.6
