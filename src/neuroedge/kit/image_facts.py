"""What can be measured of a picture without a model: light, contrast, sharpness, colours, fingerprints.

Pixels are uint8 [height, width, 3]: red, green, blue. Light is luma of ITU-R BT.601, 0 to 1.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Grey = NDArray[np.float64]
_LUMA: Final = np.array([0.299, 0.587, 0.114])
_HASH_SIDE: Final = 8
_HASH_SEEN: Final = 32
_CLUSTER_SIDE: Final = 64
_ROUNDS: Final = 12
_SAME_COLOUR: Final = 24.0
"""Distance in 8-bit RGB under which two centres are one colour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Colour:
    """A colour and the part of the picture near it."""

    rgb: tuple[int, int, int]
    share: float

    @property
    def hex(self) -> str:
        """As HTML writes it."""
        return "#{:02x}{:02x}{:02x}".format(*self.rgb)


def grey(pixels: Pixels) -> Grey:
    """Luma [height, width], 0 to 1."""
    return np.asarray(pixels @ _LUMA / 255)


def brightness(light: Grey) -> float:
    """Mean luma, 0 (black) to 1 (white)."""
    return float(light.mean())


def contrast(light: Grey) -> float:
    """Standard deviation of luma: 0 for one grey, 0.5 for black and white in halves."""
    return float(light.std())


def sharpness(light: Grey) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000) of luma in 0 to 255; 0 where a side is under 3 pixels."""
    if min(light.shape) < 3:
        return 0.0
    centre = 255 * light
    laplacian = centre[:-2, 1:-1] + centre[2:, 1:-1] + centre[1:-1, :-2] + centre[1:-1, 2:] - 4 * centre[1:-1, 1:-1]
    return float(laplacian.var())


def colourfulness(pixels: Pixels) -> float:
    """M of Hasler & Süsstrunk 2003: 0 grey, 15 slightly, 33 moderately, 59 quite, 109 extremely colourful."""
    red, green, blue = (pixels[:, :, i].astype(np.float64) for i in range(3))
    first, second = red - green, (red + green) / 2 - blue
    spread = np.hypot(first.std(), second.std())
    return float(spread + 0.3 * np.hypot(first.mean(), second.mean()))


def dominant_colours(pixels: Pixels, *, most: int = 5) -> list[Colour]:
    """Centres of k-means over the picture reduced to 64 × 64, the commonest first; near ones are one."""
    points = resized(pixels.astype(np.float64), _CLUSTER_SIDE, _CLUSTER_SIDE).reshape(-1, 3)
    centres = _far_apart(points, most)
    for _ in range(_ROUNDS):
        nearest = _nearest(points, centres)
        centres = np.array(
            [points[nearest == i].mean(axis=0) if np.any(nearest == i) else c for i, c in enumerate(centres)]
        )
    nearest = _nearest(points, centres)
    shares = np.bincount(nearest, minlength=len(centres)) / len(points)
    order = np.argsort(-shares, kind="stable")
    return [Colour(rgb=_rounded(centres[i]), share=round(float(shares[i]), 4)) for i in order if shares[i] >= 0.005]


def _far_apart(points: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Centres to begin with: the mean's nearest, then always the point farthest from those chosen."""
    chosen = [points[np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1))]]
    while len(chosen) < most:
        distance = np.min([np.linalg.norm(points - centre, axis=1) for centre in chosen], axis=0)
        if distance.max() < _SAME_COLOUR:
            break
        chosen.append(points[np.argmax(distance)])
    return np.array(chosen)


def _nearest(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.asarray(np.argmin(np.linalg.norm(points[:, None] - centres[None], axis=2), axis=1))


def _rounded(centre: NDArray[np.float64]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in np.clip(np.round(centre), 0, 255))
    return red, green, blue


def resized(values: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Brought to [height, width, …]: means of areas where it shrinks, the nearest pixels where it grows."""
    return _along(_along(values, height, axis=0), width, axis=1)


def _along(values: NDArray[Any], size: int, *, axis: int) -> NDArray[np.float64]:
    before = values.shape[axis]
    if before < size:
        return np.asarray(values.take(np.arange(size) * before // size, axis=axis), np.float64)
    edges = np.arange(size + 1) * before // size
    sums = np.add.reduceat(values, edges[:-1], axis=axis)
    counts = np.diff(edges).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    return np.asarray(sums / counts, np.float64)


def perceptual_hash(light: Grey) -> int:
    """64 bits by the low frequencies of a cosine transform (pHash, Zauner 2010): near pictures differ in few bits.

    Each bit tells whether a coefficient of the 8 × 8 lowest, but the mean, lies above their median.
    """
    from scipy.fft import dctn

    coefficients = dctn(resized(light, _HASH_SEEN, _HASH_SEEN), norm="ortho")[:_HASH_SIDE, :_HASH_SIDE].ravel()
    # What rounding leaves of a plain picture's frequencies must not decide bits.
    coefficients[np.abs(coefficients) < 1e-9] = 0.0
    bits = coefficients > np.median(coefficients[1:])
    bits[0] = False
    return int("".join("1" if bit else "0" for bit in bits), 2)


def hash_distance(one: int, other: int) -> int:
    """Bits in which two hashes differ, 0 to 64."""
    return (one ^ other).bit_count()
