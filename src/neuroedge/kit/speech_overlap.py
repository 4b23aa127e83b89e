"""Where two may speak at once, from the posterior probabilities of a diarization.

A vector of 1.6 s in which two voices are mixed lies between theirs; so does one that holds a change from one to the
other. The two cannot be told apart by it, so that what is found here is a hint: benchmarks/overlap.py measures how much
of it is overlap, and how much overlap it finds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """A stretch in which two may speak at once; `p` is the second one's mean posterior probability, doubled."""

    speakers: tuple[str, str]
    start_s: float
    end_s: float
    p: float


def possible_overlaps(
    times_s: Numbers,
    after_pause: NDArray[np.bool_],
    posteriors: Numbers,
    speakers: Sequence[str],
    *,
    step_s: float,
    at_least_p: float,
    at_least_s: float,
) -> list[Overlap]:
    """Runs of frames without a pause whose second speaker is likely enough, with the pair likeliest over the run.

    `posteriors` [frames, speakers] belong to frames of `step_s` around `times_s`, in order.
    """
    if len(speakers) < 2:
        return []
    second = np.partition(posteriors, -2, axis=1)[:, -2]
    likely = second >= at_least_p
    starts = np.flatnonzero(likely & (after_pause | ~np.concatenate([[False], likely[:-1]])))
    breaks = np.flatnonzero(~likely | after_pause)
    found = []
    for first in starts.tolist():
        after = int(np.searchsorted(breaks, first, "right"))
        stop = int(breaks[after]) if after < len(breaks) else len(likely)
        start_s, end_s = float(times_s[first]) - step_s / 2, float(times_s[stop - 1]) + step_s / 2
        if end_s - start_s < at_least_s - 1e-9:
            continue
        pair = np.argsort(-posteriors[first:stop].mean(axis=0), kind="stable")[:2]
        names = sorted(speakers[i] for i in pair)
        p = min(1.0, 2 * float(second[first:stop].mean()))
        found.append(Overlap(speakers=(names[0], names[1]), start_s=max(0.0, start_s), end_s=end_s, p=p))
    return found
