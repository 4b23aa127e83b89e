"""Jitter and shimmer against voices whose periods are known, and against Praat."""

import numpy as np
import pytest
from benchmarks.voices import syllables, vowel

from neuroedge.kit.envelope import at_frames, envelope_db
from neuroedge.kit.perturbation import jitter_local, pulses, shimmer_local, sustained_vowel
from neuroedge.kit.pitch import track
from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats, Span


def _sustained(samples: Floats) -> Span | None:
    voice = track(samples)
    return sustained_vowel(voice, at_frames(envelope_db(samples), voice))


@pytest.mark.parametrize("f0_hz", [90.0, 140.0, 250.0, 400.0])
def test_there_is_one_pulse_in_each_period(f0_hz: float) -> None:
    """As many as the voice has, a period apart."""
    samples = vowel(f0_hz, 1.0).samples
    times = pulses(samples, track(samples))
    assert len(times) == pytest.approx(0.95 * f0_hz, rel=0.06)
    assert np.diff(times) == pytest.approx(1 / f0_hz, rel=0.02)


@pytest.mark.parametrize("jitter", [0.005, 0.01, 0.02])
def test_jitter_that_was_put_in_comes_out(jitter: float) -> None:
    """Within a fifth of the truth: filtering by formants blurs periods a little."""
    made = vowel(130.0, 3.0, jitter=jitter, seed=3)
    found = jitter_local(pulses(made.samples, track(made.samples)))
    assert found == pytest.approx(made.jitter, rel=0.2)


def test_a_steady_voice_has_next_to_no_jitter_and_shimmer() -> None:
    """Below what any human voice has."""
    samples = vowel(130.0, 2.0).samples
    times = pulses(samples, track(samples))
    assert (jitter_local(times) or 1) < 0.001
    assert (shimmer_local(samples, times) or 1) < 0.01


def test_more_shimmer_reads_as_more() -> None:
    """In the order it was put in."""
    found = []
    for shimmer in (0.0, 0.03, 0.06, 0.12):
        samples = vowel(130.0, 2.0, shimmer=shimmer, seed=5).samples
        found.append(shimmer_local(samples, pulses(samples, track(samples))) or 0.0)
    assert found == sorted(found)
    assert found[3] > 2 * found[1]


@pytest.mark.parametrize(("f0_hz", "name"), [(95.0, "a"), (150.0, "i"), (210.0, "u"), (300.0, "e")])
def test_jitter_and_shimmer_agree_with_praat(f0_hz: float, name: str) -> None:
    """Praat's own point process and measures, on the same samples."""
    samples = vowel(f0_hz, 1.5, jitter=0.01, shimmer=0.05, noise_db=30, name=name, seed=int(f0_hz)).samples
    times = pulses(samples, track(samples))
    jitter, shimmer = _praat(samples)
    assert jitter_local(times) == pytest.approx(jitter, rel=0.05)
    assert shimmer_local(samples, times) == pytest.approx(shimmer, rel=0.05)


def _praat(samples: Floats) -> tuple[float, float]:
    import parselmouth

    call = parselmouth.praat.call
    sound = parselmouth.Sound(samples.astype(np.float64), SAMPLE_RATE_HZ)
    pitch = sound.to_pitch_ac(time_step=0.01, pitch_floor=75, pitch_ceiling=600)
    points = call([sound, pitch], "To PointProcess (cc)")
    limits = (0, 0, 0.0001, 0.02, 1.3)
    return call(points, "Get jitter (local)", *limits), call([sound, points], "Get shimmer (local)", *limits, 1.6)


def test_silence_noise_and_a_few_periods_have_no_measures() -> None:
    """None, not 0."""
    noise = np.random.default_rng(1).normal(0, 0.1, SAMPLE_RATE_HZ).astype(np.float32)
    for samples in (np.zeros(SAMPLE_RATE_HZ, np.float32), noise, np.zeros(0, np.float32)):
        assert shimmer_local(samples, pulses(samples, track(samples))) is None
    assert jitter_local(np.array([0.1, 0.11])) is None
    assert jitter_local(np.zeros(0)) is None


def test_a_held_vowel_is_found_between_silences() -> None:
    """Its place within 0.1 s."""
    silence = np.zeros(SAMPLE_RATE_HZ // 2, np.float32)
    found = _sustained(np.concatenate([silence, vowel(140.0, 2.0, jitter=0.01, noise_db=25).samples, silence]))
    assert found is not None
    assert found.start_s == pytest.approx(0.5, abs=0.1)
    assert found.end_s == pytest.approx(2.5, abs=0.1)


def test_syllables_glides_and_short_vowels_are_no_held_vowel() -> None:
    """Trap: jitter of running speech is intonation."""
    assert _sustained(syllables(12, 4.0)) is None
    assert _sustained(vowel(120.0, 2.0, glide_st=8.0).samples) is None
    assert _sustained(vowel(140.0, 0.6).samples) is None
