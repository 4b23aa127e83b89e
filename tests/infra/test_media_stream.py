"""Sound is decoded as it arrives: PCM at any rate, Opus in WebM and Ogg; what is no sound is refused."""

import io
import threading
from collections.abc import Iterator
from typing import Literal

import av
import numpy as np
import pytest
import soxr

from neuroedge.contract.errors import InvalidInput, UnreadableMedia, UnsupportedMedia
from neuroedge.contract.models import Floats
from neuroedge.infra.media_stream import AudioStream, ContainerStream, open_stream
from tests.audio_samples import make, tone

Container = Literal["webm_opus", "ogg_opus", "mp4"]
FORMATS: dict[Container, tuple[str, str, dict[str, str]]] = {
    "webm_opus": ("webm", "libopus", {"cluster_time_limit": "100", "live": "1"}),
    "ogg_opus": ("ogg", "libopus", {"page_duration": "100000"}),
    "mp4": ("mp4", "aac", {"movflags": "empty_moov+default_base_moof+frag_every_frame"}),
}


def encoded(samples: Floats, encoding: Container, *, codec: str | None = None) -> bytes:
    """As a browser's recorder writes it: short clusters, no index."""
    out = io.BytesIO()
    form, usual, options = FORMATS[encoding]
    rate_hz = 48_000
    with av.open(out, "w", format=form, options=options) as container:
        stream = container.add_stream(codec or usual, rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            soxr.resample(samples, 16_000, rate_hz).astype(np.float32).reshape(1, -1), format="fltp", layout="mono"
        )
        frame.sample_rate = rate_hz
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return out.getvalue()


def fed(stream: AudioStream, data: bytes, *, step: int) -> tuple[Floats, Floats]:
    """What came while `data` was pushed, and at the end."""
    during = [piece for start in range(0, len(data), step) for piece in stream.push(data[start : start + step])]
    after = list(stream.finish())
    stream.close()
    nothing = [np.empty(0, np.float32)]
    return np.concatenate(nothing + during), np.concatenate(nothing + after)


def in_time(stream: AudioStream, data: bytes) -> Floats:
    """All of its sound, or what it raised; fails when it hangs."""
    found: list[Floats | Exception] = []

    def listen() -> None:
        try:
            found.append(np.concatenate(fed(stream, data, step=500)))
        except Exception as error:
            found.append(error)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    listener.join(timeout=60)
    stream.close()
    assert found, "it hangs"
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


@pytest.mark.parametrize("step", [1, 999, 100_000])
def test_pcm_is_the_same_however_it_is_cut(step: int) -> None:
    """Also within a sample."""
    samples = tone(0.5)
    during, after = fed(
        open_stream("pcm16", sample_rate_hz=16_000), (samples * 32_768).round().astype("<i2").tobytes(), step=step
    )
    assert not len(after)
    assert during == pytest.approx(samples, abs=1e-4)


@pytest.mark.parametrize("rate_hz", [8_000, 24_000, 44_100, 48_000])
def test_pcm_of_another_rate_is_resampled(rate_hz: int) -> None:
    """The length is right, and a tone stays the tone it was."""
    there = soxr.resample(tone(2.0), 16_000, rate_hz)
    during, after = fed(
        open_stream("pcm16", sample_rate_hz=rate_hz), (there * 32_767).astype("<i2").tobytes(), step=4_000
    )
    whole = np.concatenate([during, after])
    assert len(whole) / 16_000 == pytest.approx(2.0, abs=0.01)
    spectrum = np.abs(np.fft.rfft(whole)), np.abs(np.fft.rfft(tone(2.0)))
    assert np.argmax(spectrum[0]) / len(whole) == pytest.approx(np.argmax(spectrum[1]) / 32_000, abs=1e-3)


@pytest.mark.parametrize("rate_hz", [0, -1, 7_999, 192_001])
def test_a_rate_nobody_records_at_is_refused(rate_hz: int) -> None:
    """With the range there is."""
    with pytest.raises(InvalidInput, match="Hz"):
        open_stream("pcm16", sample_rate_hz=rate_hz)


@pytest.mark.parametrize(
    ("encoding", "codec"), [("webm_opus", "libopus"), ("ogg_opus", "libopus"), ("mp4", "aac"), ("mp4", "libopus")]
)
def test_a_recorders_chunks_are_decoded_while_they_arrive(encoding: Container, codec: str) -> None:
    """Nearly all of it is there before the end is known, and it is the sound that was recorded."""
    samples = tone(3.0)
    data = encoded(samples, encoding, codec=codec)
    during, after = fed(open_stream(encoding, sample_rate_hz=48_000), data, step=400)
    assert len(during) / 16_000 > 2.8
    whole = np.concatenate([during, after])
    assert len(whole) / 16_000 == pytest.approx(3.0, abs=0.05)
    power = float(np.mean(whole[8_000:40_000] ** 2) / np.mean(samples[8_000:40_000] ** 2))
    assert power == pytest.approx(1.0, abs=0.15)


def test_what_is_not_what_it_is_said_to_be_is_refused_at_once() -> None:
    """Ogg sent as WebM, a WAV file, random bytes."""
    for data in (encoded(tone(0.5), "ogg_opus"), b"RIFF0000WAVEfmt ", np.random.default_rng(0).bytes(1000)):
        stream = open_stream("webm_opus", sample_rate_hz=48_000)
        with pytest.raises(UnsupportedMedia, match="no matroska stream"):
            list(stream.push(data))
        stream.close()


def test_an_mp4_with_its_index_at_the_end_is_no_stream() -> None:
    """As a file on disk has it: nothing of it can be heard before its end, and the way for files is named."""
    data = make("m4a", tone(90.0, rate_hz=48_000))
    stream = open_stream("mp4", sample_rate_hz=48_000)
    with pytest.raises(UnreadableMedia) as refused:
        fed(stream, data, step=20_000)
    stream.close()
    assert "/v1/recordings" in (refused.value.hint or "")


@pytest.mark.parametrize("size", [9, 700, 5_000])
def test_an_mp4_that_is_cut_or_garbled_is_refused_or_short(size: int) -> None:
    """A few bytes, half a fragment, and noise in the middle: an error of ours or less sound, never more."""
    data = encoded(tone(1.0), "mp4")
    noise = np.random.default_rng(0).bytes(50_000)
    for broken in (data[:size], data[:size] + noise, data[:size] + data[size + 100 :]):
        stream = open_stream("mp4", sample_rate_hz=48_000)
        try:
            during, after = fed(stream, broken, step=999)
        except (UnreadableMedia, UnsupportedMedia):
            stream.close()
        else:
            assert (len(during) + len(after)) / 16_000 <= 1.1


def test_a_broken_container_is_refused() -> None:
    """The first bytes are right, and then there is no sound, or nothing that can be read."""
    noise = np.random.default_rng(0).bytes(300_000)
    for data in (b"\x1a\x45\xdf\xa3" + noise, b"\x1a\x45\xdf\xa3" + bytes(300_000)):
        stream = open_stream("webm_opus", sample_rate_hz=48_000)
        with pytest.raises((UnreadableMedia, UnsupportedMedia)):
            fed(stream, data * 5, step=50_000)
        stream.close()


def test_a_container_with_another_codec_is_refused() -> None:
    """Vorbis is not what was said to come."""
    stream = open_stream("ogg_opus", sample_rate_hz=48_000)
    with pytest.raises(UnsupportedMedia, match="vorbis, not opus"):
        fed(stream, make("ogg_vorbis", np.stack([tone(1.0, rate_hz=48_000)] * 2), layout="stereo"), step=500)
    stream.close()


def test_a_codec_nobody_knows_is_refused() -> None:
    """FFmpeg has no decoder for it; the refusal comes with the sound or, at the latest, with its end."""
    stream = open_stream("webm_opus", sample_rate_hz=48_000)
    with pytest.raises(UnsupportedMedia, match="an unknown codec, not opus"):
        in_time(stream, encoded(tone(1.0), "webm_opus").replace(b"A_OPUS", b"A_OPUX"))


def test_a_decoder_that_crashes_is_told_as_unreadable_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises: whoever waits for the sound does not wait for ever."""

    def crash(_: ContainerStream) -> Iterator[Floats]:
        raise ZeroDivisionError("a bug")
        yield np.empty(0, np.float32)

    monkeypatch.setattr(ContainerStream, "_decoded", crash)
    stream = ContainerStream("webm_opus")
    with pytest.raises(UnreadableMedia, match="cannot be decoded") as refused:
        in_time(stream, encoded(tone(0.5), "webm_opus"))
    assert "a bug" not in str(refused.value), "nothing internal is told"


def test_the_end_does_not_wait_for_a_thread_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ended without a word: what it had found is given, and then it is over."""

    def leave(stream: ContainerStream) -> None:
        stream._give(tone(0.5))
        stream._pipe.abandon()

    monkeypatch.setattr(ContainerStream, "_run", leave)
    stream = ContainerStream("webm_opus")
    assert len(in_time(stream, encoded(tone(0.5), "webm_opus"))) == 8_000


def test_an_end_without_any_bytes_is_no_error() -> None:
    """Who connects and leaves again has sent nothing wrong."""
    for encoding in ("pcm16", "webm_opus", "ogg_opus", "mp4"):
        stream = open_stream(encoding, sample_rate_hz=48_000)  # type: ignore[arg-type]
        assert list(stream.finish()) == []
        stream.close()


def test_closing_in_the_middle_ends_the_thread() -> None:
    """Whatever it was doing: waiting for bytes, or for somebody to take the sound."""
    data = encoded(tone(60.0), "webm_opus")
    waiting = ContainerStream("webm_opus")
    list(waiting.push(data[:3_000]))
    full = ContainerStream("webm_opus")
    next(full.push(data))
    for stream in (waiting, full):
        stream.close()
        stream._thread.join(timeout=60)
        assert not stream._thread.is_alive()
