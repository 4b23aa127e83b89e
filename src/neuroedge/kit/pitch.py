"""Pitch, periodicity and level of a voice, frame by frame.

P. Boersma (1993), "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a
sampled sound", IFA Proceedings 17: autocorrelation of the windowed signal divided by that of the window, candidates by
interpolation of its peaks, the best path by Viterbi. Windows, costs and thresholds are those of Praat's "To Pitch (ac)"
and "To Harmonicity (ac)", with which it is compared (benchmarks/prosody.py). Peaks are interpolated by zero-padding the
spectrum, which is sinc interpolation over the whole frame, then by a parabola.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats

Doubles = NDArray[np.float64]

HOP_S = 0.01
F0_FLOOR_HZ = 75.0
F0_CEILING_HZ = 600.0
PERIODS_PER_WINDOW = 3.0
"""Periods of the lowest pitch in a window, as the paper asks."""
HARMONICITY_PERIODS = 4.5
CANDIDATES = 14
VOICING_THRESHOLD = 0.45
SILENCE_THRESHOLD = 0.03
HARMONICITY_SILENCE_THRESHOLD = 0.1
OCTAVE_COST = 0.01
OCTAVE_JUMP_COST = 0.35
VOICING_CHANGE_COST = 0.14

_HOP = round(HOP_S * SAMPLE_RATE_HZ)
_FINER = 4
"""Steps of the interpolated autocorrelation to a sample."""
_BLOCK = 500
"""Frames analysed at once: bounds the memory for long recordings (about 50 MB)."""
_LARGEST_HNR_DB = 60.0
"""More is beyond what 16-bit samples can hold; a noiseless tone would give infinity."""


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

    def at(self, time_s: float) -> float:
        """Pitch at a time, linear between frames; NaN where the nearest frame has none."""
        if not len(self.time_s):
            return float("nan")
        place = (time_s - float(self.time_s[0])) / HOP_S
        near, last = round(place), len(self.time_s) - 1
        if near < 0 or near > last:
            return float("nan")
        other = min(max(near + (1 if place > near else -1), 0), last)
        here, there = float(self.f0_hz[near]), float(self.f0_hz[other])
        return here if np.isnan(here) or np.isnan(there) else here + abs(place - near) * (there - here)

    def voiced_runs(self) -> list[tuple[int, int]]:
        """Runs of voiced frames, as [first, after the last)."""
        return runs(np.isfinite(self.f0_hz))


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Stretches of True, as [first, after the last), in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def track(samples: Floats, *, floor_hz: float = F0_FLOOR_HZ, ceiling_hz: float = F0_CEILING_HZ) -> Track:
    """Analyse `samples` [n] (mono, 16 kHz): one frame each 10 ms; none when shorter than 3 periods of the floor."""
    frames = _Frames(samples, window_s=PERIODS_PER_WINDOW / floor_hz, floor_hz=floor_hz, gaussian=False)
    parts = []
    for block in frames.blocks():
        f0_hz, strength = _candidates(frames.autocorrelation(block), floor_hz, ceiling_hz)
        silence = np.maximum(0.0, 2 - frames.loudness(block) * (1 + VOICING_THRESHOLD) / SILENCE_THRESHOLD)
        strength = strength - OCTAVE_COST * np.log2(ceiling_hz / f0_hz)
        voiceless = np.full(len(f0_hz), np.nan)
        parts.append(
            (
                frames.level_db(block),
                np.column_stack([voiceless, f0_hz]),
                np.column_stack([VOICING_THRESHOLD + silence, strength]),
            )
        )
    if not parts:
        return Track(time_s=np.zeros(0), level_db=np.zeros(0), f0_hz=np.zeros(0))
    level_db, f0_hz, strength = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    chosen = _best_path(f0_hz, strength)
    return Track(time_s=frames.time_s(), level_db=level_db, f0_hz=f0_hz[np.arange(len(chosen)), chosen])


def harmonicity_db(
    samples: Floats, *, floor_hz: float = F0_FLOOR_HZ, ceiling_hz: float = F0_CEILING_HZ
) -> tuple[Doubles, Doubles]:
    """Times (s) and harmonics-to-noise ratio (dB, at most 60), one frame each 10 ms; NaN in silence.

    10 log10(r / (1 - r)) of the highest autocorrelation r at a lag of pitch (eq. 4), over a Gaussian window of 4.5
    periods of the floor. Of frames without voice the value says nothing.
    """
    # Twice as long as its name: a Gaussian's tails count little.
    frames = _Frames(samples, window_s=2 * HARMONICITY_PERIODS / floor_hz, floor_hz=floor_hz, gaussian=True)
    values = [np.zeros(0)]
    for block in frames.blocks():
        _, strength = _candidates(frames.autocorrelation(block), floor_hz, ceiling_hz, least=0.0)
        best = np.clip(strength.max(axis=1), 1e-6, 1 - 1e-6)
        hnr_db = np.minimum(10 * np.log10(best / (1 - best)), _LARGEST_HNR_DB)
        silent = 2 - frames.loudness(block) / HARMONICITY_SILENCE_THRESHOLD > best
        values.append(np.where(silent, np.nan, hnr_db))
    return frames.time_s(), np.concatenate(values)


class _Frames:
    """A waveform cut into overlapping frames, with what is measured of each."""

    def __init__(self, samples: Floats, *, window_s: float, floor_hz: float, gaussian: bool) -> None:
        self._size = 2 * (round(window_s * SAMPLE_RATE_HZ) // 2)
        self._lags = int(np.ceil(SAMPLE_RATE_HZ / floor_hz)) + 2
        self._fft = 1 << (self._size + self._lags).bit_length()
        self._window = _gauss(self._size) if gaussian else np.hanning(self._size + 2)[1:-1]
        self._own = self._raw(self._window[None])[0]
        whole = len(samples) >= self._size
        self._frames = np.lib.stride_tricks.sliding_window_view(samples, self._size)[::_HOP] if whole else None
        self._peak = float(np.abs(samples - samples.mean()).max()) if whole else 0.0
        period = self._lags // 2
        self._middle = slice(self._size // 2 - period, self._size // 2 + period)

    def time_s(self) -> Doubles:
        """Centres of the frames."""
        count = 0 if self._frames is None else len(self._frames)
        return (np.arange(count) * _HOP + self._size / 2) / SAMPLE_RATE_HZ

    def blocks(self) -> Iterator[Doubles]:
        """Frames [n, size] without their mean, block by block; each is made when it is asked for."""
        if self._frames is None:
            return
        for start in range(0, len(self._frames), _BLOCK):
            yield self._centred(self._frames[start : start + _BLOCK].astype(np.float64))

    def level_db(self, block: Doubles) -> Doubles:
        """Root mean square of each frame in dB of full scale (a full-scale sine is -3)."""
        levels: Doubles = 10 * np.log10(np.mean(block**2, axis=1) + 1e-12)
        return levels

    def loudness(self, block: Doubles) -> Doubles:
        """Peak within the longest period around each centre, over the waveform's own peak."""
        if self._peak <= 0:
            return np.zeros(len(block))
        loudness: Doubles = np.minimum(1.0, np.abs(block[:, self._middle]).max(axis=1) / self._peak)
        return loudness

    def autocorrelation(self, block: Doubles) -> Doubles:
        """Normalised [n, lags x 4], corrected for the window's own (eq. 9)."""
        corrected: Doubles = self._raw(block * self._window) / self._own
        return corrected

    def _centred(self, block: Doubles) -> Doubles:
        centred: Doubles = block - block.mean(axis=1, keepdims=True)
        return centred

    def _raw(self, windowed: Doubles) -> Doubles:
        power = np.abs(np.fft.rfft(windowed, self._fft, axis=1)) ** 2
        r = np.fft.irfft(power, self._fft * _FINER, axis=1)[:, : self._lags * _FINER]
        normalised: Doubles = r / np.maximum(r[:, :1], 1e-12)
        return normalised


def _gauss(size: int) -> Doubles:
    """Gaussian window that ends at zero, as Praat draws it."""
    place = (np.arange(size) + 1 - 0.5 * (size + 1)) / (size + 1)
    edge = np.exp(-12.0)
    window: Doubles = (np.exp(-48.0 * place**2) - edge) / (1 - edge)
    return window


def _candidates(
    r: Doubles, floor_hz: float, ceiling_hz: float, *, least: float = 0.5 * VOICING_THRESHOLD
) -> tuple[Doubles, Doubles]:
    """The strongest local maxima of each row above `least`: pitch in Hz and height (at most 1), [n, CANDIDATES].

    Where there are fewer, the pitch is the ceiling and the height minus infinity.
    """
    rate_hz = SAMPLE_RATE_HZ * _FINER
    first = max(1, int(rate_hz / ceiling_hz) - _FINER)
    middle, left, right = r[:, first:-1], r[:, first - 1 : -2], r[:, first + 1 :]
    is_peak = (middle > left) & (middle >= right) & (middle > least)
    curvature = np.where(is_peak, left - 2 * middle + right, -1.0)
    shift = np.where(is_peak, 0.5 * (left - right) / curvature, 0.0)
    f0_hz = rate_hz / (np.arange(first, r.shape[1] - 1) + shift)
    height = middle - 0.25 * (left - right) * shift
    # Above 1 is what the correction for the window overshoots; mirrored, as Praat does.
    height = np.where(height > 1, 1 / np.maximum(height, 1), height)
    usable = is_peak & (f0_hz >= floor_hz) & (f0_hz <= ceiling_hz)
    rank = np.where(usable, height - OCTAVE_COST * np.log2(floor_hz / f0_hz), -np.inf)
    best = np.argpartition(-rank, CANDIDATES, axis=1)[:, :CANDIDATES]
    found = np.take_along_axis(usable, best, axis=1)
    return (
        np.where(found, np.take_along_axis(f0_hz, best, axis=1), ceiling_hz),
        np.where(found, np.take_along_axis(height, best, axis=1), -np.inf),
    )


def _best_path(f0_hz: Doubles, strength: Doubles) -> NDArray[np.intp]:
    """Viterbi: the candidate of each frame that maximises strength minus the costs of jumps (eq. 27-28)."""
    octaves = np.log2(np.nan_to_num(f0_hz, nan=F0_FLOOR_HZ))
    back = np.zeros(f0_hz.shape, dtype=np.intp)
    total = strength[0].copy()
    columns = np.arange(f0_hz.shape[1])
    for t in range(1, len(f0_hz)):
        jump = OCTAVE_JUMP_COST * np.abs(octaves[t - 1, :, None] - octaves[t, None, :])
        jump[0, :] = jump[:, 0] = VOICING_CHANGE_COST
        jump[0, 0] = 0.0
        reached = total[:, None] - jump
        back[t] = reached.argmax(axis=0)
        total = reached[back[t], columns] + strength[t]
    path = np.zeros(len(f0_hz), dtype=np.intp)
    path[-1] = total.argmax()
    for t in range(len(f0_hz) - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    return path
