"""Encoding of speech through FFmpeg (PyAV): MP3, Opus in OGG, FLAC and AAC in ADTS, beside WAV and bare PCM.

A file can be made whole or written as it is spoken. Of the second kind no header tells the length: players take them,
but cannot show how long they are.
"""

import io
from fractions import Fraction
from typing import Any, Final

import numpy as np

from neuroedge.contract.speech import AudioFormat
from neuroedge.kit.speech_audio import pcm16, resampled, wav_header
from neuroedge.kit.waveform import Floats

MEDIA_TYPES: Final[dict[AudioFormat, str]] = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "aac": "audio/aac",
    "pcm": "audio/pcm",
}
NOTE: Final = "synthetic speech by NeuroEdge"
"""Written into every file whose format has room for it: who hears it can be told that nobody said it."""
_KINDS: Final = {
    # container, codec, rates it takes, bits a second
    "mp3": ("mp3", "libmp3lame", (16_000, 22_050, 24_000, 32_000, 44_100, 48_000), 64_000),
    "opus": ("ogg", "libopus", (16_000, 24_000, 48_000), 48_000),
    "flac": ("flac", "flac", (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000), 0),
    "aac": ("adts", "aac", (16_000, 22_050, 24_000, 32_000, 44_100, 48_000), 64_000),
}
_OPTIONS: Final = {"mp3": {"write_xing": "0"}, "ogg": {"page_duration": "200000", "flush_packets": "1"}}
"""No header that is filled in at the end; pages of 0.2 s, so that each piece of speech can be heard at once."""


def encoded(samples: Floats, *, rate_hz: int, form: AudioFormat) -> bytes:
    """A whole file of a mono waveform [n]; blocking."""
    if form == "wav":
        data = pcm16(samples)
        return wav_header(rate_hz=rate_hz, data_bytes=len(data)) + data
    encoder = SpeechEncoder(form, rate_hz=rate_hz)
    return encoder.add(samples) + encoder.end()


class SpeechEncoder:
    """Writes a file piece by piece; `add` and `end` give the bytes that have become certain. Blocking, not shared."""

    def __init__(self, form: AudioFormat, *, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._bare = form in ("wav", "pcm")
        self._head = wav_header(rate_hz=rate_hz, data_bytes=None) if form == "wav" else b""
        if not self._bare:
            self._file = _Growing()
            self._codec = _Codec(form, self._file, rate_hz=rate_hz)

    def add(self, samples: Floats) -> bytes:
        """Take the next samples [n]."""
        if self._bare:
            head, self._head = self._head, b""
            return head + pcm16(samples)
        self._codec.add(resampled(samples, self._rate_hz, self._codec.rate_hz))
        return self._file.taken()

    def end(self) -> bytes:
        """What is left; nothing can be added after."""
        if self._bare:
            head, self._head = self._head, b""
            return head
        self._codec.end()
        return self._file.taken()


class _Codec:
    """FFmpeg's encoder and muxer."""

    def __init__(self, form: AudioFormat, file: "_Growing", *, rate_hz: int) -> None:
        import av

        container, codec, rates, bits_per_second = _KINDS[form]
        self.rate_hz = min(rates, key=lambda rate: (rate < rate_hz, abs(rate - rate_hz)))
        self._container = _opened(file, container)
        self._container.metadata["comment"] = NOTE
        self._stream = self._container.add_stream(codec, rate=self.rate_hz, layout="mono")
        if bits_per_second:
            self._stream.bit_rate = bits_per_second
        self._frame_of: Any = av.AudioFrame.from_ndarray
        self._written = 0

    def add(self, samples: Floats) -> None:
        """Encode what is whole frames."""
        if not len(samples):
            return
        frame = self._frame_of(pcm_frame(samples), format="s16", layout="mono")
        frame.sample_rate, frame.pts = self.rate_hz, self._written
        frame.time_base = Fraction(1, self.rate_hz)
        self._written += len(samples)
        self._encode(frame)

    def end(self) -> None:
        """Encode the rest and close the file."""
        self._encode(None)
        self._container.close()

    def _encode(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


def _opened(file: "_Growing", container: str) -> Any:
    import av

    return av.open(file, "w", format=container, options=_OPTIONS.get(container, {}))


def pcm_frame(samples: Floats) -> "np.ndarray[Any, np.dtype[np.int16]]":
    """Samples [1, n] as FFmpeg takes them."""
    return np.frombuffer(pcm16(samples), "<i2").reshape(1, -1)


class _Growing(io.RawIOBase):
    """A file that only grows at its end."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Keep it."""
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def taken(self) -> bytes:
        """What was written since."""
        data, self._parts = b"".join(self._parts), []
        return data
