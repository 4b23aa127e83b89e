"""Contours, and the ends of phrases whose movement is known."""

import numpy as np
import pytest
from benchmarks.voices import vowel

from neuroedge.kit.intonation import contour, final, final_movement_st
from neuroedge.kit.pitch import track
from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Span


@pytest.mark.parametrize(("glide_st", "how"), [(12.0, "rise"), (-12.0, "fall"), (0.0, "level")])
def test_the_end_of_a_phrase_rises_falls_or_stays(glide_st: float, how: str) -> None:
    """An octave over 1.2 s is 3 semitones over the last 0.3 s."""
    voice = track(vowel(140.0 if glide_st >= 0 else 280.0, 1.2, glide_st=glide_st).samples)
    movement = final_movement_st(voice, Span(start_s=0.0, end_s=1.2))
    assert movement == pytest.approx(glide_st / 4, abs=0.8)
    assert final(movement) == how


def test_without_voice_there_is_no_end() -> None:
    """Silence, and a phrase of a few frames."""
    voice = track(np.zeros(SAMPLE_RATE_HZ, np.float32))
    assert final_movement_st(voice, Span(start_s=0.0, end_s=1.0)) is None
    short = track(vowel(140.0, 0.1).samples)
    assert final_movement_st(short, Span(start_s=0.0, end_s=0.1)) is None
    assert final(None) is None


def test_a_contour_has_at_most_the_points_asked_for() -> None:
    """Pitch where there is voice, None where not; all frames count."""
    samples = np.concatenate([vowel(200.0, 1.0).samples, np.zeros(SAMPLE_RATE_HZ, np.float32)])
    points = contour(track(samples), 10)
    assert len(points) == 10
    assert points[2].f0_hz == pytest.approx(200, rel=0.01)
    assert points[9].f0_hz is None
    assert points[9].level_db < points[2].level_db - 50
    assert contour(track(samples), 0) == []
    assert len(contour(track(samples), 2000)) <= 2000
