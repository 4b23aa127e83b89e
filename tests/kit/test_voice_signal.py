"""What spoils a recording is told: noise, clipping, a second voice, no voice, a telephone's band."""

import numpy as np
import pytest
from benchmarks.voices import RATE_HZ, chord, syllables, vowel, whisper

from neuroedge.kit.pitch import track
from neuroedge.kit.syllables import talk
from neuroedge.kit.voice_signal import VoiceSignal, second_voice_share, telephone_band, voice_signal, voiced_share
from neuroedge.kit.waveform import Floats, Span


def _judge(samples: Floats, *, source_rate_hz: int = 44_100, speech: bool = True) -> VoiceSignal:
    voice = track(samples)
    spoken = talk(samples, voice)
    heard = [Span(start_s=0.0, end_s=len(samples) / RATE_HZ)] if speech else []
    return voice_signal(samples, source_rate_hz=source_rate_hz, voice=voice, talk=spoken, speech=heard)


@pytest.mark.parametrize("seed", [0, 1])
def test_one_voice_is_fit(seed: int) -> None:
    """No warning."""
    found = _judge(syllables(12, 4.0, seed=seed))
    assert found.warnings == []
    assert found.reliable
    assert found.voiced_share > 0.9
    assert found.second_voice_share < 0.05


@pytest.mark.parametrize("samples", [chord(3.0), syllables(12, 4.0) + syllables(12, 4.0, f0_hz=205, seed=1)])
def test_chords_and_two_voices_at_once_are_told(samples: Floats) -> None:
    """Music of several tones, and two people."""
    found = _judge(samples)
    assert found.second_voice_share > 0.5
    assert any("second pitch" in w for w in found.warnings)


@pytest.mark.parametrize("noise_db", [10.0, 20.0])
def test_noise_jitter_and_glides_are_no_second_voice(noise_db: float) -> None:
    """What is left of one voice is not periodic elsewhere."""
    for glide_st in (0.0, 8.0):
        samples = vowel(140.0, 2.0, jitter=0.01, shimmer=0.05, noise_db=noise_db, glide_st=glide_st).samples
        assert second_voice_share(samples, track(samples)) < 0.05


def test_a_whisper_and_silence_are_told() -> None:
    """There is sound, but no voice; there is nothing."""
    assert any("whispered" in w for w in _judge(whisper(3.0)).warnings)
    assert _judge(np.zeros(RATE_HZ, np.float32)).warnings == ["silence: nothing loud enough to measure"]


def test_sound_that_is_not_heard_as_speech_is_told_unless_a_vowel_was_asked_for() -> None:
    """A detector of speech does not know held vowels."""
    samples = vowel(140.0, 2.0).samples
    assert any("recognised as speech" in w for w in _judge(samples, speech=False).warnings)
    voice = track(samples)
    asked = voice_signal(samples, source_rate_hz=16_000, voice=voice, talk=talk(samples, voice), speech=[], vowel=True)
    assert asked.reliable


def test_clipping_and_noise_are_told() -> None:
    """Ten times too loud; 8 dB of noise under speech with pauses."""
    silence = np.zeros(RATE_HZ // 2, np.float32)
    speech = np.concatenate([silence, syllables(8, 4.0), silence])
    assert any("clipped" in w for w in _judge(np.clip(10 * speech, -1, 1)).warnings)
    noise = np.random.default_rng(3).normal(0, 0.03, len(speech)).astype(np.float32)
    noisy = _judge(speech + noise)
    assert any("noisy" in w for w in noisy.warnings)
    assert noisy.snr_db is not None
    assert noisy.snr_db < 15


def test_a_telephones_band_is_told_by_rate_and_by_spectrum() -> None:
    """8 kHz, or a file of a higher rate made from such; a plain vowel is not narrow."""
    import soxr

    samples = vowel(140.0, 2.0, noise_db=30).samples
    assert not _judge(samples).narrow_band
    assert _judge(samples, source_rate_hz=8_000).narrow_band
    assert _judge(soxr.resample(soxr.resample(samples, 16_000, 8_000), 8_000, 16_000)).narrow_band


def test_a_telephone_band_is_seen() -> None:
    """White noise has it all, noise cut at 3.4 kHz has not."""
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    assert not telephone_band(noise)
    spectrum = np.fft.rfft(noise)
    spectrum[np.fft.rfftfreq(16_000, 1 / 16_000) > 3400] = 0
    assert telephone_band(np.fft.irfft(spectrum).astype(np.float32))
    assert not telephone_band(noise[:10])


def test_a_buzz_has_a_voice_and_noise_has_none() -> None:
    """120 pulses a second against white noise; too little speech says nothing."""
    buzz = np.zeros(16_000, np.float32)
    buzz[::133] = 0.5
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    whole = [Span(start_s=0.0, end_s=1.0)]
    assert voiced_share(buzz, whole) == pytest.approx(1.0)
    assert voiced_share(noise, whole) == pytest.approx(0.0, abs=0.1)
    assert voiced_share(noise, []) is None
