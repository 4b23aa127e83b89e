"""The speaker engine: real voices by the real models, bad input, and its contract without them."""

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pydantic import ValidationError

from neuroedge.contract.engine import EngineContext
from neuroedge.contract.errors import InvalidInput, MediaTooShort
from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats, ModelRef, ModelStatus
from neuroedge.contract.ports import Audio, AudioSource, EnrolledVoice, VoicePurpose
from neuroedge.contract.speaker import GivenVoice, VoicePart, VoiceSpan
from neuroedge.engines.speech.speaker import WHOLE, Input, Output, Speaker
from neuroedge.infra.media import PyAVMedia
from neuroedge.runtimes import silero, speaker
from neuroedge.stores.ids import new_id
from tests.conftest import SampleCall
from tests.fakes import FakeBlobs, FakeModels, make_context
from tests.speakers_alone import speakers_alone

pytestmark = pytest.mark.anyio


class _Clips:
    """Media whose sources are names of waveforms at 16 kHz."""

    def __init__(self, clips: dict[str, Floats]) -> None:
        self._clips = clips

    async def audio(self, source: AudioSource) -> Audio:
        """The waveform of that name."""
        samples = self._clips[str(source.blob)]
        return Audio(
            samples=samples,
            duration_s=len(samples) / SAMPLE_RATE_HZ,
            source_rate_hz=SAMPLE_RATE_HZ,
            source_channels=1,
            codec="pcm",
            container="wav",
        )


class _Models(FakeModels):
    """A pool that knows the real encoder by its id."""

    def status(self, ref: ModelRef[Any]) -> ModelStatus:
        """Ready."""
        return ModelStatus(role=ref.role, id="resemblyzer-ge2e", state="ready", runtime="onnx", fingerprint="f")


class _Enrolled:
    """Voices that were told; remembers what was asked."""

    def __init__(self, *voices: EnrolledVoice) -> None:
        self._voices = list(voices)
        self.asked: list[tuple[str, VoicePurpose]] = []

    async def enrolled(self, *, model: str, purpose: VoicePurpose) -> list[EnrolledVoice]:
        """All of them."""
        self.asked.append((model, purpose))
        return self._voices


@pytest.fixture(scope="module")
def models(models_dir: Path) -> Iterator[_Models]:
    """The real voice activity detector and encoder."""
    voice = silero.load("silero-vad", models_dir / "silero-vad", threads=2, options={})
    encoder = speaker.load("resemblyzer-ge2e", models_dir / "resemblyzer-ge2e", threads=2, options={})
    yield _Models({"voice_activity": voice, "speaker_embedding": encoder})
    voice.close()
    encoder.close()


@pytest.fixture(scope="module")
def call(sample_call: SampleCall) -> dict[str, Floats]:
    """What the two people of the call say alone, halved: a1, a2, b1, b2."""
    clips = {}
    for name, whole in zip("ab", speakers_alone(sample_call), strict=True):
        clips[f"{name}1"], clips[f"{name}2"] = np.array_split(whole, 2)
    return clips


def _context(models: FakeModels, clips: dict[str, Floats]) -> EngineContext:
    return replace(make_context(media=_Clips(clips)), models=models)


async def _run(payload: Input, ctx: EngineContext) -> Output:
    return await Speaker(probe=ctx).run(payload, ctx)


def _blob(name: str) -> AudioSource:
    return AudioSource(blob=name)


def _voices(*names: str) -> list[GivenVoice]:
    return [GivenVoice(id=name, samples=[_blob(name)]) for name in names]


@pytest.mark.models
async def test_the_right_one_of_two_people_of_a_call(models: _Models, call: dict[str, Floats]) -> None:
    """Each half of a voice is nearer to its other half; the answer says how sure it is, by what, and keeps vectors."""
    ctx = _context(models, call)
    for probe, right, wrong in (("a1", "a2", "b2"), ("b1", "b2", "a2")):
        answer = await _run(Input(audio=_blob(probe), voices=_voices(wrong, right)), ctx)
        (part,) = answer.parts
        assert [c.id for c in part.candidates] == [right, wrong]
        best, other = part.candidates
        assert best.llr is not None
        assert other.llr is not None
        assert best.llr > max(0, other.llr)
        assert other.decision != "same"
        assert best.p_same is not None
        assert best.p_same > 0.5
        assert part.quality is not None
        assert part.quality.speech_s > 2
        assert answer.calibration is not None
        assert answer.models == ["silero-vad", "resemblyzer-ge2e"]
        assert answer.vectors[WHOLE].shape == (256,)
        assert "vector" not in answer.model_dump_json()


@pytest.mark.models
async def test_two_people_in_one_sample_are_noticed(models: _Models, call: dict[str, Floats]) -> None:
    """The answer is unreliable and identifies nobody."""
    both = {**call, "both": np.concatenate([call["a1"], call["b1"], call["a2"], call["b2"]])}
    answer = await _run(Input(audio=_blob("both"), voices=_voices("a1")), _context(models, both))
    (part,) = answer.parts
    assert part.quality is not None
    assert part.quality.other_speech_s is not None
    assert part.quality.other_speech_s > 1
    assert "several_speakers" in part.quality.flaws
    assert not part.reliable
    assert part.identified is None


@pytest.mark.models
async def test_parts_of_a_recording_are_judged_apart(models: _Models, call: dict[str, Floats]) -> None:
    """Two speakers as diarization tells them, in one recording; spans beyond its end are cut."""
    first, second = call["a1"], call["b1"]
    middle, end = len(first) / SAMPLE_RATE_HZ, (len(first) + len(second)) / SAMPLE_RATE_HZ
    clips = {**call, "both": np.concatenate([first, second])}
    parts = [
        VoicePart(id="S1", spans=[VoiceSpan(start_s=0, end_s=middle)]),
        VoicePart(id="S2", spans=[VoiceSpan(start_s=middle, end_s=end + 60)]),
    ]
    ctx = _context(models, clips)
    answer = await _run(Input(audio=_blob("both"), parts=parts, voices=_voices("a2", "b2")), ctx)
    assert [(part.id, part.candidates[0].id) for part in answer.parts] == [("S1", "a2"), ("S2", "b2")]
    assert answer.parts[1].quality is not None
    assert answer.parts[1].quality.speech_s == pytest.approx(end - middle, abs=0.01)


@pytest.mark.models
async def test_the_organisations_voices_are_asked_for_by_purpose(models: _Models, call: dict[str, Floats]) -> None:
    """With the encoder's fingerprint; `only` leaves others out; the name comes with the candidate."""
    ctx = _context(models, call)
    vectors = {name: (await _run(Input(audio=_blob(name)), ctx)).vectors[WHOLE] for name in ("a2", "b2")}
    voices = [
        EnrolledVoice(id=new_id(), name=name, vectors=vector[None], speech_s=np.array([5.0], np.float32))
        for name, vector in vectors.items()
    ]
    enrolled = _Enrolled(*voices)
    bound = replace(ctx, voices=enrolled)
    found = (await _run(Input(audio=_blob("a1"), enrolled="identify"), bound)).parts[0]
    assert enrolled.asked == [("resemblyzer-ge2e/f", "identify")]
    assert [c.name for c in found.candidates] == ["a2", "b2"]
    other = await _run(Input(audio=_blob("a1"), enrolled="verify", only=[voices[1].id]), bound)
    assert other.compared == 1
    assert other.parts[0].identified is None


async def test_nobody_enrolled_means_nobody_is_heard() -> None:
    """Parts without voices to compare with: no model is leased, nothing decoded."""
    parts = [VoicePart(id="S1", spans=[VoiceSpan(start_s=0, end_s=1)])]
    ctx = make_context(models={}, media=_Clips({}))
    answer = await _run(Input(audio=_blob("gone"), parts=parts, enrolled="label_recordings"), ctx)
    assert answer.compared == 0
    assert answer.parts[0].quality is None


@pytest.mark.models
@pytest.mark.parametrize("kind", ["noise", "chords", "silence"])
async def test_what_nobody_says_has_no_voice(models: _Models, call: dict[str, Floats], kind: str) -> None:
    """Noise, music and silence: unreliable with the reason, nobody identified, no error."""
    t = np.arange(5 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    sound = {
        "noise": np.random.default_rng(0).normal(0, 0.2, len(t)),
        "chords": sum(0.1 * np.sign(np.sin(2 * np.pi * hz * t)) for hz in (220, 277, 330)),
        "silence": np.zeros(len(t)),
    }[kind]
    clips = {**call, "x": np.asarray(sound, np.float32)}
    answer = await _run(Input(audio=_blob("x"), voices=_voices("a1")), _context(models, clips))
    (part,) = answer.parts
    assert not part.reliable
    assert part.identified is None
    assert part.quality is not None
    assert part.quality.flaws[0] == "too_little_speech"


@pytest.mark.models
async def test_a_moment_of_speech_is_too_short_or_unreliable(models: _Models, call: dict[str, Floats]) -> None:
    """0.2 s are refused; a second is compared and marked."""
    clips = {**call, "tiny": call["a1"][:3200], "short": call["a1"][:SAMPLE_RATE_HZ]}
    with pytest.raises(MediaTooShort, match=r"0\.20 s of audio"):
        await _run(Input(audio=_blob("tiny"), voices=_voices("a2")), _context(models, clips))
    with pytest.raises(MediaTooShort, match="voice tiny"):
        await _run(Input(audio=_blob("a1"), voices=_voices("tiny")), _context(models, clips))
    (part,) = (await _run(Input(audio=_blob("short"), voices=_voices("a2")), _context(models, clips))).parts
    assert not part.reliable
    assert part.identified is None


@pytest.mark.models
async def test_telephone_quality_is_the_same_voice(models: _Models, call: dict[str, Floats], tmp_path: Path) -> None:
    """An 8 kHz file in base64 is read, resampled and recognised."""
    import soxr

    file = io.BytesIO()
    soundfile.write(file, soxr.resample(call["a1"], SAMPLE_RATE_HZ, 8000), 8000, format="WAV")
    media = PyAVMedia(blobs=FakeBlobs(), max_bytes=10**7, max_duration_s=60)
    encoded = AudioSource(base64=base64.b64encode(file.getvalue()).decode())
    wav = io.BytesIO()
    soundfile.write(wav, call["a2"], SAMPLE_RATE_HZ, format="WAV")
    known = GivenVoice(id="a", samples=[AudioSource(base64=base64.b64encode(wav.getvalue()).decode())])
    ctx = replace(make_context(media=media), models=models)
    (part,) = (await _run(Input(audio=encoded, voices=[known]), ctx)).parts
    assert part.candidates[0].llr is not None
    assert part.candidates[0].llr > 0
    with pytest.raises(InvalidInput):
        await _run(Input(audio=AudioSource(base64="this is not base64!")), ctx)


@pytest.mark.models
async def test_an_encoder_without_calibration_identifies_nobody(models: _Models, call: dict[str, Floats]) -> None:
    """Scores rank, and the answer and health say that this is all."""
    ctx = _context(FakeModels(models._models), call)
    answer = await _run(Input(audio=_blob("a1"), voices=_voices("b2", "a2")), ctx)
    (part,) = answer.parts
    assert part.candidates[0].id == "a2"
    assert part.candidates[0].llr is None
    assert part.identified is None
    assert any("not_calibrated" in warning for warning in part.warnings)
    health = await Speaker(probe=ctx).health()
    assert health.status == "degraded"
    assert health.detail is not None
    assert "not calibrated" in health.detail


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"audio": {}},
        {"audio": "call.wav"},
        {"audio": {"blob": "x"}, "voices": [{"id": "a", "samples": []}]},
        {"audio": {"blob": "x"}, "voices": [{"id": "a", "samples": [{"blob": "y"}]}] * 2},
        {"audio": {"blob": "x"}, "voices": [{"id": str(i), "samples": [{"blob": "y"}]} for i in range(21)]},
        {"audio": {"blob": "x"}, "parts": []},
        {"audio": {"blob": "x"}, "parts": [{"id": "S1", "spans": [{"start_s": float("nan"), "end_s": 1}]}]},
        {"audio": {"blob": "x"}, "parts": [{"id": "S1", "spans": [{"start_s": -1, "end_s": 1}]}]},
        {"audio": {"blob": "x"}, "prior": 1.0},
        {"audio": {"blob": "x"}, "prior": float("nan")},
        {"audio": {"blob": "x"}, "only": [str(new_id())]},
        {"audio": {"blob": "x"}, "enrolled": "anything"},
        {"audio": {"blob": "x"}, "extra": 1},
    ],
)
def test_bad_input_is_refused(wrong: dict[str, Any]) -> None:
    """Missing, empty, doubled, too many, NaN, negative, contradicting, unknown."""
    with pytest.raises(ValidationError):
        Input.model_validate(wrong)
