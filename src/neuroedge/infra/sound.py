"""Sound with its channels and rate: decoded by FFmpeg (PyAV), cleaned by its filters, resampled by soxr.

Noise is reduced by afftdn: each band of a short-time spectrum is attenuated by what its power says of speech being
there, against a noise floor that is given or tracked (the MMSE estimator of Ephraim & Malah 1984). It can take away
speech that is as soft as the noise.
"""

import asyncio
import io
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from neuroedge.contract.errors import EmptyMedia, TooLarge, Unavailable, UnreadableMedia
from neuroedge.contract.models import Floats
from neuroedge.contract.ports import AudioSource, Channels
from neuroedge.infra.media import PyAVMedia, native_blocks

_BLOCK: Final = 1 << 16
_HOPS_PER_S: Final = 80
"""Of afftdn, whose window is three hops long and whose sound comes two hops late."""
_LEAST_FLOOR_DB, _MOST_FLOOR_DB = -80.0, -20.0
"""What afftdn takes as a noise floor."""


class PyAVSound:
    """The Sound port."""

    def __init__(self, media: PyAVMedia) -> None:
        self._media = media

    async def channels(self, source: AudioSource, *, max_duration_s: float) -> Channels:
        """Decode without mixing or resampling. Raises what decode raises; TooLarge for a longer one."""
        async with self._media.encoded(source) as data:
            return await asyncio.to_thread(_channels, data, max_duration_s)

    async def denoised(self, sound: Channels, *, strength_db: float, floor_dbfs: float | None) -> Channels:
        """Less stationary noise, as long as before. Without `floor_dbfs` the filter follows the noise by itself."""
        floor_db = -50.0 if floor_dbfs is None else min(max(floor_dbfs, _LEAST_FLOOR_DB), _MOST_FLOOR_DB)
        options = f"nr={strength_db:g}:nf={floor_db:.1f}:tn={int(floor_dbfs is None)}"
        samples = await asyncio.to_thread(_filtered, sound, options)
        return Channels(samples=samples, rate_hz=sound.rate_hz)

    async def resampled(self, sound: Channels, *, rate_hz: int) -> Channels:
        """The same sound at another rate, without aliases."""
        if rate_hz == sound.rate_hz:
            return sound
        samples = await asyncio.to_thread(_resampled, sound, rate_hz)
        return Channels(samples=samples, rate_hz=rate_hz)


def _channels(source: bytes | Path, max_duration_s: float) -> Channels:
    blocks: list[Floats] = []
    size = rate_hz = 0
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as handle:
        for block, at_hz in native_blocks(handle):
            if blocks and (at_hz != rate_hz or len(block) != len(blocks[0])):
                raise UnreadableMedia("the file changes its rate or channels on the way", hint="encode it again")
            if not np.isfinite(block).all():
                raise UnreadableMedia("the audio holds values that are no numbers", hint="encode it again")
            blocks.append(block)
            rate_hz, size = at_hz, size + block.shape[1]
            if size > max_duration_s * rate_hz:
                raise TooLarge(
                    f"sound is processed up to {max_duration_s:g} s", hint="split it, or leave `process` and `channels`"
                )
    if not size:
        raise EmptyMedia("the audio track holds no sound", hint="record again")
    return Channels(samples=np.clip(np.concatenate(blocks, axis=1), -1.0, 1.0), rate_hz=rate_hz)


def _filtered(sound: Channels, options: str) -> Floats:
    """Every channel through a filter of its own: their noise need not be the same."""
    late = 2 * (sound.rate_hz // _HOPS_PER_S)
    padded = np.pad(sound.samples, ((0, 0), (0, late)))
    return np.stack([_through(channel, sound.rate_hz, options)[late:] for channel in padded])


def _through(channel: Floats, rate_hz: int, options: str) -> Floats:
    import av
    from av.filter import Graph

    try:
        graph = Graph()
        source = graph.add_abuffer(
            sample_rate=rate_hz, format="fltp", layout="mono", time_base=Fraction(1, rate_hz), name="in"
        )
        nodes = [source, graph.add("afftdn", options), graph.add("aformat", "sample_fmts=fltp:channel_layouts=mono")]
        nodes.append(graph.add("abuffersink"))
        graph.link_nodes(*nodes).configure()
        found: list[Floats] = []
        for start in range(0, len(channel), _BLOCK):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(channel[None, start : start + _BLOCK]), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
            graph.push(frame)
            _pull(graph, found)
        graph.push(None)
        _pull(graph, found)
    except (av.FFmpegError, ValueError) as error:
        raise Unavailable("the noise filter failed", hint="the installed FFmpeg may lack it") from error
    whole = np.concatenate(found) if found else np.zeros(0, np.float32)
    fitted = np.zeros(len(channel), np.float32)
    fitted[: len(whole)] = whole[: len(channel)]
    return np.clip(fitted, -1.0, 1.0)


def _pull(graph: "object", found: list[Floats]) -> None:
    import av

    while True:
        try:
            frame = graph.pull()  # type: ignore[attr-defined]
        except (av.BlockingIOError, av.EOFError):
            return
        found.append(frame.to_ndarray()[0])


def _resampled(sound: Channels, rate_hz: int) -> Floats:
    import soxr

    samples: Floats = soxr.resample(sound.samples.T, sound.rate_hz, rate_hz).T
    return np.ascontiguousarray(np.clip(samples, -1.0, 1.0), dtype=np.float32)
