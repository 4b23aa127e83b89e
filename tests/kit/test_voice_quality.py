"""What makes speech a bad basis to know a voice by."""

from dataclasses import replace

import numpy as np

from neuroedge.kit.speaker_samples import opening, other_speech_s
from neuroedge.kit.voice_quality import MIN_SAMPLE_SPEECH_S, VoiceQuality, flaws

GOOD = VoiceQuality(speech_s=10.0, snr_db=30.0, clipping_percent=0.0, other_speech_s=0.0)


def _codes(quality: VoiceQuality) -> list[str]:
    return [flaw.code for flaw in flaws(quality, min_speech_s=MIN_SAMPLE_SPEECH_S)]


def test_good_speech_has_no_flaws() -> None:
    """Nor has speech whose noise or company cannot be told."""
    assert _codes(GOOD) == []
    assert _codes(replace(GOOD, snr_db=None, other_speech_s=None)) == []


def test_every_flaw_is_named_with_what_to_do() -> None:
    """All at once, the worst first."""
    bad = VoiceQuality(speech_s=2.0, snr_db=3.0, clipping_percent=5.0, other_speech_s=1.5)
    assert _codes(bad) == ["too_little_speech", "several_speakers", "too_noisy", "clipped"]
    assert all(flaw.detail and flaw.hint for flaw in flaws(bad, min_speech_s=3.0))


def test_a_cough_of_somebody_else_is_no_second_speaker() -> None:
    """Less than a second, or less than a tenth, passes."""
    assert _codes(replace(GOOD, other_speech_s=0.9)) == []
    assert _codes(replace(GOOD, speech_s=60.0, other_speech_s=3.0)) == []
    assert _codes(replace(GOOD, other_speech_s=2.0)) == ["several_speakers"]


def test_the_opening_ends_where_there_is_enough_speech() -> None:
    """The last stretch is cut; none is left out before."""
    assert opening([(0.0, 2.0), (3.0, 6.0), (7.0, 9.0)], limit_s=4.0) == [(0.0, 2.0), (3.0, 5.0)]
    assert opening([(0.0, 2.0)], limit_s=4.0) == [(0.0, 2.0)]


def test_seconds_of_a_second_voice() -> None:
    """Two directions, 6 s and 3 s of speech: the shorter one is the other person; one direction is nobody else."""
    windows = [(i * 0.5, i * 0.5 + 1.6) for i in range(16)]
    main, other = np.eye(4, dtype=np.float32)[:2]
    spans = [(0.0, windows[-1][1])]
    vectors = np.stack([main if start < 5.5 else other for start, _ in windows])
    assert 2.0 < other_speech_s(vectors, windows, spans, None) < 4.0
    assert other_speech_s(np.stack([main] * len(windows)), windows, spans, None) == 0.0
    assert other_speech_s(np.zeros((0, 4), np.float32), [], [], None) == 0.0
