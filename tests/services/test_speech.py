"""Speech analysis: what bytes are taken for, and parts that fail alone."""

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from neuroedge.contract.errors import EmptyMedia, Forbidden, InvalidInput, NeuroEdgeError, UnreadableMedia
from neuroedge.infra.media import decode
from neuroedge.services.speech import PARTS, Ask, Part, analyse, sound
from tests import audio_samples
from tests.fakes import make_principal

pytestmark = pytest.mark.anyio
ASK = Ask(audio={"base64": "AAAA"}, expected_text="the sun", child_age_years=5, language="en")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _pcm(samples: np.ndarray) -> bytes:
    pcm: bytes = np.rint(samples * 32_767).astype("<i2").tobytes()
    return pcm


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
async def test_raw_samples_become_a_file_of_the_declared_rate(rate_hz: int) -> None:
    """A second is a second, whatever the rate."""
    found = sound(_b64(_pcm(audio_samples.tone(1.0, rate_hz=rate_hz))), sample_rate_hz=rate_hz)
    heard = decode(base64.b64decode(found.source["base64"]), max_duration_s=10)
    assert heard.duration_s == pytest.approx(1.0, abs=0.01)
    assert heard.source_rate_hz == rate_hz
    assert found.warnings == []


@pytest.mark.parametrize("kind", ["wav", "wav_f32", "flac", "ogg_opus", "mp3", "m4a", "webm"])
async def test_a_file_is_taken_as_it_is(kind: str) -> None:
    """Every format decoded elsewhere; an MP3 with its tag, an MP4, a WebM."""
    data = audio_samples.make(kind, audio_samples.tone(1.0, rate_hz=48_000))
    found = sound(_b64(data), sample_rate_hz=48_000)
    assert base64.b64decode(found.source["base64"]) == data
    assert found.warnings == []


async def test_an_mp3_without_a_tag_is_a_file_and_samples_that_start_like_one_are_not() -> None:
    """0xFFFB is MPEG's sync, and -1025 in PCM16."""
    mp3 = audio_samples.make("mp3", audio_samples.tone(1.0, rate_hz=48_000))
    bare = mp3[mp3.index(b"\xff\xfb") :]
    assert base64.b64decode(sound(_b64(bare), sample_rate_hz=48_000).source["base64"]) == bare
    pcm = b"\xff\xfb" + _pcm(audio_samples.tone(0.5))
    assert base64.b64decode(sound(_b64(pcm), sample_rate_hz=16_000).source["base64"])[:4] == b"RIFF"


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
async def test_an_mp3_of_any_rate_is_a_file_without_a_tag_and_with_a_checksum(rate_hz: int) -> None:
    """MPEG-1, 2 and 2.5: telephone recordings have 8 kHz."""
    mp3 = audio_samples.frames("mp3", audio_samples.tone(1.0, rate_hz=rate_hz), rate_hz=rate_hz)
    assert mp3[:1] == b"\xff"
    assert base64.b64decode(sound(_b64(mp3), sample_rate_hz=rate_hz).source["base64"]) == mp3
    assert decode(mp3, max_duration_s=10).duration_s == pytest.approx(1.0, abs=0.25)
    # Each frame's protection bit off: its checksum would follow, but only the frames' places are looked at.
    checked = mp3.replace(mp3[:2], bytes([0xFF, mp3[1] & 0xFE]))
    assert base64.b64decode(sound(_b64(checked), sample_rate_hz=rate_hz).source["base64"]) == checked


@pytest.mark.parametrize("version", [0, 1], ids=["mpeg4", "mpeg2"])
async def test_a_stream_of_aac_is_a_file(version: int) -> None:
    """ADTS, as FFmpeg writes it, and as encoders that say MPEG-2."""
    adts = audio_samples.frames("adts", audio_samples.tone(1.0, rate_hz=16_000), rate_hz=16_000)
    adts = adts.replace(adts[:2], bytes([0xFF, adts[1] | version << 3]))
    assert base64.b64decode(sound(_b64(adts), sample_rate_hz=16_000).source["base64"]) == adts
    assert decode(adts, max_duration_s=10).duration_s == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("sync", [b"\xe3", b"\xe2", b"\xf2", b"\xf9", b"\xf1"])
async def test_quiet_samples_after_one_that_looks_like_a_frame_are_samples(sync: bytes) -> None:
    """Small negative samples are full of 0xFF: a second frame has to look as the first one does."""
    noise = np.random.default_rng(1).normal(-60, 20, 16_000).astype("<i2").tobytes()
    for third in (0x10, 0x18, 0x50, 0x90):
        pcm = b"\xff" + sync + bytes([third, 0xFF]) + noise
        assert base64.b64decode(sound(_b64(pcm), sample_rate_hz=16_000).source["base64"])[:4] == b"RIFF"


async def test_a_wrong_declared_rate_of_a_file_is_told_and_not_used() -> None:
    """Its header knows better."""
    data = audio_samples.make("wav", audio_samples.tone(1.0, rate_hz=48_000))
    found = sound(_b64(data), sample_rate_hz=8_000)
    assert "8000 Hz" in found.warnings[0]
    assert "48000 Hz" in found.warnings[0]
    assert sound(_b64(data), sample_rate_hz=None).warnings == []


async def test_samples_that_are_noise_are_told() -> None:
    """Bytes of the wrong order, or of something else."""
    tone = np.rint(audio_samples.tone(1.0) * 32_767).astype(">i2").tobytes()
    assert "look like noise" in sound(_b64(tone), sample_rate_hz=16_000).warnings[0]
    assert sound(_b64(bytes(3200)), sample_rate_hz=16_000).warnings == []


@pytest.mark.parametrize(
    ("text", "rate_hz", "error"),
    [
        ("this is no base64!", 16_000, InvalidInput),
        ("AAA", 16_000, InvalidInput),
        ("", 16_000, EmptyMedia),
        ("data:audio/wav;base64,", 16_000, EmptyMedia),
        (_b64(b"abc"), 16_000, InvalidInput),
        (_b64(b"abcd"), None, InvalidInput),
    ],
    ids=["no base64", "cut base64", "nothing", "empty data url", "odd bytes", "no rate"],
)
async def test_what_is_no_sound_is_refused(text: str, rate_hz: int | None, error: type[NeuroEdgeError]) -> None:
    """422, each with what to do."""
    with pytest.raises(error) as raised:
        sound(text, sample_rate_hz=rate_hz)
    assert raised.value.status == 422
    assert raised.value.hint


async def test_a_data_url_and_line_breaks_are_fine() -> None:
    """As browsers and mail tools write them."""
    text = _b64(_pcm(audio_samples.tone(0.1)))
    broken = "data:audio/pcm;base64," + "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    assert sound(broken, sample_rate_hz=16_000).source == sound(text, sample_rate_hz=16_000).source


class Answer(BaseModel):
    """Any engine's."""

    name: str
    segments: list[dict[str, Any]]


class Runner:
    """Answers by name, or raises; remembers what it was asked and how many ran at once."""

    def __init__(self, **failing: Exception) -> None:
        self._failing = failing
        self.asked: dict[str, Mapping[str, Any]] = {}
        self.running = self.most = 0
        self.together, self.go = asyncio.Event(), asyncio.Event()
        """The first is set when three run; until the second is, none of them ends."""
        self.go.set()

    async def run(self, name: str, payload: Mapping[str, Any], **caller: Any) -> Answer:
        """One call."""
        self.asked[name] = payload
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running == 3:
            self.together.set()
        try:
            await asyncio.sleep(0)
            await self.go.wait()
            if name in self._failing:
                raise self._failing[name]
            return Answer(name=name, segments=[{"words": [{"w": "sun", "start_s": 0.0, "end_s": 1.0, "p": 1.0}]}])
        finally:
            self.running -= 1


async def _analyse(runner: Runner, ask: Ask = ASK) -> dict[str, Part]:
    return await analyse(runner, ask, principal=make_principal(), request_id="r")  # type: ignore[arg-type]


async def test_all_parts_are_asked_at_once_and_fluency_gets_the_words() -> None:
    """Three run side by side; fluency follows the transcription."""
    runner = Runner()
    runner.go.clear()
    work = asyncio.create_task(_analyse(runner))
    await asyncio.wait_for(runner.together.wait(), 60)
    runner.go.set()
    parts = await work
    assert tuple(parts) == PARTS
    assert all(part.result and part.error is None for part in parts.values())
    assert runner.most == 3
    assert [w["w"] for w in runner.asked["fluency"]["words"]] == ["sun"]
    assert runner.asked["articulation"]["child_age_years"] == 5
    assert runner.asked["prosody"] == {"audio": {"base64": "AAAA"}, "task": "speech"}


async def test_a_part_that_fails_leaves_the_others() -> None:
    """A known error with its code; a crash tells nothing internal. Fluency goes on without words."""
    runner = Runner(transcription=Forbidden("not allowed"), prosody=ValueError("a secret detail"))
    parts = await _analyse(runner)
    assert isinstance(parts["transcription"].error, Forbidden)
    assert parts["prosody"].error is not None
    assert parts["prosody"].error.code == "internal"
    assert "secret" not in parts["prosody"].error.detail
    assert parts["fluency"].result
    assert runner.asked["fluency"]["words"] is None


async def test_without_expected_text_articulation_is_not_asked() -> None:
    """The part says what it needs."""
    runner = Runner()
    parts = await _analyse(runner, Ask(audio={"base64": "AAAA"}))
    assert "articulation" not in runner.asked
    assert parts["articulation"].error is not None
    assert parts["articulation"].error.code == "not_asked"


async def test_when_no_part_can_answer_the_error_is_raised() -> None:
    """A broken file concerns the whole request."""
    failing = {name: UnreadableMedia("the file is damaged") for name in PARTS}
    with pytest.raises(UnreadableMedia):
        await _analyse(Runner(**failing), Ask(audio={"base64": "AAAA"}))


async def test_a_caller_who_leaves_stops_all_parts() -> None:
    """Nothing goes on for nobody."""
    runner = Runner()
    runner.go.clear()
    work = asyncio.create_task(_analyse(runner))
    await asyncio.wait_for(runner.together.wait(), 60)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert runner.running == 0
