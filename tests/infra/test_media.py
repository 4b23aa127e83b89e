"""Decoding: every format, every way a file can be wrong."""

import asyncio
import base64
import io
import struct
import subprocess
import sys
import threading
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from neuroedge.contract.errors import (
    EmptyMedia,
    InvalidInput,
    NeuroEdgeError,
    NotFound,
    Overloaded,
    TooLarge,
    Unavailable,
    UnreadableMedia,
    UnsupportedMedia,
)
from neuroedge.contract.models import Floats
from neuroedge.contract.ports import AudioSource
from neuroedge.infra.decode_slots import DecodeSlots
from neuroedge.infra.media import AudioFacts, PyAVMedia, decode, decode_to_wav, encode_wav
from tests import audio_samples
from tests.fakes import FakeBlobs

LIMIT_S = 60.0


def stereo(seconds: float, *, rate_hz: int = 48_000) -> Floats:
    """A tone on both channels [2, n]."""
    return np.stack([audio_samples.tone(seconds, rate_hz=rate_hz)] * 2)


def frequency_hz(samples: Floats) -> float:
    """The strongest frequency."""
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * 16_000 / len(samples))


@pytest.mark.parametrize("kind", audio_samples.KINDS)
def test_decodes_every_format_to_the_tone_that_was_encoded(kind: str) -> None:
    """Length, pitch and level survive; the file's own rate and channels are told."""
    audio = decode(audio_samples.make(kind, stereo(2.0), layout="stereo"), max_duration_s=LIMIT_S)
    assert audio.duration_s == pytest.approx(2.0, abs=0.03)
    assert audio.samples.dtype == np.float32
    assert frequency_hz(audio.samples) == pytest.approx(440, abs=2)
    assert np.abs(audio.samples[8_000:24_000]).max() == pytest.approx(0.5, abs=0.03)
    assert np.abs(audio.samples).max() <= 1
    assert (audio.source_rate_hz, audio.source_channels) == (48_000, 2)


@pytest.mark.parametrize(
    ("kind", "codec", "container"),
    [
        ("wav", "pcm_s16le", "wav"),
        ("flac", "flac", "flac"),
        ("ogg_opus", "opus", "ogg"),
        ("mp3", "mp3", "mp3"),
        ("m4a", "aac", "mp4"),
        ("webm", "opus", "matroska"),
    ],
)
def test_says_how_the_file_was_encoded(kind: str, codec: str, container: str) -> None:
    """Codec and container have one plain name each."""
    audio = decode(audio_samples.make(kind, stereo(0.5), layout="stereo"), max_duration_s=LIMIT_S)
    assert (audio.codec, audio.container) == (codec, container)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg_opus", "mp3", "m4a", "m4a_faststart", "webm"])
@pytest.mark.parametrize("keep", [0.9, 0.6, 0.3])
def test_a_cut_file_is_unreadable(kind: str, keep: float) -> None:
    """Whatever the format, a broken-off upload is refused instead of being analysed as if it were whole."""
    data = audio_samples.make(kind, stereo(3.0), layout="stereo")
    with pytest.raises(UnreadableMedia) as caught:
        decode(audio_samples.truncated(data, keep=keep), max_duration_s=LIMIT_S)
    assert caught.value.hint


def test_a_cut_native_wav_is_unreadable() -> None:
    """The fast path checks the announced size too."""
    with pytest.raises(UnreadableMedia):
        decode(audio_samples.truncated(encode_wav(audio_samples.tone(1.0)), keep=0.7), max_duration_s=LIMIT_S)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_streamed_wav_without_announced_size_is_read_to_its_end(size: int) -> None:
    """Writers into a pipe cannot say the size; such a file is whole."""
    data = bytearray(encode_wav(audio_samples.tone(1.0)))
    data[40:44] = struct.pack("<I", size)
    assert decode(bytes(data), max_duration_s=LIMIT_S).duration_s == 1.0


def test_a_streamed_wav_of_another_rate_is_read_to_its_end() -> None:
    """The same without the fast path, where the decoder marks the last packet as cut."""
    data = bytearray(audio_samples.wav8(stereo(1.0)))
    data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    assert decode(bytes(data), max_duration_s=LIMIT_S).duration_s == pytest.approx(1.0, abs=0.01)


def test_garbage_in_the_middle_of_a_flac_is_unreadable() -> None:
    """A stream that breaks after its first sound is refused."""
    data = bytearray(audio_samples.make("flac", stereo(3.0), layout="stereo"))
    data[len(data) // 2 : len(data) // 2 + 4_000] = bytes(4_000)
    with pytest.raises(UnreadableMedia):
        decode(bytes(data), max_duration_s=LIMIT_S)


def test_no_bytes_is_empty() -> None:
    """An empty upload has its own error."""
    with pytest.raises(EmptyMedia):
        decode(b"", max_duration_s=LIMIT_S)


def test_a_wav_without_samples_is_empty() -> None:
    """A header alone holds no sound."""
    with pytest.raises(EmptyMedia):
        decode(encode_wav(np.empty(0, np.float32)), max_duration_s=LIMIT_S)


def test_a_video_without_sound_is_empty() -> None:
    """No audio track is said in words."""
    with pytest.raises(EmptyMedia, match="no audio track"):
        decode(audio_samples.silent_video(), max_duration_s=LIMIT_S)


@pytest.mark.parametrize(
    "data",
    [
        b"this is no sound at all, only text\n" * 50,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        b"\x00",
    ],
    ids=["text", "playlist", "concat script", "picture", "one byte"],
)
def test_bytes_of_no_audio_format_are_unsupported(data: bytes, tmp_path: Path) -> None:
    """A file's name does not make it sound, and playlists that name other files are never followed."""
    path = tmp_path / "renamed.wav"
    path.write_bytes(data)
    with pytest.raises(UnsupportedMedia) as caught:
        decode(path, max_duration_s=LIMIT_S)
    assert caught.value.status == 415
    assert "WAV" in (caught.value.hint or "")


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg_opus", "webm", "m4a"])
def test_longer_than_the_limit_is_too_large(kind: str) -> None:
    """The limit holds for files that announce their length and for those that don't."""
    data = audio_samples.make(kind, stereo(3.0), layout="stereo")
    with pytest.raises(TooLarge):
        decode(data, max_duration_s=2.0)


def test_a_native_wav_longer_than_the_limit_is_too_large() -> None:
    """The fast path has the same limit."""
    with pytest.raises(TooLarge):
        decode(encode_wav(audio_samples.tone(3.0)), max_duration_s=2.0)


def test_eight_channels_are_mixed_by_their_mean() -> None:
    """A WAV of eight channels without positions decodes; a voice on any of them is kept."""
    channels = np.zeros((8, 48_000), np.float32)
    channels[5] = audio_samples.tone(1.0, rate_hz=48_000, level=0.8)
    audio = decode(audio_samples.wav8(channels), max_duration_s=LIMIT_S)
    assert audio.source_channels == 8
    assert np.abs(audio.samples[4_000:12_000]).max() == pytest.approx(0.1, abs=0.002)


def test_a_tenth_of_a_second_decodes() -> None:
    """Whether that is enough is the engines' to say."""
    assert decode(encode_wav(audio_samples.tone(0.1)), max_duration_s=LIMIT_S).duration_s == 0.1


def test_eight_bit_samples_are_centred() -> None:
    """Unsigned samples become symmetric around zero."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1)
        out.setframerate(16_000)
        out.writeframes(bytes([0, 128, 255]) * 1_000)
    samples = decode(file.getvalue(), max_duration_s=LIMIT_S).samples
    assert samples[:3] == pytest.approx([-1.0, 0.0, 127 / 128])


def test_samples_that_are_no_numbers_are_unreadable() -> None:
    """NaN in a float WAV would poison every model behind it."""
    data = bytearray(audio_samples.make("wav_f32", audio_samples.tone(0.5, rate_hz=48_000)))
    data[-4:] = struct.pack("<f", float("nan"))
    with pytest.raises(UnreadableMedia, match="no numbers"):
        decode(bytes(data), max_duration_s=LIMIT_S)


def test_float_samples_beyond_full_scale_are_clipped() -> None:
    """The contract's range holds whatever the file says."""
    data = audio_samples.make("wav_f32", 3 * audio_samples.tone(0.5, rate_hz=48_000, level=1.0))
    assert np.abs(decode(data, max_duration_s=LIMIT_S).samples).max() == 1.0


def test_what_was_encoded_comes_back() -> None:
    """encode_wav and decode are inverse to a quantisation step; values beyond full scale are clipped."""
    samples = np.array([0.0, 0.25, -0.5, 1.5, -1.5] * 100, np.float32)
    back = decode(encode_wav(samples), max_duration_s=LIMIT_S).samples
    assert back == pytest.approx(np.clip(samples, -1, 1), abs=1 / 32_768)


@pytest.mark.anyio
async def test_reads_base64_and_blobs() -> None:
    """Both kinds of source give the same waveform; line breaks in base64 are fine."""
    blobs = FakeBlobs()
    data = encode_wav(audio_samples.tone(0.5))
    await blobs.put("call.wav", data)
    media = PyAVMedia(blobs=blobs, max_bytes=1_000_000, max_duration_s=LIMIT_S)
    stored = await media.audio(AudioSource(blob="call.wav"))
    sent = await media.audio(AudioSource(base64=base64.encodebytes(data).decode()))
    assert np.array_equal(stored.samples, sent.samples)


@pytest.mark.anyio
async def test_bad_sources_have_their_errors() -> None:
    """Broken base64, empty base64, an unknown blob, and too many bytes on either way."""
    blobs = FakeBlobs()
    await blobs.put("big.wav", bytes(2_000))
    media = PyAVMedia(blobs=blobs, max_bytes=1_000, max_duration_s=LIMIT_S)
    with pytest.raises(InvalidInput, match="base64"):
        await media.audio(AudioSource(base64="no*base64"))
    with pytest.raises(InvalidInput, match="base64"):
        await media.audio(AudioSource(base64="Zürich"))
    with pytest.raises(EmptyMedia):
        await media.audio(AudioSource(base64=""))
    with pytest.raises(NotFound):
        await media.audio(AudioSource(blob="none.wav"))
    with pytest.raises(TooLarge):
        await media.audio(AudioSource(blob="big.wav"))
    with pytest.raises(TooLarge):
        await media.audio(AudioSource(base64=base64.b64encode(bytes(2_000)).decode()))


def to_wav(data: bytes, folder: Path, *, max_duration_s: float = LIMIT_S) -> tuple[bytes, AudioFacts]:
    """What decode_to_wav makes of a file's bytes; a failure must leave no file behind."""
    source, target = folder / "upload", folder / "audio.wav"
    source.write_bytes(data)
    try:
        facts = decode_to_wav(source, target, max_duration_s=max_duration_s)
    except NeuroEdgeError:
        assert not target.exists()
        raise
    return target.read_bytes(), facts


def _noise(seconds: float, *, rate_hz: int) -> Floats:
    noise = np.random.default_rng(1).normal(0, 1.5, round(seconds * rate_hz))
    return np.asarray(noise, np.float32)


@pytest.mark.parametrize("kind", audio_samples.KINDS)
def test_a_file_becomes_the_same_wav_in_pieces_as_in_one(kind: str, tmp_path: Path) -> None:
    """Byte for byte what decode and encode_wav make of it, over many blocks, with clipping; and the same facts."""
    data = audio_samples.make(kind, np.stack([_noise(5.0, rate_hz=48_000)] * 2), layout="stereo")
    audio = decode(data, max_duration_s=LIMIT_S)
    wav, facts = to_wav(data, tmp_path)
    assert wav == encode_wav(audio.samples)
    told = (audio.duration_s, audio.source_rate_hz, audio.source_channels, audio.codec, audio.container)
    assert told == (facts.duration_s, facts.source_rate_hz, facts.source_channels, facts.codec, facts.container)
    assert np.abs(audio.samples).max() == 1.0


def test_a_native_wav_comes_through_unchanged(tmp_path: Path) -> None:
    """16 kHz mono PCM16, longer than a block: the same bytes, with a header that tells their number."""
    data = encode_wav(_noise(9.0, rate_hz=16_000))
    wav, facts = to_wav(data, tmp_path)
    assert wav == data
    assert facts == AudioFacts(
        duration_s=9.0, source_rate_hz=16_000, source_channels=1, codec="pcm_s16le", container="wav"
    )
    with wave.open(io.BytesIO(wav)) as file:
        assert (file.getnframes(), file.getframerate(), file.getnchannels(), file.getsampwidth()) == (
            144_000,
            16_000,
            1,
            2,
        )


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg_opus", "mp3", "m4a", "webm", "native"])
def test_a_cut_file_leaves_no_wav(kind: str, tmp_path: Path) -> None:
    """That it is cut is seen at its end, after seconds of sound were written."""
    native = encode_wav(audio_samples.tone(3.0))
    data = native if kind == "native" else audio_samples.make(kind, stereo(3.0), layout="stereo")
    with pytest.raises(UnreadableMedia):
        to_wav(audio_samples.truncated(data, keep=0.7), tmp_path)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg_opus", "webm", "m4a", "native"])
def test_a_file_over_the_limit_leaves_no_wav(kind: str, tmp_path: Path) -> None:
    """Announced or found while decoding."""
    native = encode_wav(audio_samples.tone(3.0))
    data = native if kind == "native" else audio_samples.make(kind, stereo(3.0), layout="stereo")
    with pytest.raises(TooLarge):
        to_wav(data, tmp_path, max_duration_s=2.0)


def test_files_without_sound_leave_no_wav(tmp_path: Path) -> None:
    """No bytes, no samples, no audio track, no audio format, no numbers: each has the error that decode gives."""
    nan = bytearray(audio_samples.make("wav_f32", audio_samples.tone(0.5, rate_hz=48_000)))
    nan[-4:] = struct.pack("<f", float("nan"))
    cases: list[tuple[bytes, type[NeuroEdgeError], str]] = [
        (b"", EmptyMedia, "file is empty"),
        (encode_wav(np.empty(0, np.float32)), EmptyMedia, "holds no sound"),
        (audio_samples.silent_video(), EmptyMedia, "no audio track"),
        (b"this is no sound at all, only text\n" * 50, UnsupportedMedia, "no known audio format"),
        (bytes(nan), UnreadableMedia, "no numbers"),
    ]
    for data, error, said in cases:
        with pytest.raises(error, match=said) as caught:
            to_wav(data, tmp_path)
        assert type(caught.value) is error


def test_a_wav_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    """The caller's file is not to blame."""
    source = tmp_path / "upload"
    source.write_bytes(encode_wav(audio_samples.tone(0.5)))
    with pytest.raises(Unavailable, match="could not be written"):
        decode_to_wav(source, tmp_path / "no folder" / "audio.wav", max_duration_s=LIMIT_S)


_MEASURE = """
import sys, threading, time
from pathlib import Path
import numpy, psutil, soxr, av
from neuroedge.infra.media import decode_to_wav
source, target, warm = map(Path, sys.argv[1:])
decode_to_wav(warm, target, max_duration_s=60)
process, peak, done = psutil.Process(), 0, threading.Event()
def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, process.memory_info().rss)
base = process.memory_info().rss
watcher = threading.Thread(target=watch)
watcher.start()
facts = decode_to_wav(source, target, max_duration_s=4 * 3600)
done.set()
watcher.join()
print(facts.duration_s, target.stat().st_size, (peak - base) // 1_000_000)
"""


def test_an_hour_of_silence_does_not_fill_the_memory(tmp_path: Path) -> None:
    """A few hundred kilobytes of FLAC hold an hour; decoded in one piece it would take 230 MB and more."""
    source, warm = tmp_path / "silence.flac", tmp_path / "warm.flac"
    for path, minutes in ((source, 60), (warm, 0.1)):
        with soundfile.SoundFile(path, "w", samplerate=24_000, channels=1, format="FLAC") as file:
            for _ in range(round(minutes * 10)):
                file.write(np.zeros(24_000 * 6, np.int16))
    assert source.stat().st_size < 1_000_000
    answer = subprocess.run(
        [sys.executable, "-c", _MEASURE, source, tmp_path / "audio.wav", warm],
        check=True,
        capture_output=True,
        text=True,
    )
    duration_s, size, grown_mb = answer.stdout.split()
    assert (float(duration_s), int(size)) == (3600.0, 3600 * 32_000 + 44)
    assert int(grown_mb) < 30


async def _hold(slots: DecodeSlots, release: asyncio.Event, entered: list[int], number: int) -> None:
    async with slots:
        entered.append(number)
        await release.wait()


@pytest.mark.anyio
async def test_decodings_wait_for_a_slot_in_order_and_too_many_are_refused() -> None:
    """One decodes, two wait, the fourth is told when to come back; who leaves makes room."""
    slots, release, entered = DecodeSlots(max_waiting=2), asyncio.Event(), list[int]()
    tasks = [asyncio.create_task(_hold(slots, release, entered, i)) for i in range(3)]
    await asyncio.sleep(0)
    assert entered == [0]
    with pytest.raises(Overloaded, match="too many files") as caught:
        async with slots:
            pass
    assert (caught.value.retry_after_s or 0) > 0
    tasks[1].cancel()
    await asyncio.sleep(0)
    late = asyncio.create_task(_hold(slots, release, entered, 9))
    await asyncio.sleep(0)
    release.set()
    await asyncio.gather(tasks[0], tasks[2], late)
    assert entered == [0, 2, 9]


@pytest.mark.anyio
async def test_by_default_one_decodes_and_sixteen_wait() -> None:
    """The bounds without options."""
    slots, release, entered = DecodeSlots(), asyncio.Event(), list[int]()
    tasks = [asyncio.create_task(_hold(slots, release, entered, i)) for i in range(20)]
    await asyncio.sleep(0)
    assert entered == [0]
    release.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, Overloaded) for result in results) == 20 - 1 - 16


@pytest.mark.anyio
async def test_a_decoding_whose_caller_left_keeps_its_slot_until_its_thread_ends() -> None:
    """Threads cannot be cancelled: a second decoding must not run beside the one nobody waits for."""
    slots, gate, running = DecodeSlots(), threading.Event(), threading.Event()

    def work() -> None:
        running.set()
        gate.wait(60)
        raise UnreadableMedia("seen by nobody")

    leaving = asyncio.create_task(slots.run(work))
    await asyncio.to_thread(running.wait, 60)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    second = asyncio.create_task(slots.run(lambda: "decoded"))
    await asyncio.sleep(0.1)
    assert not second.done()
    gate.set()
    assert await second == "decoded"


@pytest.mark.anyio
async def test_a_decoding_that_fails_frees_its_slot() -> None:
    """Its error reaches the caller, by `run` and by `async with`."""
    slots = DecodeSlots(max_waiting=0)
    for _ in range(3):
        with pytest.raises(EmptyMedia):
            await slots.run(decode, b"", max_duration_s=LIMIT_S)
        await asyncio.sleep(0)
        with pytest.raises(EmptyMedia):
            async with slots:
                decode(b"", max_duration_s=LIMIT_S)


def test_a_long_waveform_lies_in_a_file_without_a_name(tmp_path: Path) -> None:
    """Eleven minutes: mapped, not held; its folder shows nothing, and writing into it changes only this copy."""
    path = tmp_path / "long.wav"
    samples = audio_samples.tone(60.0)
    path.write_bytes(encode_wav(np.tile(samples, 11)))
    folder = tmp_path / "scratch"
    folder.mkdir()
    audio = decode(path, max_duration_s=3600, tmp=folder)
    assert isinstance(audio.samples, np.memmap)
    assert list(folder.iterdir()) == []
    assert audio.duration_s == 660
    assert np.abs(audio.samples[-960_000:] - samples).max() < 1e-4
    audio.samples[:10] = 0.5
    assert audio.samples[:10].tolist() == [0.5] * 10


@pytest.mark.anyio
async def test_an_object_is_read_through_a_file_where_that_is_possible(tmp_path: Path) -> None:
    """`fetch` writes it below the folder for temporary files, where nothing is left of it."""

    async def fetch(key: str, target: Path) -> None:
        await asyncio.to_thread(target.write_bytes, encode_wav(audio_samples.tone(1.0)))

    media = PyAVMedia(blobs=FakeBlobs(), max_bytes=100_000, max_duration_s=10, tmp=tmp_path, fetch=fetch)
    assert (await media.audio(AudioSource(blob="a.wav"))).duration_s == 1.0
    assert not await asyncio.to_thread(lambda: list(tmp_path.iterdir()))
    small = PyAVMedia(blobs=FakeBlobs(), max_bytes=100, max_duration_s=10, tmp=tmp_path, fetch=fetch)
    with pytest.raises(TooLarge):
        await small.audio(AudioSource(blob="a.wav"))
