"""How activated a voice sounds, against the same speaker's other speech.

Activation raises loudness, the level and range of pitch and the rate of speech (K. R. Scherer 2003, "Vocal
communication of emotion: a review of research paradigms", Speech Communication 40; P. N. Juslin & P. Laukka 2003,
"Communication of emotions in vocal expression and music performance", Psychological Bulletin 129). How much differs
from speaker to speaker and with microphone and distance, so each measure is a robust z-score (median, MAD) of the
segment against the speaker's *other* segments of the same recording; their mean is squashed to [-1, 1].

The result is relative and uncalibrated: 0 is this speaker's usual, not calm; values of two recordings or two speakers
do not compare; a noisier line or overlapping speech moves it as emotion does. Nothing of it is pleasant or unpleasant.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from neuroedge.kit.pitch import HOP_S, Doubles, Track, track
from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats

METHOD = "prosody-vs-own-baseline"
MIN_SEGMENT_S = 0.6
MIN_VOICED_S = 0.2
MIN_OTHER_SEGMENTS = 3
MIN_OTHER_S = 6.0
Z_LIMIT = 3.0
SQUASH = 1.5
"""Mean z-score that gives tanh(1) = 0.76."""
_MARGIN_S = 0.5
"""Looked at around a stretch, so that its edges are tracked as in the whole."""

_SMALLEST_SPREAD = np.array([1.5, 1.0, 1.5, 0.5])
"""Floors of the spread (dB, semitones, semitones, words/s), about what a listener just notices: a very even speaker's
trifles must not become large z-scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceSegment:
    """A stretch of one speaker's speech; `words` is their number where a transcript is given."""

    start_s: float
    end_s: float
    speaker: str | None
    words: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arousal:
    """In [-1, 1] against the speaker's own baseline, or None with the reason."""

    value: float | None
    reason: str | None = None
    uncertain: bool = True
    """Whether there is none, or its measures do not agree that it differs from the speaker's usual."""


def arousal(frames: Track, segments: Sequence[VoiceSegment]) -> list[Arousal]:
    """Arousal of each of `segments`, in their order, from the frames of the recording they lie in."""
    return judged([measure(frames, s) for s in segments], segments)


def stretches(segments: Sequence[VoiceSegment], *, at_most_s: float = 300.0) -> list[list[int]]:
    """Places of the segments in groups, so that each group lies within `at_most_s`; a longer one stands alone.

    A recording can so be measured stretch by stretch, in memory that does not grow with its length.
    """
    groups: list[list[int]] = []
    first_s = 0.0
    for i in sorted(range(len(segments)), key=lambda i: segments[i].start_s):
        if not groups or segments[i].end_s - first_s > at_most_s:
            groups.append([])
            first_s = segments[i].start_s
        groups[-1].append(i)
    return groups


def measured(samples: Floats, segments: Sequence[VoiceSegment]) -> list[Doubles]:
    """Measures of each of `segments` of the recording [n] at 16 kHz; only their own stretch of it is looked at."""
    start_s = max(0.0, min(s.start_s for s in segments) - _MARGIN_S)
    end_s = max(s.end_s for s in segments) + _MARGIN_S
    frames = track(np.asarray(samples[int(start_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)]))
    moved = int(start_s * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    return [measure(frames, replace(s, start_s=s.start_s - moved, end_s=s.end_s - moved)) for s in segments]


def judged(found: Sequence[Doubles], segments: Sequence[VoiceSegment]) -> list[Arousal]:
    """Arousal of each of `segments` from their measures, in the same order."""
    measures = np.array(found).reshape(-1, len(_SMALLEST_SPREAD))
    spoken_s = np.array([s.end_s - s.start_s for s in segments])
    speakers = np.array([s.speaker or "" for s in segments])
    heard = ~np.isnan(measures[:, 0])
    answers = []
    for i, segment in enumerate(segments):
        others = heard & (speakers == speakers[i])
        others[i] = False
        reason = _unfit(segment, measured=bool(heard[i])) or _thin(int(others.sum()), float(spoken_s[others].sum()))
        if reason is not None:
            answers.append(Arousal(value=None, reason=reason))
            continue
        value, uncertain = _against(measures[i], measures[others])
        answers.append(Arousal(value=value, uncertain=uncertain))
    return answers


def measure(recording: Track, segment: VoiceSegment) -> Doubles:
    """Level (dB), median pitch and its 10-90 % range (semitones), rate (words/s); NaN where it cannot be had."""
    frames = recording.between(segment.start_s, segment.end_s)
    voiced = ~np.isnan(frames.f0_hz)
    too_short = segment.end_s - segment.start_s < MIN_SEGMENT_S
    if too_short or voiced.sum() * HOP_S < MIN_VOICED_S:
        return np.full(len(_SMALLEST_SPREAD), np.nan)
    low, middle, high = np.percentile(12 * np.log2(frames.f0_hz[voiced]), [10, 50, 90])
    rate = segment.words / (segment.end_s - segment.start_s) if segment.words else np.nan
    return np.array([np.median(frames.level_db[voiced]), middle, high - low, rate])


def _unfit(segment: VoiceSegment, *, measured: bool) -> str | None:
    if segment.speaker is None:
        return "no speaker given: a baseline needs to know whose voice it is"
    if segment.end_s - segment.start_s < MIN_SEGMENT_S:
        return f"the segment is shorter than {MIN_SEGMENT_S} s"
    return None if measured else f"less than {MIN_VOICED_S} s of voiced speech in the segment"


def _thin(segments: int, spoken_s: float) -> str | None:
    if segments >= MIN_OTHER_SEGMENTS and spoken_s >= MIN_OTHER_S:
        return None
    return (
        f"too little other speech of this speaker for a baseline: {segments} segments with {spoken_s:.1f} s, "
        f"needs {MIN_OTHER_SEGMENTS} with {MIN_OTHER_S:.0f} s"
    )


def _against(own: Doubles, others: Doubles) -> tuple[float, bool]:
    """Squashed mean robust z-score of `own` [measures] against `others` [n, measures]; NaN measures do not count.

    And whether it is uncertain: 0 lies within a standard error of the mean, taken over the measures.
    """
    usable = ~np.isnan(own) & ((~np.isnan(others)).sum(axis=0) >= MIN_OTHER_SEGMENTS)
    others = others[:, usable]
    middle = np.nanmedian(others, axis=0)
    spread = np.maximum(1.4826 * np.nanmedian(np.abs(others - middle), axis=0), _SMALLEST_SPREAD[usable])
    z = np.clip((own[usable] - middle) / spread, -Z_LIMIT, Z_LIMIT)
    error = z.std(ddof=1) / np.sqrt(len(z)) if len(z) > 1 else np.inf
    return float(np.tanh(z.mean() / SQUASH)), bool(abs(z.mean()) <= error)
