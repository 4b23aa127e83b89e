"""Decoding sound as it arrives: raw PCM, and what a browser's MediaRecorder sends: Opus in WebM or Ogg, AAC in MP4.

Each stream takes bytes and gives mono float32 at 16 kHz. FFmpeg asks for its input and cannot be handed it, so a
container is read in a thread of its own, which waits for bytes and for room: a few bytes of silent Opus may be hours
of sound, and memory stays bounded all the same.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any, Final, Literal, Protocol

import numpy as np
import structlog

from neuroedge.contract.errors import InvalidInput, NeuroEdgeError, UnreadableMedia, UnsupportedMedia
from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats

log = structlog.get_logger(__name__)
ContainerEncoding = Literal["webm_opus", "ogg_opus", "mp4"]
Encoding = Literal["pcm16"] | ContainerEncoding
MIN_RATE_HZ: Final = 8_000
MAX_RATE_HZ: Final = 192_000
_PIECE: Final = SAMPLE_RATE_HZ
"""Most samples given at once."""
_WAITING_PIECES: Final = 20
_UNHEARD_BYTES: Final = 1 << 20
"""So many bytes hold some sound, or it is none."""
_PROBE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class _Container:
    """How a container is known, and what may be in it."""

    format: str
    """FFmpeg's name."""
    magic: bytes
    at: int = 0
    """Where the magic bytes are."""
    codecs: tuple[str, ...] = ("opus",)


_CONTAINERS: Final = {
    "webm_opus": _Container(format="matroska", magic=b"\x1a\x45\xdf\xa3"),
    "ogg_opus": _Container(format="ogg", magic=b"OggS"),
    "mp4": _Container(format="mp4", magic=b"ftyp", at=4, codecs=("aac", "opus")),
}


class AudioStream(Protocol):
    """Bytes in, waveform out. Blocking: call from a thread, one call at a time."""

    def push(self, data: bytes) -> Iterator[Floats]:
        """What the next bytes hold, in pieces of at most a second. Raises InvalidInput where they are no sound."""
        ...

    def finish(self) -> Iterator[Floats]:
        """What is left; no more bytes come."""
        ...

    def close(self) -> None:
        """Let go of everything, at any moment and from any thread."""
        ...


def open_stream(encoding: Encoding, *, sample_rate_hz: int) -> AudioStream:
    """A stream of the given encoding; the rate is that of pcm16 (mono), a container knows its own."""
    return PcmStream(sample_rate_hz) if encoding == "pcm16" else ContainerStream(encoding)


class PcmStream:
    """Signed 16 bit little-endian mono; a sample may be split between two messages."""

    def __init__(self, sample_rate_hz: int) -> None:
        if not MIN_RATE_HZ <= sample_rate_hz <= MAX_RATE_HZ:
            raise InvalidInput(f"{sample_rate_hz} Hz is no rate of speech", hint=f"{MIN_RATE_HZ} to {MAX_RATE_HZ}")
        self._resampled = _Resampled(sample_rate_hz)
        self._rest = b""

    def push(self, data: bytes) -> Iterator[Floats]:
        """The next samples."""
        data = self._rest + data
        even = len(data) & ~1
        self._rest = data[even:]
        samples = np.frombuffer(data[:even], "<i2").astype(np.float32) * np.float32(1 / 32_768)
        yield from self._resampled.push(samples)

    def finish(self) -> Iterator[Floats]:
        """What the resampler holds."""
        yield from self._resampled.finish()

    def close(self) -> None:
        """Nothing is held."""


class ContainerStream:
    """Opus in WebM or Ogg; AAC or Opus in MP4 of fragments (a plain MP4 has its index at the end: it is no stream)."""

    def __init__(self, encoding: ContainerEncoding) -> None:
        self._container = _CONTAINERS[encoding]
        self._head = b""
        self._heard = False
        self._unheard = 0
        self._pipe = _Pipe()
        self._found: Queue[Floats | NeuroEdgeError | None] = Queue(_WAITING_PIECES)
        self._closed = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="live-decoder", daemon=True)
        self._begun = False

    def push(self, data: bytes) -> Iterator[Floats]:
        """What has been decoded by now; the last bytes may give their sound with the next call."""
        if not self._begun:
            self._head += data
            kind = self._container
            if len(self._head) < kind.at + len(kind.magic):
                return
            if not self._head.startswith(kind.magic, kind.at):
                raise UnsupportedMedia(
                    f"the bytes are no {kind.format} stream", hint="send the recorder's first chunk first"
                )
            data, self._begun = self._head, True
            self._thread.start()
        self._unheard += len(data)
        self._pipe.write(data)
        while not self._pipe.idle.is_set() or not self._found.empty():
            yield from self._take(wait_s=0.01)
        if self._unheard > _UNHEARD_BYTES:
            raise UnreadableMedia(f"{_UNHEARD_BYTES} bytes hold no sound", hint=self._hint())

    def finish(self) -> Iterator[Floats]:
        """What is left. Raises UnreadableMedia where all of it held no sound."""
        self._pipe.end()
        while self._begun and not self._ended:
            yield from self._take(wait_s=0.1)
        if not self._heard and self._unheard > _PROBE_BYTES and not self._closed.is_set():
            raise UnreadableMedia(f"{self._unheard} bytes hold no sound", hint=self._hint())

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._pipe.end()

    def _take(self, *, wait_s: float) -> Iterator[Floats]:
        try:
            found = self._found.get(timeout=wait_s)
        except Empty:
            # In this order: a thread that has ended puts nothing more.
            if self._closed.is_set() or (not self._thread.is_alive() and self._found.empty()):
                self._ended = True
            return
        if isinstance(found, NeuroEdgeError):
            self._ended = True
            raise found
        if found is None:
            self._ended = True
            return
        self._heard, self._unheard = True, 0
        yield found

    def _run(self) -> None:
        """The thread."""
        import av

        try:
            for samples in self._decoded():
                self._give(samples)
            self._give(None)
        except av.FFmpegError as error:
            cause = f"the {self._container.format} stream cannot be decoded: {error.strerror}"
            self._give(UnreadableMedia(cause, hint=self._hint()))
        except NeuroEdgeError as error:
            self._give(error)
        except Exception as error:
            log.error("live_decoder_crashed", format=self._container.format, exc_info=error)
            self._give(UnreadableMedia(f"the {self._container.format} stream cannot be decoded", hint=self._hint()))
        finally:
            self._pipe.abandon()

    def _decoded(self) -> Iterator[Floats]:
        import av

        # Without these FFmpeg would look at seconds of sound before it gives the first.
        options = {"probesize": str(_PROBE_BYTES), "analyzeduration": "0", "fflags": "nobuffer"}
        kind = self._container
        opened: Any = av.open(self._pipe, format=kind.format, options=options, buffer_size=_PROBE_BYTES)
        with opened as container:
            if not container.streams.audio:
                raise UnreadableMedia("the stream has no audio track", hint="record audio")
            stream = container.streams.audio[0]
            context = stream.codec_context  # None where FFmpeg knows no decoder
            codec = "an unknown codec" if context is None else context.name.removeprefix("lib")
            if codec not in kind.codecs:
                wanted = " or ".join(kind.codecs)
                raise UnsupportedMedia(f"the stream holds {codec}, not {wanted}", hint=f"record {wanted}")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
            for packet in container.demux(stream):
                for frame in packet.decode():
                    for mono in resampler.resample(frame):
                        yield mono.to_ndarray().reshape(-1).astype(np.float32, copy=False)
            for mono in resampler.resample(None):
                yield mono.to_ndarray().reshape(-1).astype(np.float32, copy=False)

    def _hint(self) -> str:
        if self._container.format == "mp4":
            return "send what a recorder gives, in order; a file with its index at its end is sent to /v1/recordings"
        return "send what the recorder gives, unchanged and in order"

    def _give(self, found: Floats | NeuroEdgeError | None) -> None:
        while not self._closed.is_set():
            try:
                self._found.put(found, timeout=0.1)
                return
            except Full:
                continue


class _Pipe:
    """A file that is read while it is written."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._changed = threading.Condition()
        self._over = False
        self.idle = threading.Event()
        """The reader has all there is, and waits for more or has ended."""

    def write(self, data: bytes) -> None:
        """Append."""
        with self._changed:
            if not self._over:
                self._data += data
                self.idle.clear()
                self._changed.notify()

    def end(self) -> None:
        """No more comes."""
        with self._changed:
            self._over = True
            self._changed.notify()

    def abandon(self) -> None:
        """Nobody reads any more."""
        with self._changed:
            self._over = True
            self._data.clear()
            self.idle.set()

    def read(self, size: int) -> bytes:
        """Up to `size` bytes as soon as there are any; b"" at the end."""
        with self._changed:
            while not self._data and not self._over:
                self.idle.set()
                self._changed.wait()
            taken = bytes(self._data[:size])
            del self._data[:size]
            return taken


class _Resampled:
    """Gives blocks at 16 kHz, in pieces."""

    def __init__(self, rate_hz: int) -> None:
        import soxr

        self._stream: Any = (
            None if rate_hz == SAMPLE_RATE_HZ else soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
        )

    def push(self, samples: Floats, *, last: bool = False) -> Iterator[Floats]:
        """The next samples, as far as the filter lets them out."""
        out = samples if self._stream is None else self._stream.resample_chunk(samples, last=last)
        for start in range(0, len(out), _PIECE):
            yield out[start : start + _PIECE]

    def finish(self) -> Iterator[Floats]:
        """What is left in the filter."""
        yield from self.push(np.empty(0, np.float32), last=True)
