"""Loudness and pitch of speech, frame by frame.

Pitch: P. Boersma (1993), "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of
a sampled sound", IFA Proceedings 17: autocorrelation of the windowed signal divided by that of the window, candidates
by parabolic interpolation, the best path by Viterbi. Cost constants are the paper's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

SAMPLE_RATE_HZ = 16_000
HOP_S = 0.01
WINDOW_S = 0.04
"""Three periods of the lowest pitch, as the paper asks: 3 / 75 Hz."""
F0_MIN_HZ = 75.0
F0_MAX_HZ = 500.0
CANDIDATES = 4
VOICING_THRESHOLD = 0.45
SILENCE_THRESHOLD = 0.03
OCTAVE_COST = 0.01
OCTAVE_JUMP_COST = 0.35
VOICING_CHANGE_COST = 0.14

_WINDOW = round(WINDOW_S * SAMPLE_RATE_HZ)
_HOP = round(HOP_S * SAMPLE_RATE_HZ)
_LAG_MIN = int(SAMPLE_RATE_HZ / F0_MAX_HZ)
_LAG_MAX = int(np.ceil(SAMPLE_RATE_HZ / F0_MIN_HZ))
_FFT = 1 << (_WINDOW + _LAG_MAX + 1).bit_length()
_BLOCK = 2000
"""Frames analysed at once: bounds the memory for long recordings (about 50 MB)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """Frames of one waveform, all arrays [frames]: centre in seconds, level in dB re full scale, pitch in Hz.

    `f0_hz` is NaN where the voice is not periodic (silence, noise, voiceless consonants).
    """

    time_s: Doubles
    level_db: Doubles
    f0_hz: Doubles

    def between(self, start_s: float, end_s: float) -> "Track":
        """The frames whose centre lies in [start_s, end_s)."""
        first, last = np.searchsorted(self.time_s, [start_s, end_s])
        return Track(time_s=self.time_s[first:last], level_db=self.level_db[first:last], f0_hz=self.f0_hz[first:last])


def track(samples: Floats) -> Track:
    """Analyse `samples` [n] (mono, 16 kHz): one frame each 10 ms; no frames when shorter than 40 ms."""
    if len(samples) < _WINDOW:
        empty = np.zeros(0)
        return Track(time_s=empty, level_db=empty, f0_hz=empty)
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    peak_all = float(np.abs(samples - samples.mean()).max())
    parts = [_analyse(frames[i : i + _BLOCK].astype(np.float64), peak_all) for i in range(0, len(frames), _BLOCK)]
    level_db, f0_hz, strength = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    chosen = _best_path(f0_hz, strength)
    return Track(
        time_s=(np.arange(len(frames)) * _HOP + _WINDOW / 2) / SAMPLE_RATE_HZ,
        level_db=level_db,
        f0_hz=f0_hz[np.arange(len(frames)), chosen],
    )


def _analyse(frames: Doubles, peak_all: float) -> tuple[Doubles, Doubles, Doubles]:
    """Level [n], candidate pitches and strengths [n, 1 + CANDIDATES]; candidate 0 is "no voice" (NaN)."""
    frames = frames - frames.mean(axis=1, keepdims=True)
    level_db = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    correlation = _autocorrelation(frames)
    f0_hz, strength = _candidates(correlation)
    loudness = np.abs(frames).max(axis=1) / peak_all if peak_all > 0 else np.zeros(len(frames))
    silence = np.maximum(0.0, 2 - loudness * (1 + VOICING_THRESHOLD) / SILENCE_THRESHOLD)
    return (
        level_db,
        np.column_stack([np.full(len(frames), np.nan), f0_hz]),
        np.column_stack([VOICING_THRESHOLD + silence, strength]),
    )


def _autocorrelation(frames: Doubles) -> Doubles:
    """Normalised autocorrelation [n, lags 0.._LAG_MAX + 1], corrected for the Hann window's own (eq. 9)."""
    window = np.hanning(_WINDOW + 2)[1:-1]
    both = np.vstack([frames * window, window])
    power = np.abs(np.fft.rfft(both, _FFT, axis=1)) ** 2
    r = np.fft.irfft(power, axis=1)[:, : _LAG_MAX + 2]
    r = r / np.maximum(r[:, :1], 1e-12)
    corrected: Doubles = r[:-1] / r[-1]
    return corrected


def _candidates(r: Doubles) -> tuple[Doubles, Doubles]:
    """The strongest local maxima of each row: pitch in Hz and strength, [n, CANDIDATES] (strength -inf: none)."""
    middle, left, right = r[:, _LAG_MIN:-1], r[:, _LAG_MIN - 1 : -2], r[:, _LAG_MIN + 1 :]
    is_peak = (middle > left) & (middle >= right) & (middle > 0.5 * VOICING_THRESHOLD)
    curvature = np.where(is_peak, left - 2 * middle + right, -1.0)
    shift = np.where(is_peak, 0.5 * (left - right) / curvature, 0.0)
    f0_hz = SAMPLE_RATE_HZ / (np.arange(_LAG_MIN, r.shape[1] - 1) + shift)
    height = np.minimum(middle - 0.25 * (left - right) * shift, 1.0)
    in_range = is_peak & (f0_hz >= F0_MIN_HZ) & (f0_hz <= F0_MAX_HZ)
    strength = np.where(in_range, height - OCTAVE_COST * np.log2(F0_MIN_HZ / f0_hz), -np.inf)
    best = np.argpartition(-strength, CANDIDATES, axis=1)[:, :CANDIDATES]
    return np.take_along_axis(f0_hz, best, axis=1), np.take_along_axis(strength, best, axis=1)


def _best_path(f0_hz: Doubles, strength: Doubles) -> NDArray[np.intp]:
    """Viterbi: the candidate of each frame that maximises strength minus the costs of jumps (eq. 27-28)."""
    octaves = np.log2(np.nan_to_num(f0_hz, nan=F0_MIN_HZ))
    jump = OCTAVE_JUMP_COST * np.abs(octaves[:-1, :, None] - octaves[1:, None, :])
    jump[:, 0, :] = jump[:, :, 0] = VOICING_CHANGE_COST
    jump[:, 0, 0] = 0.0
    back = np.zeros(f0_hz.shape, dtype=np.intp)
    total = strength[0].copy()
    columns = np.arange(f0_hz.shape[1])
    for t in range(1, len(f0_hz)):
        reached = total[:, None] - jump[t - 1]
        back[t] = reached.argmax(axis=0)
        total = reached[back[t], columns] + strength[t]
    path = np.zeros(len(f0_hz), dtype=np.intp)
    path[-1] = total.argmax()
    for t in range(len(f0_hz) - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    return path
