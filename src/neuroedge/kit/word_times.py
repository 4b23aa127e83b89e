"""Word times freed of the silence that a recogniser counts to a word at a pause.

Whisper's word times come from its attention, which knows no silence: the first word after a pause may begin in it, the
last one before may end in it. Each word is cut back to its own sound: what lies at its ends, much softer than its
loudest moment and hardly louder than the softest moments around it, is not the word. Words only get shorter.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats

Stretch = tuple[float, float]
"""Start and end in seconds."""

_FRAME = SAMPLE_RATE_HZ // 100
_BELOW_PEAK_DB = 30.0
_ABOVE_FLOOR_DB = 10.0
_LEAST_S = 0.06
"""No word is cut to less."""
_MARGIN_S = 0.03
"""Left before and after the sound, for soft beginnings and ends."""
_AROUND_S = 3.0
"""The softest moments are looked for in so much around a word."""


def trimmed(words: Sequence[Stretch], samples: Floats) -> list[Stretch]:
    """The stretches of `words` in `samples` [n] at 16 kHz, without the silence at their ends, in the same order."""
    return [_trimmed(start_s, end_s, samples) for start_s, end_s in words]


def _trimmed(start_s: float, end_s: float, samples: Floats) -> Stretch:
    first = max(0, int((start_s - _AROUND_S) * SAMPLE_RATE_HZ) // _FRAME * _FRAME)
    levels = _levels_db(samples[first : int((end_s + _AROUND_S) * SAMPLE_RATE_HZ)])
    begin, end = (round((at * SAMPLE_RATE_HZ - first) / _FRAME) for at in (start_s, end_s))
    own = levels[begin:end]
    if len(own) * 0.01 <= _LEAST_S:
        return start_s, end_s
    limit = max(float(own.max()) - _BELOW_PEAK_DB, float(np.percentile(levels, 5)) + _ABOVE_FLOOR_DB)
    heard = np.flatnonzero(own >= limit)
    if not len(heard):
        return start_s, end_s
    start = max(start_s, start_s + int(heard[0]) * 0.01 - _MARGIN_S)
    end_of_it = min(end_s, start_s + (int(heard[-1]) + 1) * 0.01 + _MARGIN_S)
    return (start, end_of_it) if end_of_it - start >= _LEAST_S else (start_s, end_s)


def _levels_db(samples: Floats) -> NDArray[np.float64]:
    """Level of each 10 ms, the last one as far as it goes, dB of full scale."""
    if not len(samples):
        return np.zeros(0)
    starts = np.arange(0, len(samples), _FRAME)
    power = np.add.reduceat(np.square(samples, dtype=np.float64), starts) / np.diff([*starts, len(samples)])
    return np.asarray(10 * np.log10(power + 1e-10))
