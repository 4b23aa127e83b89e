"""What is done to a spoken waveform: rate, pitch, level, and how it lies in a WAV file."""

import struct
from typing import Final

import numpy as np

from neuroedge.kit.loudness import loudness_lufs
from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats

PEAK: Final = 10 ** (-1 / 20)
"""-1 dB of full scale: encoders overshoot a little."""
MOST_GAIN_DB: Final = 24.0
UNKNOWN_BYTES: Final = 0xFFFFFFFF
"""Length in the header of a WAV file that is written before its end is known."""
_PCM: Final = 1
_FLOAT: Final = 3
_EXTENSIBLE: Final = 0xFFFE


def resampled(samples: Floats, rate_hz: float, to_hz: float) -> Floats:
    """A mono waveform [n] at another rate."""
    if rate_hz == to_hz or not len(samples):
        return samples
    import soxr

    out: Floats = soxr.resample(samples, rate_hz, to_hz).astype(np.float32, copy=False)
    return out


def repitched(samples: Floats, *, pitch: float) -> Floats:
    """`pitch` times as high and as much shorter: what was said 1 / pitch times as fast comes out as fast as wanted."""
    return samples if pitch == 1 else resampled(samples, pitch, 1.0)


def silence(seconds: float, *, rate_hz: int) -> Floats:
    """Zeros [n]."""
    return np.zeros(round(seconds * rate_hz), np.float32)


def gain_to_db(samples: Floats, *, rate_hz: int, lufs: float) -> float:
    """Gain in dB that brings a waveform to a loudness (ITU-R BS.1770-4) or its peak to -1 dB of full scale, whichever
    is less; 0 where the loudness cannot be measured: under 0.4 s, or silence."""
    heard = loudness_lufs(resampled(samples, rate_hz, SAMPLE_RATE_HZ))
    if heard is None:
        return 0.0
    room = 20 * float(np.log10(PEAK / max(1e-6, float(np.abs(samples).max()))))
    return max(-MOST_GAIN_DB, min(MOST_GAIN_DB, lufs - heard, room))


def amplified(samples: Floats, *, gain_db: float) -> Floats:
    """Louder or quieter, never beyond -1 dB of full scale."""
    if gain_db == 0 or not len(samples):
        return samples
    louder = samples * np.float32(10 ** (gain_db / 20))
    peak = float(np.abs(louder).max())
    return (louder * np.float32(PEAK / peak) if peak > PEAK else louder).astype(np.float32)


def heard_span(samples: Floats, *, rate_hz: int) -> tuple[float, float]:
    """Where in a waveform somebody speaks, without the silence around it: (start, end) in seconds."""
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    if not len(loud):
        return 0.0, len(samples) / rate_hz
    return float(loud[0]) / rate_hz, float(loud[-1] + 1) / rate_hz


def pcm16(samples: Floats) -> bytes:
    """16-bit little-endian."""
    return np.rint(np.clip(samples, -1.0, 1.0) * 32767).astype("<i2").tobytes()


def of_pcm16(data: bytes) -> Floats:
    """What `pcm16` was given, nearly."""
    return np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / np.float32(32768)


def wav_header(*, rate_hz: int, data_bytes: int | None) -> bytes:
    """The head of a mono 16-bit WAV file; None: of one that is written before its end is known."""
    size = UNKNOWN_BYTES if data_bytes is None else data_bytes
    whole = UNKNOWN_BYTES if data_bytes is None else data_bytes + 36
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, _PCM, 1, rate_hz, rate_hz * 2, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + form + struct.pack("<4sI", b"data", size)


def of_wav(data: bytes) -> tuple[Floats, int]:
    """Mono samples [n] and the rate of a WAV file of 16-bit or float samples, also of one whose header tells no length.

    Raises ValueError.
    """
    if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ValueError("no WAV file")
    at, form = 12, None
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        at += 8
        if name == b"fmt " and size >= 16 and at + 16 <= len(data):
            form = struct.unpack_from("<HHIIHH", data, at)
        elif name == b"data":
            return _mono(data[at : at + size], form)
        at += size + size % 2
    raise ValueError("a WAV file without samples")


def _mono(data: bytes, form: tuple[int, ...] | None) -> tuple[Floats, int]:
    kind, channels, rate_hz, _, _, bits = form or (0,) * 6
    if channels not in (1, 2) or not 8_000 <= rate_hz <= 96_000:
        raise ValueError("a WAV file of an unusual form")
    if kind in (_PCM, _EXTENSIBLE) and bits == 16:
        samples = of_pcm16(data)
    elif kind in (_FLOAT, _EXTENSIBLE) and bits == 32:
        samples = np.frombuffer(data[: len(data) // 4 * 4], "<f4").astype(np.float32)
    else:
        raise ValueError("a WAV file of an unusual form")
    if not np.isfinite(samples).all():
        raise ValueError("a WAV file with values that are no numbers")
    whole = samples[: len(samples) // channels * channels].reshape(-1, channels)
    return whole.mean(axis=1, dtype=np.float32), rate_hz
