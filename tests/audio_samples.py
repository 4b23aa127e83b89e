"""Small sound files of every kind NeuroEdge decodes, made with PyAV."""

import io
import struct
import tempfile
from pathlib import Path
from typing import Literal

import av
import numpy as np

from neuroedge.contract.models import Floats

_KINDS = {
    "wav": ("wav", "pcm_s16le", ".wav"),
    "wav_f32": ("wav", "pcm_f32le", ".wav"),
    "flac": ("flac", "flac", ".flac"),
    "ogg_vorbis": ("ogg", "vorbis", ".ogg"),
    "ogg_opus": ("ogg", "libopus", ".ogg"),
    "mp3": ("mp3", "libmp3lame", ".mp3"),
    "m4a": ("ipod", "aac", ".m4a"),
    "m4a_faststart": ("mp4", "aac", ".m4a"),
    "webm": ("webm", "libopus", ".webm"),
}
KINDS = tuple(_KINDS)


def tone(seconds: float, *, rate_hz: int = 16_000, hz: float = 440.0, level: float = 0.5) -> Floats:
    """A sine [n] of peak `level`."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (level * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def make(kind: str, channels: Floats, *, rate_hz: int = 48_000, layout: str = "mono") -> bytes:
    """A file of one of KINDS from `channels` [ch, n] or [n] in [-1, 1]."""
    container_format, codec, suffix = _KINDS[kind]
    planes = np.ascontiguousarray(np.atleast_2d(channels))
    options = {"movflags": "faststart"} if kind == "m4a_faststart" else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"sound{suffix}")
        with av.open(str(path), "w", format=container_format, options=options) as container:
            stream = container.add_stream(codec, rate=rate_hz, layout=layout, options={"strict": "experimental"})
            frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
            frame.sample_rate = rate_hz
            frame.pts = 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path.read_bytes()


def frames(kind: Literal["mp3", "adts"], samples: Floats, *, rate_hz: int) -> bytes:
    """Mono frames of an MPEG stream one after the other, without any tag; `samples` [n] in [-1, 1]."""
    codec = {"mp3": "libmp3lame", "adts": "aac"}[kind]
    out = io.BytesIO()
    options = {"id3v2_version": "0", "write_xing": "0"} if kind == "mp3" else {}
    with av.open(out, "w", format=kind, options=options) as container:
        stream = container.add_stream(codec, rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.atleast_2d(samples), format="fltp", layout="mono")
        frame.sample_rate = rate_hz
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def wav8(channels: Floats, *, rate_hz: int = 48_000) -> bytes:
    """A PCM16 WAV of any number of channels [ch, n] that says nothing of where the speakers stand."""
    pcm = np.rint(channels.T * 32_767).astype("<i2").tobytes()
    n = len(channels)
    fmt = struct.pack("<HHIIHH", 1, n, rate_hz, rate_hz * n * 2, n * 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(pcm)) + pcm
    return b"RIFF" + struct.pack("<I", len(body)) + body


def silent_video() -> bytes:
    """An MP4 with pictures and no sound."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "film.mp4")
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            for _ in range(10):
                picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        return path.read_bytes()


def truncated(data: bytes, *, keep: float) -> bytes:
    """The first `keep` (0..1) of a file."""
    return data[: int(len(data) * keep)]
