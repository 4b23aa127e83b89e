"""Sound that is not clean speech, over HTTP: a clear error, or an answer that is marked and says why; never a 500."""

import base64
import io
import wave
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import soxr

from neuroedge.contract.models import Floats
from neuroedge.infra.media import encode_wav
from tests.conftest import SampleCall, Server

pytestmark = pytest.mark.models

RATE_HZ = 16_000
ENGINES = ("audio", "transcription", "diarization", "emotion")


@pytest.fixture(scope="module")
def caller(server: Server) -> Any:
    """An organisation that allows emotion from the voice."""
    with server.new_account() as client:
        body = {"name": "voice_emotion", "allowed": True, "purpose": "a test of bad input", "ground": "other"}
        assert client.put("/v1/settings/switches", json=body).status_code == 200
        yield client


@pytest.fixture(scope="module")
def speech(sample_call: SampleCall) -> Floats:
    """Twelve seconds of the real call, in which somebody speaks most of the time."""
    samples, rate_hz = soundfile.read(sample_call.wav, dtype="float32")
    assert rate_hz == RATE_HZ
    return np.asarray(samples[10 * RATE_HZ : 22 * RATE_HZ], np.float32)


def _music(seconds: float) -> Floats:
    """Chords of plucked strings: no voice in them."""
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    since = t % 0.5
    chord = [(262, 330, 392), (220, 262, 330), (175, 220, 262), (196, 247, 294)]
    out = np.zeros(len(t))
    for beat in range(int(seconds / 0.5)):
        now = (t >= beat * 0.5) & (t < (beat + 1) * 0.5)
        for hz in chord[beat // 2 % 4]:
            out += now * sum(np.sin(2 * np.pi * hz * k * t) * np.exp(-since * 3 * k) / k for k in range(1, 6))
    return np.asarray(0.05 * out, np.float32)


def _whispered(speech: Floats) -> Floats:
    """The same spectrum without a voice: each short-time frame keeps its magnitudes and gets noise for phases."""
    from scipy.signal import istft, stft

    _, _, frames = stft(speech, RATE_HZ, nperseg=400)
    smooth = np.apply_along_axis(lambda m: np.convolve(m, np.ones(9) / 9, "same"), 0, np.abs(frames))
    phases = np.exp(2j * np.pi * np.random.default_rng(0).random(frames.shape))
    return np.asarray(istft(smooth * phases, RATE_HZ, nperseg=400)[1][: len(speech)], np.float32)


def _wav(samples: Floats, rate_hz: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(np.clip(np.rint(samples * 32_768), -32_768, 32_767).astype("<i2").tobytes())
    return file.getvalue()


def _payload(engine: str, audio: dict[str, str]) -> dict[str, Any]:
    if engine == "emotion":
        spoken = [{"text": "", "start_s": float(i), "end_s": i + 1.0, "speaker": "A"} for i in range(10)]
        return {"segments": spoken, "audio": audio}
    return {"audio": audio}


def _run(client: httpx.Client, engine: str, data: bytes) -> dict[str, Any]:
    audio = {"base64": base64.b64encode(data).decode()}
    answer = client.post(f"/v1/engines/{engine}/run", json=_payload(engine, audio))
    assert answer.status_code == 200, (engine, answer.text)
    found: dict[str, Any] = answer.json()["result"]
    return found


def _says(found: dict[str, Any], *words: str) -> bool:
    return not found["reliable"] and any(word in warning for word in words for warning in found["warnings"])


def test_music_is_not_taken_for_speech(caller: httpx.Client) -> None:
    """Nobody speaks: no words, no speakers, no feelings, and it is said."""
    data = encode_wav(_music(12))
    assert _says(_run(caller, "audio", data), "nobody is heard", "background", "sampling", "voiced")
    assert len(_run(caller, "transcription", data)["text"].split()) <= 3
    assert _says(_run(caller, "diarization", data), "nobody is heard", "too little", "hardly told apart")
    felt = _run(caller, "emotion", data)
    assert all(s["abstained"] and s["reason"] for s in felt["segments"])


def test_several_people_at_once_are_never_plain_certainty(caller: httpx.Client, speech: Floats) -> None:
    """The call four times over itself: whatever is answered says what it cannot tell."""
    crowd = sum(np.roll(speech, shift * RATE_HZ) for shift in (0, 3, 5, 8))
    data = encode_wav(np.asarray(crowd / 3, np.float32))
    heard = _run(caller, "diarization", data)
    assert any("one speaker" in note or "count as one" in note for note in heard["notes"])
    heard_words = _run(caller, "transcription", data)
    assert all(0 <= segment["confidence"] <= 1 for segment in heard_words["segments"])


def test_whispering_is_marked(caller: httpx.Client, speech: Floats) -> None:
    """Hardly anything is voiced, so that pitch, and feelings from it, are not to be had."""
    data = encode_wav(_whispered(speech))
    assert _says(_run(caller, "audio", data), "whispering")
    felt = _run(caller, "emotion", data)
    silent = [s for s in felt["segments"] if s["arousal"] is None]
    assert len(silent) >= 8
    assert all(s["arousal_reason"] for s in silent)


def test_clipping_is_marked(caller: httpx.Client, speech: Floats) -> None:
    """30 dB too loud."""
    found = _run(caller, "audio", encode_wav(np.clip(30 * speech, -1, 1)))
    assert found["clipping_percent"] > 1
    assert _says(found, "clipped")


def test_a_telephones_rate_is_fine_and_half_of_it_is_marked(caller: httpx.Client, speech: Floats) -> None:
    """8 kHz: the words are there; 4 kHz: said to lack what tells consonants apart."""
    telephone = soxr.resample(speech, RATE_HZ, 8_000)
    found = _run(caller, "audio", _wav(telephone, 8_000))
    assert (found["source_rate_hz"], found["reliable"]) == (8_000, True), found["warnings"]
    words = _run(caller, "transcription", _wav(telephone, 8_000))["text"].split()
    assert len(words) > 10
    assert _says(_run(caller, "audio", _wav(soxr.resample(speech, RATE_HZ, 4_000), 4_000)), "telephone")


def test_a_wrong_sampling_rate_is_marked(caller: httpx.Client, speech: Floats) -> None:
    """16 kHz that says it is 48 kHz is three times too fast; 16 kHz that says 6 kHz is too slow."""
    fast = _run(caller, "audio", _wav(np.tile(speech, 2), 48_000))
    assert _says(fast, "sampling rate", "nobody is heard", "voiced")
    assert fast["duration_s"] == pytest.approx(8, abs=0.1)
    slow = _run(caller, "audio", _wav(speech[: 6 * RATE_HZ], 6_000))
    assert _says(slow, "sampling rate", "nobody is heard", "voiced", "telephone")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("this is not base64!", 422, "invalid_input"),
        ("data:audio/wav;base64,UklGRg==", 422, "invalid_input"),
        (base64.b64encode(b"these are words and no sound at all " * 40).decode(), 415, "unsupported_media"),
        ("", 422, "empty_media"),
        (base64.b64encode(encode_wav(np.zeros(16_000, np.float32))[:5_000]).decode(), 422, "unreadable_media"),
    ],
    ids=["no base64", "a data URL", "words", "nothing", "cut off"],
)
def test_what_is_no_sound_is_refused(caller: httpx.Client, engine: str, text: str, status: int, code: str) -> None:
    """By every engine the same way, with what to do."""
    answer = caller.post(f"/v1/engines/{engine}/run", json=_payload(engine, {"base64": text}))
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.json()["hint"]


@pytest.mark.parametrize("engine", ENGINES)
def test_silence_is_answered_with_nothing(caller: httpx.Client, engine: str) -> None:
    """Ten seconds of digital silence: no words, no speakers, no arousal, no number that is none."""
    found = _run(caller, engine, encode_wav(np.zeros(10 * RATE_HZ, np.float32)))
    match engine:
        case "audio":
            assert _says(found, "nobody is heard")
            assert found["silence_s"] == pytest.approx(10)
        case "transcription":
            assert found["text"] == ""
        case "diarization":
            assert _says(found, "nobody is heard")
        case _:
            assert all(s["arousal"] is None and s["arousal_reason"] for s in found["segments"])


def test_speech_through_the_first_neuroedges_path(caller: httpx.Client, speech: Floats) -> None:
    """A file and base64 give the same words; what is no sound is refused with the same problem."""
    data = encode_wav(speech)
    by_file = caller.post("/audio/transcribe", files={"file": ("a.wav", data)}, data={"language": "en"})
    assert by_file.status_code == 200, by_file.text
    body = {"audio": base64.b64encode(data).decode(), "language": "en", "hot_words": ["Texas"]}
    by_text = caller.post("/audio/transcribe", json=body)
    assert by_text.status_code == 200, by_text.text
    assert by_file.json()["language"] == by_text.json()["language"] == "en"
    assert len(by_file.json()["text"].split()) > 10
    assert by_file.json()["duration"] == pytest.approx(12, abs=0.01)
    assert by_file.json()["segments"][0]["end"] > 0
    for bad in ({}, {"audio": ""}, {"audio": 3}, {"audio": "x", "volume": 2}, {"audio": "x", "hot_words": ["y"] * 51}):
        assert caller.post("/audio/transcribe", json=bad).status_code == 422
    assert caller.post("/audio/transcribe", json={"audio": "not base64!"}).json()["code"] == "invalid_input"
    assert caller.post("/audio/transcribe", content=b"abc").status_code == 415
    assert caller.get("/v1/recordings").json()["recordings"] == []
