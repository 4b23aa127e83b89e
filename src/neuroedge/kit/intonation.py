"""Intonation: a pitch track thinned for drawing, and how a phrase ends."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from neuroedge.kit.pitch import HOP_S, Track
from neuroedge.kit.waveform import Span

Final = Literal["rise", "fall", "level"]
FINAL_S = 0.3
MIN_FINAL_VOICED_S = 0.1
NOTICEABLE_ST = 2.0
"""Smaller movements hardly count in speech (J. 't Hart 1981, "Differential sensitivity to pitch distance", JASA 69)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A stretch of a contour: its middle (s), median pitch (Hz, None without voice) and mean level (dB)."""

    time_s: float
    f0_hz: float | None
    level_db: float


def contour(voice: Track, points: int) -> list[Point]:
    """At most `points` equal stretches of a track, in order."""
    count = min(points, len(voice.time_s))
    if count < 1:
        return []
    drawn = []
    for frames in np.array_split(np.arange(len(voice.time_s)), count):
        f0_hz = voice.f0_hz[frames]
        voiced = f0_hz[np.isfinite(f0_hz)]
        drawn.append(
            Point(
                time_s=float(voice.time_s[frames].mean()),
                f0_hz=float(np.median(voiced)) if 2 * len(voiced) >= len(frames) else None,
                level_db=float(10 * np.log10(np.mean(10 ** (voice.level_db[frames] / 10)))),
            )
        )
    return drawn


def final_movement_st(voice: Track, phrase: Span) -> float | None:
    """Semitones that pitch moves (straight line) over the last 0.3 s of voice of a phrase; None with less than 0.1 s.

    Pitch is tracked by its path, but a creaky end may still be read an octave off: frames more than 7 semitones from
    the median of the stretch are left out.
    """
    inside = voice.between(phrase.start_s, phrase.end_s)
    voiced = np.flatnonzero(np.isfinite(inside.f0_hz))
    if not len(voiced):
        return None
    last = voiced[inside.time_s[voiced] > inside.time_s[voiced[-1]] - FINAL_S]
    tones = 12 * np.log2(inside.f0_hz[last])
    kept = np.abs(tones - np.median(tones)) <= 7
    times = inside.time_s[last][kept]
    if len(times) * HOP_S < MIN_FINAL_VOICED_S:
        return None
    slope = float(np.polyfit(times - times.mean(), tones[kept], 1)[0])
    return slope * float(times[-1] - times[0])


def final(movement_st: float | None) -> Final | None:
    """How a phrase ends by its last movement."""
    if movement_st is None:
        return None
    if abs(movement_st) < NOTICEABLE_ST:
        return "level"
    return "rise" if movement_st > 0 else "fall"
