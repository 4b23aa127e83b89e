"""Jitter and shimmer of a voice from its single periods.

Periods as Praat's "To PointProcess (cc)" finds them: from the middle of a voiced stretch outwards, each next period
where the waveform correlates best with the one before, 0.8 to 1.25 periods of the pitch track away. Jitter (local) and
shimmer (local) as Praat defines them: mean absolute difference of consecutive periods (of their windowed RMS) over the
mean. They mean something on sustained vowels only: in running speech they follow intonation and consonants (I. R. Titze
1995, "Workshop on acoustic voice analysis", asks for a hundred cycles of a steady vowel). No threshold of pathology.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit.pitch import HOP_S, Doubles, Track, runs
from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats, Span

SHORTEST_PERIOD_S = 0.0001
LONGEST_PERIOD_S = 0.02
PERIOD_FACTOR = 1.3
AMPLITUDE_FACTOR = 1.6
MIN_SUSTAINED_S = 1.0
"""A hundred cycles of a low voice."""
SUSTAINED_RANGE_ST = 3.0
"""Most semitones from the 5th to the 95th percentile of a sustained vowel's pitch."""
SUSTAINED_CHANGE_DB = 3.0
"""Most difference of the spectral envelope (RMS over bands) from its median for a frame to be the same vowel."""

_LEAST_CORRELATION = 0.3
_LEAST_CORRELATION_AT_EDGE = 0.7
_LEAST_PEAK = 0.01
_LEAST_PEAK_AT_EDGE = 0.023333


def pulses(samples: Floats, voice: Track) -> Doubles:
    """Times (s) of one point in each period of the voiced stretches of `samples` [n], ascending."""
    x = samples.astype(np.float64) - float(samples.mean()) if len(samples) else np.zeros(0)
    search = _Search(x, voice)
    found: list[float] = []
    for first, after in voice.voiced_runs():
        start_s, end_s = float(voice.time_s[first]) - HOP_S / 2, float(voice.time_s[after - 1]) + HOP_S / 2
        found += search.stretch(start_s, end_s, last_s=found[-1] if found else float("-inf"))
    return np.array(found)


class _Search:
    """Finds the periods of voiced stretches."""

    def __init__(self, x: Doubles, voice: Track) -> None:
        self._x = x
        self._squares = np.concatenate([[0.0], np.cumsum(x**2)])
        self._peak = float(np.abs(x).max()) if len(x) else 0.0
        self._voice = voice

    def stretch(self, start_s: float, end_s: float, *, last_s: float) -> list[float]:
        """Points from the middle to both ends, ascending; none nearer than a period to `last_s`."""
        middle_s = (start_s + end_s) / 2
        f0_hz = self._voice.at(middle_s)
        if np.isnan(f0_hz):
            return []
        lowest = max(0, round((middle_s - 0.5 / f0_hz) * SAMPLE_RATE_HZ))
        around = np.abs(self._x[lowest : round((middle_s + 0.5 / f0_hz) * SAMPLE_RATE_HZ) + 1])
        if not len(around) or around.max() == 0:
            return []
        anchor_s = (lowest + int(around.argmax())) / SAMPLE_RATE_HZ
        before = self._walk(anchor_s, start_s, step=-1, last_s=last_s)
        return [*reversed(before), anchor_s, *self._walk(anchor_s, end_s, step=1, last_s=last_s)]

    def _walk(self, at_s: float, edge_s: float, *, step: int, last_s: float) -> list[float]:
        """Points from `at_s`, which is not one of them, up to the edge and at most one beyond."""
        points: list[float] = []
        while True:
            f0_hz = self._voice.at(at_s)
            if np.isnan(f0_hz):
                return points
            near, far = at_s + step * 0.8 / f0_hz, at_s + step * 1.25 / f0_hz
            match = self._best(at_s, 1 / f0_hz, min(near, far), max(near, far))
            at_s, correlation, peak = match or (at_s + step / f0_hz, -1.0, -1.0)
            outside = at_s < edge_s if step < 0 else at_s > edge_s
            least_r = _LEAST_CORRELATION_AT_EDGE if outside else _LEAST_CORRELATION
            least_peak = (_LEAST_PEAK_AT_EDGE if outside else _LEAST_PEAK) * self._peak
            if correlation > least_r and peak > least_peak and at_s - last_s > 0.8 / f0_hz:
                points.append(at_s)
            if outside:
                return points

    def _best(self, at_s: float, period_s: float, low_s: float, high_s: float) -> tuple[float, float, float] | None:
        """Time, correlation and peak of the period that is most like the one at `at_s`; None without one in range."""
        half = period_s / 2
        own = round((at_s - half) * SAMPLE_RATE_HZ)
        size = round((at_s + half) * SAMPLE_RATE_HZ) - own + 1
        first = int(np.floor((low_s - half) * SAMPLE_RATE_HZ))
        last = int(np.ceil((high_s - half) * SAMPLE_RATE_HZ))
        if min(own, first) < 0 or max(own, last) + size > len(self._x):
            return None
        product = np.correlate(self._x[first : last + size], self._x[own : own + size], "valid")
        power = self._squares[first + size : last + size + 1] - self._squares[first : last + 1]
        own_power = self._squares[own + size] - self._squares[own]
        r = product / np.sqrt(np.maximum(power * own_power, 1e-30))
        tops = np.flatnonzero((r[1:-1] >= r[:-2]) & (r[1:-1] >= r[2:])) + 1
        if not len(tops):
            return None
        top = int(tops[r[tops].argmax()])
        left, middle, right = float(r[top - 1]), float(r[top]), float(r[top + 1])
        curvature = 2 * middle - left - right
        shift = 0.5 * (right - left) / curvature if curvature > 0 else 0.0
        peak = float(np.abs(self._x[first + top : first + top + size]).max())
        height = middle + 0.25 * (right - left) * shift
        return at_s + (first + top + shift - own) / SAMPLE_RATE_HZ, height, peak


def jitter_local(times_s: Doubles) -> float | None:
    """Mean absolute difference of consecutive periods over the mean period (0..); None with fewer than 3 periods."""
    periods = np.diff(times_s)
    alike = _alike(periods)
    if alike.sum() < 2:
        return None
    differences = np.abs(np.diff(periods))[alike]
    lengths = periods[_plausible(periods)]
    return float(differences.mean() / lengths.mean())


def shimmer_local(samples: Floats, times_s: Doubles) -> float | None:
    """Mean absolute difference of consecutive periods' amplitudes over their mean; None with fewer than 3."""
    periods = np.diff(times_s)
    usable = np.flatnonzero(_alike(periods)) + 1
    points = times_s[usable]
    reach_s = 0.2 * periods[usable - 1]
    levels = np.array([_hann_rms(samples, float(t), float(half)) for t, half in zip(points, reach_s, strict=True)])
    if len(levels) < 3:
        return None
    factor = np.maximum(levels[1:], levels[:-1]) / np.maximum(np.minimum(levels[1:], levels[:-1]), 1e-12)
    near = _plausible(np.diff(points)) & (factor <= AMPLITUDE_FACTOR)
    if near.sum() < 2:
        return None
    return float(np.abs(np.diff(levels))[near].mean() / levels.mean())


def _plausible(periods: Doubles) -> NDArray[np.bool_]:
    return (periods >= SHORTEST_PERIOD_S) & (periods <= LONGEST_PERIOD_S)


def _alike(periods: Doubles) -> NDArray[np.bool_]:
    """Whether each pair of consecutive periods counts: both of a voice, neither 1.3 times the other."""
    if len(periods) < 2:
        return np.zeros(0, bool)
    one, two = periods[:-1], periods[1:]
    return _plausible(one) & _plausible(two) & (np.maximum(one, two) <= PERIOD_FACTOR * np.minimum(one, two))


def _hann_rms(samples: Floats, at_s: float, half_s: float) -> float:
    first = max(0, int(np.ceil((at_s - half_s) * SAMPLE_RATE_HZ)))
    last = min(len(samples) - 1, int(np.floor((at_s + half_s) * SAMPLE_RATE_HZ)))
    if last - first < 2:
        return 0.0
    place = (np.arange(first, last + 1) / SAMPLE_RATE_HZ - at_s) / half_s
    window = 0.5 + 0.5 * np.cos(np.pi * place)
    return float(np.sqrt(np.sum((samples[first : last + 1] * window) ** 2) / np.sum(window**2)))


def sustained_vowel(voice: Track, envelope_db: Doubles) -> Span | None:
    """The longest stretch of at least 1 s in which pitch and spectral envelope stay those of one steady vowel.

    `envelope_db` [frames, bands] holds the envelope at the frames of `voice`.
    """
    parts = [
        (first + start, first + end)
        for first, after in voice.voiced_runs()
        for start, end in _steady_parts(envelope_db[first:after])
    ]
    first, after = max(parts, key=lambda part: part[1] - part[0], default=(0, 0))
    if (after - first) * HOP_S < MIN_SUSTAINED_S or _range_st(voice.f0_hz[first:after]) > SUSTAINED_RANGE_ST:
        return None
    return Span(start_s=float(voice.time_s[first]), end_s=float(voice.time_s[after - 1]))


def _steady_parts(envelope_db: Doubles) -> Sequence[tuple[int, int]]:
    if len(envelope_db) * HOP_S < MIN_SUSTAINED_S:
        return []
    usual = np.median(envelope_db, axis=0)
    apart = np.sqrt(np.mean((envelope_db - usual) ** 2, axis=1))
    smooth = np.convolve(np.pad(apart, 2, mode="edge"), np.full(5, 0.2), "valid")
    return runs(smooth < SUSTAINED_CHANGE_DB)


def _range_st(f0_hz: Doubles) -> float:
    low, high = np.percentile(f0_hz, [5, 95])
    return 12 * float(np.log2(high / low))
