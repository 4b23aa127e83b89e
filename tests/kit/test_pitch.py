"""Pitch and loudness against signals whose pitch and loudness are known."""

import tracemalloc

import numpy as np
import pytest
from benchmarks.voices import vowel

from neuroedge.kit import pitch
from neuroedge.kit.pitch import harmonicity_db, track
from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats


def _seconds(duration_s: float) -> np.ndarray:
    return np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ


def _voice(f0_hz: float, duration_s: float = 1.0) -> Floats:
    """Harmonics that fall by 6 dB an octave, as a buzzing source has them; peak 0.5."""
    t = _seconds(duration_s)
    wave = sum(np.sin(2 * np.pi * k * f0_hz * t + k) / k for k in range(1, 12) if k * f0_hz < 7_500)
    return np.asarray(0.5 * wave / np.abs(wave).max(), np.float32)


def _with_noise(wave: Floats, snr_db: float) -> Floats:
    noise = np.random.default_rng(7).normal(size=len(wave)) * np.sqrt(np.mean(wave**2) / 10 ** (snr_db / 10))
    return np.asarray(wave + noise, np.float32)


@pytest.mark.parametrize("f0_hz", [80.0, 100.0, 147.3, 220.0, 333.0, 480.0])
@pytest.mark.parametrize("snr_db", [None, 20.0, 10.0])
def test_pitch_of_a_harmonic_voice_is_within_one_percent(f0_hz: float, snr_db: float | None) -> None:
    """From a low male to a child's voice, clean and in noise, in nearly every frame."""
    wave = _voice(f0_hz)
    f0 = track(wave if snr_db is None else _with_noise(wave, snr_db)).f0_hz
    assert np.isfinite(f0).mean() > 0.95
    assert np.nanmax(np.abs(f0 / f0_hz - 1)) < 0.01


@pytest.mark.parametrize("f0_hz", [90.0, 250.0, 440.0])
def test_pitch_of_a_pure_tone_is_within_one_percent(f0_hz: float) -> None:
    """A tone has equal peaks at every period: the octave cost must take the first."""
    f0 = track(np.asarray(0.3 * np.sin(2 * np.pi * f0_hz * _seconds(1.0)), np.float32)).f0_hz
    assert np.nanmax(np.abs(f0 / f0_hz - 1)) < 0.01


def test_a_gliding_pitch_is_followed() -> None:
    """From 120 to 240 Hz in two seconds: each frame within 2 % of the pitch at its centre."""
    t = _seconds(2.0)
    f0_hz = 120 * 2 ** (t / 2)
    phase = 2 * np.pi * np.cumsum(f0_hz) / SAMPLE_RATE_HZ
    frames = track(np.asarray(0.2 * sum(np.sin(k * phase) / k for k in range(1, 8)), np.float32))
    expected = 120 * 2 ** (frames.time_s / 2)
    assert np.isfinite(frames.f0_hz).all()
    assert np.max(np.abs(frames.f0_hz / expected - 1)) < 0.02


def test_noise_and_silence_have_no_pitch() -> None:
    """White noise and digital silence are not voiced."""
    noise = np.random.default_rng(1).normal(0, 0.1, 5 * SAMPLE_RATE_HZ).astype(np.float32)
    assert np.isfinite(track(noise).f0_hz).mean() < 0.01
    silence = track(np.zeros(SAMPLE_RATE_HZ, np.float32))
    assert np.isnan(silence.f0_hz).all()
    assert (silence.level_db < -100).all()


def test_voice_between_silences_is_found_where_it_is() -> None:
    """Frames well inside the tone are voiced, those well outside are not."""
    silence = np.zeros(SAMPLE_RATE_HZ, np.float32)
    frames = track(np.concatenate([silence, _voice(150.0), silence]))
    voiced = np.isfinite(frames.f0_hz)
    assert voiced[(frames.time_s > 1.03) & (frames.time_s < 1.97)].all()
    assert not voiced[(frames.time_s < 0.97) | (frames.time_s > 2.03)].any()


def test_level_is_in_decibels_of_full_scale_and_ignores_an_offset() -> None:
    """A full-scale sine has an RMS of -3.01 dB; a tenth of it 20 dB less."""
    sine = np.sin(2 * np.pi * 200 * _seconds(1.0)).astype(np.float32)
    assert np.median(track(sine).level_db) == pytest.approx(-3.01, abs=0.02)
    assert np.median(track(0.1 * sine + np.float32(0.3)).level_db) == pytest.approx(-23.01, abs=0.02)


def test_pitch_does_not_depend_on_how_loud_the_recording_is() -> None:
    """The same voice 40 dB softer has the same pitch track."""
    wave = _with_noise(_voice(180.0), 20.0)
    np.testing.assert_allclose(track(wave).f0_hz, track(wave * np.float32(0.01)).f0_hz, rtol=1e-3)


def test_frames_do_not_depend_on_the_block_they_are_analysed_in() -> None:
    """A voice in a recording longer than one block reads as the same voice alone."""
    voice = _voice(130.0, 2.0)
    long = np.concatenate([np.zeros(19 * SAMPLE_RATE_HZ, np.float32), voice])
    part = track(long).between(19.1, 20.9)
    assert len(part.time_s) == 180
    assert np.nanmax(np.abs(part.f0_hz / 130 - 1)) < 0.01


def test_less_than_a_window_gives_no_frames() -> None:
    """Too short and empty waveforms are answered, not an error."""
    for samples in (0, 1, 639):
        assert len(track(np.zeros(samples, np.float32)).time_s) == 0


@pytest.mark.parametrize("noise_db", [5.0, 12.0, 20.0, 30.0])
def test_harmonics_to_noise_ratio_of_a_tone_in_white_noise_is_the_true_one(noise_db: float) -> None:
    """HNR is defined by the power of both (eq. 4), so a sine in noise shows its own; within a decibel."""
    sine = np.sin(2 * np.pi * 200 * _seconds(2.0)).astype(np.float32)
    _, hnr_db = harmonicity_db(_with_noise(0.3 * sine, noise_db))
    assert np.nanmean(hnr_db) == pytest.approx(noise_db, abs=1)


def test_silence_has_no_harmonicity_and_too_little_has_no_frames() -> None:
    """NaN, not a number that looks like one."""
    _, silent = harmonicity_db(np.zeros(SAMPLE_RATE_HZ, np.float32))
    assert np.isnan(silent).all()
    assert len(silent) > 50
    assert len(harmonicity_db(np.zeros(100, np.float32))[1]) == 0


def test_pitch_at_a_time_lies_between_the_frames_and_nowhere_outside() -> None:
    """Linear between two frames; NaN before, after and where there is no voice."""
    frames = track(np.concatenate([_voice(150.0), np.zeros(SAMPLE_RATE_HZ, np.float32)]))
    assert frames.at(0.5037) == pytest.approx(150, rel=0.01)
    assert np.isnan([frames.at(-1.0), frames.at(1.5), frames.at(9.0)]).all()
    assert len(frames.voiced_runs()) == 1


@pytest.mark.parametrize("f0_hz", [95.0, 180.0, 320.0])
def test_pitch_and_harmonicity_agree_with_praat(f0_hz: float) -> None:
    """The reference implementation on a vowel with jitter, shimmer and noise: F0 within 1 %, HNR within 0.5 dB."""
    import parselmouth

    samples = vowel(f0_hz, 1.5, jitter=0.008, shimmer=0.04, noise_db=22, seed=int(f0_hz)).samples
    sound = parselmouth.Sound(samples.astype(np.float64), SAMPLE_RATE_HZ)
    theirs = sound.to_pitch_ac(time_step=0.01, pitch_floor=75, pitch_ceiling=600).selected_array["frequency"]
    assert np.nanmedian(track(samples).f0_hz) == pytest.approx(np.median(theirs[theirs > 0]), rel=0.01)
    values = sound.to_harmonicity_ac(0.01, 75, 0.1, 4.5).values[0]
    assert np.nanmean(harmonicity_db(samples)[1]) == pytest.approx(values[values > -199].mean(), abs=0.5)


def test_long_recordings_are_framed_in_the_memory_of_short_ones() -> None:
    """Blocks of frames are made one at a time: all of five minutes would be 150 MB."""
    frames = pitch._Frames(np.zeros(300 * 16_000, np.float32), window_s=0.04, floor_hz=75.0, gaussian=False)
    tracemalloc.start()
    try:
        assert sum(len(block) for block in frames.blocks()) == pytest.approx(30_000, abs=10)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
