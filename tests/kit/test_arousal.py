"""Arousal of made voices: a louder, higher, faster segment stands out from the same speaker's others."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from neuroedge.kit.arousal import VoiceSegment, arousal
from neuroedge.kit.pitch import track
from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats

LENGTH_S = 2.0


def _voice(*, f0_hz: float = 120.0, level: float = 0.1, swing: float = 0.05, duration_s: float = LENGTH_S) -> Floats:
    """A buzz whose pitch swings by the share `swing`, with a pause after it."""
    t = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    f0 = f0_hz * (1 + swing * np.sin(2 * np.pi * 2 * t))
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE_HZ
    wave = level * sum(np.sin(k * phase) / k for k in range(1, 10))
    return np.asarray(wave, np.float32)


def _calm(n: int) -> list[dict[str, Any]]:
    """Usual segments that differ by a little."""
    return [{"f0_hz": 120.0 + 2 * i, "level": 0.1 + 0.005 * i} for i in range(n)]


def _answers(voices: list[dict[str, Any]], **changes: Any) -> list[Any]:
    segments = [
        VoiceSegment(start_s=i * LENGTH_S, end_s=(i + 1) * LENGTH_S, speaker="A", words=5) for i in range(len(voices))
    ]
    for i, fields in changes.get("segments", {}).items():
        segments[i] = replace(segments[i], **fields)
    return arousal(track(np.concatenate([_voice(**v) for v in voices])), segments)


def test_a_louder_higher_wider_faster_segment_is_aroused() -> None:
    """Only that segment stands out; the usual ones stay near 0."""
    voices = [*_calm(4), {"f0_hz": 200.0, "level": 0.5, "swing": 0.3}]
    answers = _answers(voices, segments={4: {"words": 9}})
    assert answers[4].value > 0.7
    assert all(abs(a.value) < 0.5 for a in answers[:4])


def test_a_softer_lower_slower_segment_is_less_aroused_than_usual() -> None:
    """The scale has two sides."""
    voices = [*({**v, "swing": 0.2} for v in _calm(4)), {"f0_hz": 90.0, "level": 0.01, "swing": 0.01}]
    assert _answers(voices, segments={4: {"words": 2}})[4].value < -0.7


@pytest.mark.parametrize("change", [{"f0_hz": 190.0}, {"level": 0.5}, {"swing": 0.35}])
def test_each_measure_of_the_voice_alone_raises_it(change: dict[str, float]) -> None:
    """Pitch, loudness and range of pitch each count."""
    assert _answers([*_calm(4), change])[4].value > _answers([*_calm(4), {}])[4].value + 0.15


def test_a_faster_rate_alone_raises_it() -> None:
    """Words per second count, where words are given."""
    even = _answers(_calm(5))[4].value
    assert _answers(_calm(5), segments={4: {"words": 12}})[4].value > even + 0.15


def test_without_words_the_voice_is_measured_by_the_rest() -> None:
    """No transcript: no rate, but an answer."""
    voices = [*_calm(4), {"f0_hz": 200.0, "level": 0.5, "swing": 0.3}]
    answers = _answers(voices, segments={i: {"words": None} for i in range(5)})
    assert answers[4].value > 0.7


def test_each_speaker_has_a_baseline_of_its_own() -> None:
    """A habitually high and loud voice among its own is nothing special."""
    voices = [*_calm(4), *({"f0_hz": 220.0 + i, "level": 0.4} for i in range(4))]
    answers = _answers(voices, segments={i: {"speaker": "B"} for i in range(4, 8)})
    assert all(abs(a.value) < 0.3 for a in answers)


def test_the_gain_of_the_recording_does_not_matter() -> None:
    """The same recording 12 dB softer has the same arousal."""
    voices = [*_calm(4), {"f0_hz": 160.0, "level": 0.2}]
    softer = [{**v, "level": v["level"] / 4} for v in voices]
    assert [a.value for a in _answers(voices)] == pytest.approx([a.value for a in _answers(softer)], abs=1e-3)


def test_too_little_other_speech_gives_no_arousal_but_a_reason() -> None:
    """Three segments of a speaker leave only two to compare with."""
    answers = _answers(_calm(3))
    assert all(a.value is None and "too little other speech" in a.reason for a in answers)


def test_others_that_are_many_but_short_are_not_enough_either() -> None:
    """Four others of 0.7 s each are less than 6 s."""
    segments = [VoiceSegment(start_s=i, end_s=i + 0.7, speaker="A") for i in range(5)]
    answers = arousal(track(_voice(duration_s=5.0)), segments)
    assert all(a.value is None and "2.8 s" in a.reason for a in answers)


def test_a_short_segment_is_neither_answered_nor_part_of_the_baseline() -> None:
    """Half a second says little: the others then are too few."""
    answers = _answers(_calm(4), segments={3: {"end_s": 3 * LENGTH_S + 0.5}})
    assert answers[3].value is None
    assert "shorter than 0.6 s" in answers[3].reason
    assert all(a.value is None for a in answers[:3])


def test_a_segment_without_voice_or_speaker_says_so() -> None:
    """Silence has no pitch; an unknown speaker no baseline."""
    answers = _answers([*_calm(5), {"level": 0.0}], segments={0: {"speaker": None}})
    assert "voiced" in answers[5].reason
    assert "no speaker" in answers[0].reason
    assert answers[1].value is not None


def test_the_answer_stays_within_its_bounds_and_no_segments_are_fine() -> None:
    """An extreme segment, and an empty list."""
    extreme = _answers([*_calm(4), {"f0_hz": 450.0, "level": 3.0, "swing": 0.1}], segments={4: {"words": 100}})
    assert 0.9 < extreme[4].value <= 1.0
    assert arousal(track(np.zeros(16_000, np.float32)), []) == []
