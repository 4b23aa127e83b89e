"""What stands out: single values of a series, stretches of one, rows of a table."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_BLOCK: Final = 512
_MAD_TO_SD: Final = 1.4826
TREES: Final = 200
_SEASONAL: Final = 35
"""Seasons over which the seasonal part is smoothed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """A value far from what was expected of it; `score` in robust standard deviations."""

    index: int
    expected: float
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Discord:
    """A stretch whose shape comes nowhere else; `score` is its distance over the usual one."""

    index: int
    length: int
    score: float


def outliers(y: Floats, *, season: int, threshold: float) -> list[Outlier]:
    """Values off the trend and season of a robust STL (Cleveland et al. 1990; a running median without season)."""
    expected = _expected(y, season)
    off = y - expected
    mad = float(np.median(np.abs(off - np.median(off)))) * _MAD_TO_SD
    # Where more than half fit exactly, the mean deviation says what is usual.
    spread = mad or float(np.abs(off).mean()) * 1.2533
    if spread <= 1e-12 * max(1.0, float(np.abs(y).max())):
        return []
    scores = np.abs(off) / spread
    return [
        Outlier(index=int(i), expected=float(expected[i]), score=float(scores[i]))
        for i in np.flatnonzero(scores > threshold)
    ]


def _expected(y: Floats, season: int) -> Floats:
    if season > 1 and len(y) >= 2 * season + 1:
        from statsmodels.tsa.seasonal import STL

        # A season that changes slowly: one that bends to single values would hide them.
        found = STL(y, period=season, seasonal=_SEASONAL, robust=True).fit()
        return np.asarray(found.trend + found.seasonal, float)
    half = max(2, min(7, len(y) // 8))
    padded = np.pad(y, half, mode="reflect")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1), float)


def matrix_profile(y: Floats, window: int) -> Floats:
    """Of each stretch of `window` values the z-normalised distance to the nearest other one (Yeh et al. 2016).

    Stretches that overlap by more than three quarters are not compared. Exact, in time n² · window. Two stretches
    without any change are alike; one without and one with are as far apart as two unrelated ones.
    """
    windows = np.lib.stride_tricks.sliding_window_view(y, window).astype(float)
    centred = windows - windows.mean(axis=1, keepdims=True)
    sd = centred.std(axis=1)
    flat = sd <= 1e-9 * max(1.0, float(np.abs(y).max()))
    unit = np.where(flat[:, None], 0.0, centred / np.where(flat, 1, sd)[:, None])
    n, near = len(unit), max(1, -(-window // 4))
    profile = np.empty(n)
    for start in range(0, n, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, n))
        squared = 2 * window - 2 * (unit[block] @ unit.T)
        squared[np.ix_(flat[block], flat)] = 0
        squared[np.ix_(flat[block], ~flat)] = squared[np.ix_(~flat[block], flat)] = window
        squared[np.abs(block[:, None] - np.arange(n)) <= near] = np.inf
        profile[block] = np.sqrt(np.maximum(squared.min(axis=1), 0))
    return profile


def discords(y: Floats, *, window: int, threshold: float, most: int = 5) -> list[Discord]:
    """Stretches that do not overlap, least like others first, beyond `threshold` robust deviations."""
    profile = matrix_profile(y, window)
    usual = float(np.median(profile))
    spread = float(np.median(np.abs(profile - usual))) * _MAD_TO_SD or 1e-9
    found: list[Discord] = []
    for i in np.argsort(-profile):
        score = (float(profile[i]) - usual) / spread
        if len(found) == most or score <= threshold:
            break
        if all(abs(int(i) - d.index) >= window for d in found):
            found.append(Discord(index=int(i), length=window, score=score))
    return found


def row_scores(rows: Floats, *, seed: int = 0) -> Floats:
    """Of each row how easily it is set apart, 0 to 1; about 0.5 where nothing is (Liu, Ting & Zhou 2008)."""
    from sklearn.ensemble import IsolationForest

    middle = np.nanmedian(rows, axis=0)
    whole = np.where(np.isnan(rows), middle, rows)
    return np.asarray(-IsolationForest(n_estimators=TREES, random_state=seed).fit(whole).score_samples(whole), float)
