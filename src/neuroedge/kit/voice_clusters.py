"""Which clusters of speaker vectors are one voice, and which are none: two voices at once, or a sound.

These questions are put so that their answers do not depend on the length of a recording: the resultant length that a
union loses (Ward's criterion on the sphere, Banerjee et al. 2005) grows with the seconds of speech, so that any two
halves of one voice's hour lose more by it than two speakers of half a minute.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Labels = NDArray[np.intp]


_LEAST_S = 0.75
"""Who is only heard for less than that at a time is not heard: a vector is of 1.6 s."""
_MIXTURE_S = 2.0
_MIXTURE_COSINE = 0.85
_MIXTURE_SHARE = 0.3
"""Two voices at once: how long their stretches are at most, how near to a sum of both, and the least part of each."""


def likest_pair(sums: Numbers, *, cost: float, cosine: float) -> tuple[int, int, float]:
    """The two clusters that are likest to be one voice, and how far that is from being doubtful (1).

    `sums` [clusters, dim], at least two, are the sums of the vectors of each. A union is doubtful when it loses `cost`
    of resultant length or when the cosine of the two directions is `cosine`, whichever allows more: the first rules
    where there is little speech, whose direction is not known well, the second where there is much.
    """
    lengths = np.linalg.norm(sums, axis=1)
    one, other = lengths[:, None], lengths[None]
    lost = one + other - np.linalg.norm(sums[:, None] + sums[None], axis=-1)
    allowed = one + other - np.sqrt(one**2 + other**2 + 2 * cosine * one * other)
    ratios = lost / np.maximum(cost, allowed)
    np.fill_diagonal(ratios, np.inf)
    i, j = np.unravel_index(int(ratios.argmin()), ratios.shape)
    return int(i), int(j), float(ratios[i, j])


def not_a_voice(directions: Numbers, labels: Labels, *, frame_s: float) -> int | None:
    """The smallest cluster that is no voice of its own; None when there is none.

    `directions` [clusters, dim] are unit vectors, `labels` [frames] the cluster of each frame of `frame_s`. How long a
    cluster is heard at a time (by the time-weighted mean) tells: what is always over at once is a sound, what is always
    short and lies between two voices that speak more is the two speaking at once. Somebody who only ever interjects,
    and whose voice lies between two others', is taken for that.
    """
    sizes = np.bincount(labels, minlength=len(directions))
    lengths = _usual_stretch(labels, len(directions)) * frame_s
    for k in np.argsort(sizes, kind="stable").tolist():
        if lengths[k] < _LEAST_S and sizes[k] < sizes.max():
            return int(k)
        others = [i for i in range(len(directions)) if i != k and sizes[i] > sizes[k]]
        between = any(_is_between(directions[k], directions[[i, j]]) for i, j in combinations(others, 2))
        if lengths[k] <= _MIXTURE_S and between:
            return int(k)
    return None


def _usual_stretch(labels: Labels, count: int) -> Numbers:
    """Frames of the stretch in which a frame of each cluster lies, on average [count]."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(labels)) + 1, [len(labels)]])
    lengths, owners = np.diff(edges).astype(np.float64), labels[edges[:-1]]
    total = np.bincount(owners, lengths, minlength=count)
    usual: Numbers = np.bincount(owners, lengths**2, minlength=count) / np.maximum(total, 1.0)
    return usual


def _is_between(direction: Numbers, two: Numbers) -> bool:
    """Whether a direction is near a sum of two others, each with its share."""
    apart = float(two[0] @ two[1])
    near = two @ direction
    parts = (near - apart * near[::-1]) / max(1 - apart**2, 1e-9)
    if parts.min() <= 0 or parts.min() < _MIXTURE_SHARE * parts.sum():
        return False
    return float(near @ parts) >= _MIXTURE_COSINE**2
