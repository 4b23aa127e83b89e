"""What is done to speech: rate, pitch, level, WAV."""

import struct

import numpy as np
import pytest
from numpy.typing import NDArray

from neuroedge.kit.loudness import loudness_lufs
from neuroedge.kit.speech_audio import (
    PEAK,
    amplified,
    gain_to_db,
    heard_span,
    of_pcm16,
    of_wav,
    pcm16,
    repitched,
    resampled,
    wav_header,
)

RATE_HZ = 22_050


def sine(hz: float, *, seconds: float = 1.0, level: float = 0.1, rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    """A tone."""
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def pitch_hz(samples: NDArray[np.float32], rate_hz: int) -> float:
    """Of a tone."""
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * rate_hz / len(samples))


def test_pitch_and_length_move_together() -> None:
    """An octave up is half as long; resampling alone moves neither."""
    higher = repitched(sine(220), pitch=2.0)
    assert len(higher) == pytest.approx(RATE_HZ / 2, abs=2)
    assert pitch_hz(higher, RATE_HZ) == pytest.approx(440, abs=3)
    assert pitch_hz(resampled(sine(220), RATE_HZ, 48_000), 48_000) == pytest.approx(220, abs=2)
    assert len(resampled(np.zeros(0, np.float32), 8_000, 16_000)) == 0


@pytest.mark.parametrize("lufs", [-30.0, -18.0])
def test_speech_becomes_as_loud_as_asked(lufs: float) -> None:
    """As pyloudnorm measures it at 16 kHz."""
    tone = sine(1000, seconds=2, level=0.02)
    louder = amplified(tone, gain_db=gain_to_db(tone, rate_hz=RATE_HZ, lufs=lufs))
    assert loudness_lufs(resampled(louder, RATE_HZ, 16_000)) == pytest.approx(lufs, abs=0.1)


def test_peaks_stay_under_full_scale() -> None:
    """A click limits the gain, and no gain goes beyond; silence and shortness have none."""
    tone = sine(1000, seconds=2, level=0.02)
    tone[100] = 0.9
    assert np.abs(amplified(tone, gain_db=gain_to_db(tone, rate_hz=RATE_HZ, lufs=-18))).max() <= PEAK + 1e-4
    assert np.abs(amplified(tone, gain_db=30)).max() == pytest.approx(PEAK)
    assert np.abs(amplified(tone, gain_db=-np.inf)).max() == 0
    assert gain_to_db(np.zeros(RATE_HZ, np.float32), rate_hz=RATE_HZ, lufs=-18) == 0
    assert gain_to_db(sine(1000, seconds=0.1), rate_hz=RATE_HZ, lufs=-18) == 0


def test_silence_around_speech_is_found() -> None:
    """In seconds; of silence alone, all."""
    quiet = np.zeros(RATE_HZ, np.float32)
    start_s, end_s = heard_span(np.concatenate([quiet, sine(200), quiet]), rate_hz=RATE_HZ)
    assert start_s == pytest.approx(1.0, abs=0.01)
    assert end_s == pytest.approx(2.0, abs=0.01)
    assert heard_span(quiet, rate_hz=RATE_HZ) == (0.0, 1.0)


def test_wav_is_read_as_it_was_written() -> None:
    """Also one whose header tells no length, in stereo, and with other chunks before the samples."""
    tone = sine(200)
    for data_bytes in (None, 2 * len(tone)):
        samples, rate_hz = of_wav(wav_header(rate_hz=RATE_HZ, data_bytes=data_bytes) + pcm16(tone))
        assert rate_hz == RATE_HZ
        assert np.allclose(samples, tone, atol=1e-4)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 2, 8000, 64000, 8, 32)
    stereo = np.repeat(tone[:, None], 2, axis=1).astype("<f4").tobytes()
    data = b"RIFF\0\0\0\0WAVE" + struct.pack("<4sI", b"LIST", 3) + b"abc\0" + form
    samples, rate_hz = of_wav(data + struct.pack("<4sI", b"data", len(stereo)) + stereo)
    assert rate_hz == 8000
    assert np.allclose(samples, tone)
    assert np.allclose(of_pcm16(pcm16(tone)), tone, atol=1e-4)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"ID3" + bytes(100),
        b"RIFF\0\0\0\0WAVE",
        b"RIFF\0\0\0\0WAVEdata\x04\0\0\0abcd",
        wav_header(rate_hz=1, data_bytes=2) + b"ab",
        b"RIFF\0\0\0\0WAVE" + b"fmt \x10\0\0\0" + bytes(16) + b"data\0\0\0\0",
    ],
)
def test_what_is_no_wav_is_told(data: bytes) -> None:
    """ValueError, whatever a provider sends."""
    with pytest.raises(ValueError, match="WAV"):
        of_wav(data)
