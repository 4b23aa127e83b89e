"""A vector of a picture by colour and edges, for pictures that look alike; it knows nothing of what they show.

Half of it is a histogram of hue, saturation and value (Swain & Ballard 1991), half are histograms of gradient
directions in 4 × 4 cells (after Dalal & Triggs 2005); both as roots of shares (Hellinger), so that the dot product of
two vectors is the mean of two Bhattacharyya coefficients: 1 for equal pictures, 0 for such that share nothing.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit.image_facts import Pixels, grey, resized

NAME: Final = "colour-gradient-1"
_HUES, _SATURATIONS, _VALUES = 12, 3, 4
_CELLS, _DIRECTIONS = 4, 8
_SIDE: Final = 128
DIM: Final = _HUES * _SATURATIONS * _VALUES + _CELLS * _CELLS * _DIRECTIONS
_FAINT: Final = 0.02
"""Gradient of luma, per pixel, below which there is no edge but noise."""


def descriptor(pixels: Pixels) -> NDArray[np.float32]:
    """Float32 [272], L2-normalised."""
    small = resized(pixels.astype(np.float64), _SIDE, _SIDE)
    both = np.concatenate([_colours(small / 255), _edges(grey(small.astype(np.uint8)))])
    return np.asarray(both / np.linalg.norm(both), np.float32)


def _colours(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    high, low = rgb.max(axis=2), rgb.min(axis=2)
    spread = high - low
    red, green, blue = rgb[:, :, 0], rgb[:, :, 1], rgb[:, :, 2]
    safe = np.where(spread > 0, spread, 1)
    hue = np.where(
        high == red,
        (green - blue) / safe % 6,
        np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    saturation = np.divide(spread, high, out=np.zeros_like(high), where=high > 0)
    bins = [
        _binned(np.where(spread > 0, hue, 0) / 6, _HUES),
        _binned(saturation, _SATURATIONS),
        _binned(high, _VALUES),
    ]
    place = (bins[0] * _SATURATIONS + bins[1]) * _VALUES + bins[2]
    counts = np.bincount(place.ravel(), minlength=_HUES * _SATURATIONS * _VALUES)
    return np.asarray(np.sqrt(counts / counts.sum()))


def _binned(values: NDArray[np.float64], bins: int) -> NDArray[np.intp]:
    return np.clip((values * bins).astype(np.intp), 0, bins - 1)


def _edges(light: NDArray[np.float64]) -> NDArray[np.float64]:
    down, right = np.gradient(light)
    strength = np.hypot(down, right)
    strength[strength < _FAINT] = 0
    # Dark on light and light on dark are the same edge.
    direction = _binned(np.arctan2(down, right) % np.pi / np.pi, _DIRECTIONS)
    cell = np.arange(_SIDE) * _CELLS // _SIDE
    place = (cell[:, None] * _CELLS + cell[None, :]) * _DIRECTIONS + direction
    sums = np.bincount(place.ravel(), weights=strength.ravel(), minlength=_CELLS * _CELLS * _DIRECTIONS)
    total = sums.sum()
    return np.sqrt(sums / total) if total else np.full(len(sums), len(sums) ** -0.5)
