"""Syllables, speech and pauses of sounds whose number and places are known."""

import numpy as np
import pytest
from benchmarks.voices import syllables, whisper

from neuroedge.kit.pitch import track
from neuroedge.kit.syllables import Talk, intensity_db, joined, talk
from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats, Span


def _silence(seconds: float, *, level: float = 0.0) -> Floats:
    noise = np.random.default_rng(2).normal(size=round(seconds * SAMPLE_RATE_HZ))
    return np.asarray(level * noise, np.float32)


def _talk(*parts: Floats) -> Talk:
    samples = np.concatenate(parts)
    return talk(samples, track(samples))


@pytest.mark.parametrize("rate_syl_s", [2.5, 4.0, 5.5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_syllables_are_counted(rate_syl_s: float, seed: int) -> None:
    """Twelve of changing colour, one more or less."""
    found = _talk(syllables(12, rate_syl_s, seed=seed))
    assert abs(len(found.nuclei_s) - 12) <= 1
    assert found.articulation_rate_syl_s == pytest.approx(rate_syl_s, rel=0.12)


@pytest.mark.parametrize("level", [0.0, 0.002])
def test_a_pause_is_found_where_it_is_and_parts_the_runs(level: float) -> None:
    """0.6 s between four and eight syllables, silent or with a hiss."""
    found = _talk(syllables(4, 4.0), _silence(0.6, level=level), syllables(8, 4.0))
    assert len(found.pauses) == 1
    assert found.pauses[0].start_s == pytest.approx(1.0, abs=0.12)
    assert found.pauses[0].end_s == pytest.approx(1.6, abs=0.12)
    assert [abs(a - b) <= 1 for a, b in zip(found.run_lengths(), (4, 8), strict=True)] == [True, True]
    assert (found.speech_rate_syl_s or 0) < (found.articulation_rate_syl_s or 0)


def test_a_silence_of_200_ms_is_no_pause() -> None:
    """Closures of stops last so long."""
    assert _talk(syllables(4, 4.0), _silence(0.14), syllables(4, 4.0)).pauses == []


def test_loudness_does_not_matter() -> None:
    """Forty decibels softer, the same answer."""
    samples = np.concatenate([syllables(6, 4.0), _silence(0.5, level=0.001), syllables(6, 4.0)])
    loud, soft = (talk(x, track(x)) for x in (samples, samples * np.float32(0.01)))
    assert loud.nuclei_s == soft.nuclei_s
    assert len(loud.pauses) == len(soft.pauses) == 1


def test_silence_nothing_and_whisper_have_no_syllables() -> None:
    """No voice, no nucleus; and no rate rather than 0 of nothing."""
    for samples in (_silence(2.0), _silence(0.0), np.zeros(5, np.float32)):
        found = _talk(samples)
        assert (found.nuclei_s, found.speech, found.pauses) == ([], [], [])
        assert found.speech_rate_syl_s is None
        assert found.run_lengths() == []
    assert len(_talk(whisper(3.0)).nuclei_s) <= 1


def test_level_of_a_tone_is_its_own() -> None:
    """A full-scale sine has -3 dB."""
    t = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    assert np.median(intensity_db(np.sin(2 * np.pi * 200 * t).astype(np.float32))) == pytest.approx(-3.01, abs=0.05)


def test_near_stretches_are_joined() -> None:
    """Those not further apart than the gap."""
    spans = [Span(start_s=a, end_s=b) for a, b in ((0.0, 1.0), (1.2, 2.0), (2.5, 3.0))]
    assert [(s.start_s, s.end_s) for s in joined(spans, gap_s=0.3)] == [(0.0, 2.0), (2.5, 3.0)]
