"""Decoding of recorded sound through FFmpeg (PyAV): any supported file becomes mono float32 at 16 kHz.

What is refused: bytes of no known format (UnsupportedMedia), files without sound (EmptyMedia), files that break off or
hold garbage (UnreadableMedia), recordings longer than the limit (TooLarge). A file counts as broken off when

- WAV: the data chunk announces more bytes than the file has (streamed headers, which announce none, are accepted);
- OGG: the file ends inside a page;
- FLAC, MP4/M4A, WebM/Matroska and MP3 with a Xing/Info/VBRI header: less sound was decoded than announced;
- any: a packet is cut short or does not decode after the first sound was heard.

An MP3 or ADTS stream without a header that says its length, and a live WebM, cannot be told from a shorter recording.
"""

import asyncio
import base64
import binascii
import io
import tempfile
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from neuroedge.contract.errors import (
    EmptyMedia,
    InvalidInput,
    TooLarge,
    Unavailable,
    UnreadableMedia,
    UnsupportedMedia,
)
from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats
from neuroedge.contract.ports import Audio, AudioSource, Blobs
from neuroedge.infra.containers import WavHeader, announces_length, ends_inside_ogg_page, looks_like_media, wav_header
from neuroedge.infra.waveform import GrowingWaveform

Sink = Callable[[Floats], None]  # takes the next 16 kHz samples [n] of a recording; they may exceed [-1, 1]

FORMATS = "WAV, FLAC, OGG, MP3, M4A, WebM/Opus"
# Only these demuxers may probe an upload: playlists and scripts (hls, concat) could make FFmpeg open other files.
_DEMUXERS = "wav,flac,ogg,mp3,aac,mov,matroska"
_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2": "mp4", "matroska,webm": "matroska"}
_TOLERANCE_S = 0.1
_TOLERANCE = 0.001
"""Encoders announce a few frames more than they deliver: a shortfall within 0.1 s + 0.1 % is not a cut."""
_BLOCK = 1 << 16
"""Source samples gathered before they are resampled: the resampler's cost per call disappears."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFacts:
    """What a sound file says of itself, and how long its sound is at 16 kHz."""

    duration_s: float
    source_rate_hz: int
    source_channels: int
    codec: str
    container: str


class PyAVMedia:
    """The Media port over a tenant's blobs."""

    def __init__(
        self,
        *,
        blobs: Blobs,
        max_bytes: int,
        max_duration_s: float,
        tmp: Path | None = None,
        fetch: Callable[[str, Path], Awaitable[None]] | None = None,
    ) -> None:
        self._blobs = blobs
        self._fetch = fetch
        """Writes an object into a file; without it objects are read into memory."""
        self._max_bytes = max_bytes
        self._max_duration_s = max_duration_s
        self._tmp = tmp
        """Folder for what is too long for memory; the system's when None."""

    async def audio(self, source: AudioSource) -> Audio:
        """Decode, mix to mono, resample to 16 kHz. Raises EmptyMedia, UnsupportedMedia, UnreadableMedia, TooLarge."""
        async with self.encoded(source) as data:
            return await asyncio.to_thread(decode, data, max_duration_s=self._max_duration_s, tmp=self._tmp)

    @asynccontextmanager
    async def encoded(self, source: AudioSource) -> AsyncIterator[bytes | Path]:
        """The file as it was sent: its bytes, or where they lie while the block lasts. Raises InvalidInput, TooLarge,
        NotFound."""
        if source.blob is None:
            yield await asyncio.to_thread(self._from_base64, source.base64 or "")
        elif self._fetch is None:
            data = await self._blobs.get(source.blob)
            self._check_size(len(data))
            yield data
        else:
            with tempfile.TemporaryDirectory(dir=self._tmp) as folder:
                path = Path(folder, "audio")
                await self._fetch(source.blob, path)
                self._check_size((await asyncio.to_thread(path.stat)).st_size)
                yield path

    def _from_base64(self, text: str) -> bytes:
        self._check_size(len(text) * 3 // 4 - 2)
        try:
            data = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInput("the audio is not valid base64", hint="send the file's bytes in base64") from error
        self._check_size(len(data))
        return data

    def _check_size(self, n_bytes: int) -> None:
        if n_bytes > self._max_bytes:
            raise TooLarge(f"the audio file is larger than {self._max_bytes} bytes", hint="compress or split it")


def decode(source: Path | str | bytes, *, max_duration_s: float, tmp: Path | None = None) -> Audio:
    """Decode a file's path or bytes to mono float32 [n] at 16 kHz in [-1, 1]; blocking.

    The encoded file is read as a stream. Channels are mixed by their mean, whatever the layout says of them, so that a
    voice on any one channel is kept. A waveform of more than ten minutes lies in an unlinked file below `tmp`.
    """
    waveform = GrowingWaveform(tmp)
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as handle:
            facts = _decode(handle, waveform.extend, max_duration_s)
        return Audio(samples=waveform.finish(), **asdict(facts))
    except OSError as error:
        raise Unavailable("the decoded audio could not be kept", hint="check free space") from error
    finally:
        waveform.close()


def decode_to_wav(source: Path, target: Path, *, max_duration_s: float) -> AudioFacts:
    """Decode `source` into a 16 kHz mono PCM16 WAV file, as encode_wav(decode(source).samples) would be; blocking.

    Block by block: memory does not grow with the length. Raises what decode raises, and Unavailable when `target`
    cannot be written; then no `target` is left.
    """
    with source.open("rb") as handle:
        try:
            with target.open("wb") as file, _native_wav(file) as write:
                return _decode(handle, write, max_duration_s)
        except BaseException as error:
            target.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise Unavailable("the decoded audio could not be written", hint="check free space") from error
            raise


def encode_wav(samples: Floats) -> bytes:
    """A 16 kHz mono PCM16 WAV file of `samples` [n] in [-1, 1]; values beyond are clipped."""
    file = io.BytesIO()
    with _native_wav(file) as write:
        write(samples)
    return file.getvalue()


@contextmanager
def _native_wav(file: BinaryIO) -> Iterator[Sink]:
    """Writes samples into a WAV file; at the end their number is put into its header."""
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE_HZ)
        yield lambda samples: out.writeframesraw(
            np.clip(np.rint(samples * 32_768.0), -32_768, 32_767).astype("<i2").tobytes()
        )


def _decode(handle: BinaryIO, sink: Sink, max_duration_s: float) -> AudioFacts:
    """Give a file's sound to `sink` block by block; only when this returns is it known to be whole."""
    if not handle.read(1):
        raise EmptyMedia("the audio file is empty", hint="the upload holds no bytes; send it again")
    header = wav_header(handle)
    if header is not None:
        _check_complete_wav(header)
        if header.is_native:
            return _decode_native_wav(handle, header, sink, max_duration_s)
    return _decode_any(handle, sink, is_wav=header is not None, max_duration_s=max_duration_s)


def _check_complete_wav(header: WavHeader) -> None:
    if header.missing_bytes:
        raise _broken_off(f"{header.missing_bytes} of the announced {header.data_bytes} bytes of sound are missing")
    if header.data_bytes == 0:
        raise EmptyMedia("the WAV file holds no sound", hint="its data chunk is empty; record again")


def _decode_native_wav(handle: BinaryIO, header: WavHeader, sink: Sink, max_duration_s: float) -> AudioFacts:
    n = header.data_bytes // 2
    if n > max_duration_s * SAMPLE_RATE_HZ:
        raise _too_long(max_duration_s)
    handle.seek(header.data_offset)
    for start in range(0, n, _BLOCK):
        samples = np.frombuffer(handle.read(min(_BLOCK, n - start) * 2), "<i2").astype(np.float32)
        samples *= np.float32(1 / 32_768)
        sink(samples)
    seconds = n / SAMPLE_RATE_HZ
    return AudioFacts(
        duration_s=seconds, source_rate_hz=SAMPLE_RATE_HZ, source_channels=1, codec="pcm_s16le", container="wav"
    )


def _decode_any(handle: BinaryIO, sink: Sink, *, is_wav: bool, max_duration_s: float) -> AudioFacts:
    if ends_inside_ogg_page(handle):
        raise _broken_off("its last page is incomplete")
    says_length = announces_length(handle)
    with _opened(handle) as container:
        if not len(container.streams):
            raise _broken_off("it names no track")
        if not container.streams.audio:
            raise EmptyMedia("the file has no audio track", hint="it may be a video without sound")
        stream = container.streams.audio[0]
        announced_s = _announced_s(container, stream) if says_length else None
        if announced_s is not None and announced_s > max_duration_s:
            raise _too_long(max_duration_s)
        resampled = _Resampled(sink, max_duration_s)
        for mono, rate_hz in _blocks(_frames(container, stream, trust_corrupt_flag=not is_wav)):
            resampled.append(mono, rate_hz)
        resampled.flush()
        if announced_s is not None and resampled.source_s < announced_s * (1 - _TOLERANCE) - _TOLERANCE_S:
            raise _broken_off(f"{announced_s:.2f} s are announced, {resampled.source_s:.2f} s are there")
        if not resampled.samples:
            raise EmptyMedia("the audio track holds no sound", hint="record again")
        context = stream.codec_context
        return AudioFacts(
            duration_s=resampled.samples / SAMPLE_RATE_HZ,
            source_rate_hz=context.sample_rate,
            source_channels=context.channels,
            codec=context.codec.canonical_name,
            container=_CONTAINERS.get(container.format.name, container.format.name),
        )


def native_blocks(handle: BinaryIO) -> Iterator[tuple[Floats, int]]:
    """A file's sound as it is, block by block [channels, n] with its rate in Hz.

    Raises what decode raises, but that lengths which the container announces are not compared: decode it too.
    """
    if not handle.read(1):
        raise EmptyMedia("the audio file is empty", hint="the upload holds no bytes; send it again")
    header = wav_header(handle)
    if header is not None:
        _check_complete_wav(header)
    if ends_inside_ogg_page(handle):
        raise _broken_off("its last page is incomplete")
    with _opened(handle) as container:
        if not container.streams.audio:
            raise EmptyMedia("the file has no audio track", hint="it may be a video without sound")
        stream = container.streams.audio[0]
        for frame in _frames(container, stream, trust_corrupt_flag=header is None):
            yield _planes(frame), frame.sample_rate


@contextmanager
def _opened(handle: BinaryIO) -> Iterator[Any]:
    import av

    known = looks_like_media(handle)
    handle.seek(0)
    try:
        container = av.open(handle, options={"format_whitelist": _DEMUXERS}, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        if known:
            raise UnreadableMedia(
                "the audio file is damaged: its headers cannot be read", hint="it may be cut off; send the whole file"
            ) from error
        raise UnsupportedMedia("the bytes are of no known audio format", hint=f"send one of {FORMATS}") from error
    with container:
        try:
            yield container
        except av.FFmpegError as error:
            raise _broken_off("a part of it cannot be decoded") from error


def _announced_s(container: Any, stream: Any) -> float | None:
    """Length by the container, or None; a container's own duration may be that of its video, so it needs one stream."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1:
        return float(container.duration / 1_000_000)
    return None


def _frames(container: Any, stream: Any, *, trust_corrupt_flag: bool) -> Iterator[Any]:
    """Decoded frames. Undecodable packets are skipped only before the first sound: there they are leftovers of tags.

    FFmpeg also flags the last packet of a streamed WAV as cut, so WAV files are checked by their header instead.
    """
    import av

    heard = False
    for packet in container.demux(stream):
        if packet.is_corrupt and trust_corrupt_flag:
            raise _broken_off("a packet is cut short")
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            if heard:
                raise
            continue
        for frame in frames:
            heard = True
            yield frame
    if not heard and container.duration:
        raise UnreadableMedia("no part of the audio track can be decoded", hint="the file is damaged; send it again")


def _blocks(frames: Iterator[Any]) -> Iterator[tuple[Floats, int]]:
    """Mono blocks [n] with their rate in Hz; a block never spans a change of rate."""
    gathered: list[Floats] = []
    size = rate_hz = 0
    for frame in frames:
        if gathered and (size >= _BLOCK or frame.sample_rate != rate_hz):
            yield np.concatenate(gathered), rate_hz
            gathered, size = [], 0
        rate_hz = frame.sample_rate
        gathered.append(_mono(frame))
        size += frame.samples
    if gathered:
        yield np.concatenate(gathered), rate_hz


def _planes(frame: Any) -> Floats:
    values = _values(frame)
    return _scaled(values.astype(np.float32), values.dtype)


def _mono(frame: Any) -> Floats:
    values = _values(frame)
    return _scaled(values.mean(axis=0, dtype=np.float32), values.dtype)


def _values(frame: Any) -> Any:
    """Samples [channels, n] as the codec gives them."""
    values = frame.to_ndarray()
    return values if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels).T


def _scaled(values: Floats, kind: Any) -> Floats:
    """To [-1, 1], from the codec's kind of number."""
    if kind == np.uint8:
        return (values - np.float32(128)) / np.float32(128)
    return values / np.float32(-float(np.iinfo(kind).min)) if kind.kind == "i" else values


class _Resampled:
    """Passes blocks on at 16 kHz, and refuses more seconds than the limit.

    `source_s` is the length appended so far, before resampling; `samples` how many were passed on.
    """

    def __init__(self, sink: Sink, max_duration_s: float) -> None:
        self._sink = sink
        self._max_duration_s = max_duration_s
        self._rate_hz = SAMPLE_RATE_HZ
        self._resampler: Any = None
        self.source_s, self.samples = 0.0, 0

    def append(self, mono: Floats, rate_hz: int) -> None:
        """Take the next block [n]; one of another rate than the one before starts a new resampler."""
        if not np.isfinite(mono).all():
            raise UnreadableMedia("the audio holds values that are no numbers", hint="encode it again")
        if rate_hz != self._rate_hz:
            self.flush()
            self._rate_hz = rate_hz
            self._resampler = _resampler(rate_hz)
        self.source_s += len(mono) / rate_hz
        if self.source_s > self._max_duration_s:
            raise _too_long(self._max_duration_s)
        self._pass_on(mono if self._resampler is None else self._resampler.resample_chunk(mono))

    def flush(self) -> None:
        """Pass on what the resampler still holds."""
        if self._resampler is not None:
            self._pass_on(self._resampler.resample_chunk(np.empty(0, np.float32), last=True))
            self._resampler = None

    def _pass_on(self, samples: Floats) -> None:
        self.samples += len(samples)
        self._sink(samples)


def _resampler(rate_hz: int) -> Any:
    import soxr

    return None if rate_hz == SAMPLE_RATE_HZ else soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")


def _broken_off(what: str) -> UnreadableMedia:
    return UnreadableMedia(f"the audio file is damaged or cut off: {what}", hint="send the whole file again")


def _too_long(max_duration_s: float) -> TooLarge:
    return TooLarge(f"the recording is longer than {max_duration_s:g} s", hint="split it into shorter files")
