"""AIVO's speech clients, unchanged but for the base URL, and the canonical analysis, over the real engines."""

import base64
import wave
from typing import Any

import httpx
import numpy as np
import pytest
from benchmarks.voices import chord, vowel, whisper

from tests.conftest import SampleCall, Server

pytestmark = pytest.mark.models
SPEECH = "/api/v1/speech"


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    """One account for all of these."""
    with server.new_account() as one:
        yield one


def _pcm64(samples: np.ndarray) -> str:
    pcm: bytes = np.rint(np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes()
    return base64.b64encode(pcm).decode()


@pytest.fixture(scope="module")
def talk(sample_call: SampleCall) -> bytes:
    """Eight seconds of real speech as raw PCM16 at 16 kHz."""
    with wave.open(str(sample_call.wav)) as file:
        file.setpos(6 * 16_000)
        return bytes(file.readframes(8 * 16_000))


def test_analyze_answers_all_parts_in_aivos_words(client: httpx.Client, talk: bytes) -> None:
    """transcription, articulationErrors, fluencyMetrics, prosody; none of them lost to another's failure."""
    body = {
        "audioBase64": base64.b64encode(talk).decode(),
        "sampleRate": 16_000,
        "childAge": 7,
        "taskType": "conversation",
        "expectedText": "hello",
        "language": "en",
    }
    answer = client.post(f"{SPEECH}/analyze", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["errors"] == {}
    assert found["transcription"]["text"]
    assert isinstance(found["articulationErrors"], list)
    assert found["fluencyMetrics"]["articulationRateSylS"] > 1
    assert 75 < found["prosody"]["f0MedianHz"] < 400
    assert "diagnosis" in found["disclaimer"]
    assert found["requestId"] == answer.headers["x-request-id"]


def test_the_canonical_route_answers_the_engines_outputs(client: httpx.Client, sample_call: SampleCall) -> None:
    """A whole file; articulation says what it needs, the others answer. Two people on the telephone are told."""
    audio = {"base64": base64.b64encode(sample_call.wav.read_bytes()).decode()}
    answer = client.post("/v1/speech/analyze", json={"audio": audio, "language": "en"}, timeout=120)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["articulation"] == {
        "result": None,
        "error": {
            "code": "not_asked",
            "detail": "articulation needs the text that was to be said",
            "hint": "send it as expected text",
        },
    }
    assert found["prosody"]["result"]["method"] == "boersma-1993-autocorrelation"
    assert found["fluency"]["result"]["pauses"]
    assert found["fluency"]["result"]["syllables"] > 50
    assert found["transcription"]["result"]["segments"]


def test_each_part_has_a_route(client: httpx.Client, talk: bytes) -> None:
    """The others are null."""
    body = {"audioBase64": base64.b64encode(talk).decode(), "sampleRate": 16_000, "language": "en"}
    parts = {"transcribe": "transcription", "fluency": "fluencyMetrics", "prosody": "prosody"}
    for route, part in parts.items():
        found = client.post(f"{SPEECH}/{route}", json=body, timeout=60).json()
        assert found[part], found
        assert all(found[other] is None for other in {*parts.values()} - {part})


def test_a_held_vowel_has_jitter(client: httpx.Client) -> None:
    """taskType tells what was asked; at 140 Hz formants blur the periods little (Praat reads the same)."""
    made = vowel(140.0, 2.5, jitter=0.008, shimmer=0.04, noise_db=35)
    body = {"audioBase64": _pcm64(made.samples), "sampleRate": 16_000, "childAge": 6, "taskType": "sustained-vowel"}
    found = client.post(f"{SPEECH}/prosody", json=body, timeout=60).json()
    assert found["prosody"]["jitterPercent"] == pytest.approx(100 * made.jitter, rel=0.25)
    assert found["prosody"]["f0MedianHz"] == pytest.approx(140, rel=0.02)
    assert found["reliable"], found["warnings"]


@pytest.mark.parametrize(
    ("samples", "why"), [(chord(4.0), "music"), (whisper(4.0), "whispered")], ids=["music", "whisper"]
)
def test_music_and_whispers_are_marked_unreliable(client: httpx.Client, samples: np.ndarray, why: str) -> None:
    """By the real detector of speech."""
    found = client.post(f"{SPEECH}/prosody", json={"audioBase64": _pcm64(samples), "sampleRate": 16_000}).json()
    assert not found["reliable"]
    assert any(why in warning for warning in found["warnings"]), found["warnings"]


def test_a_wrong_sampling_rate_of_raw_samples_is_told(client: httpx.Client, talk: bytes) -> None:
    """16 kHz declared as 48 kHz: three times too fast and too high."""
    body = {"audioBase64": base64.b64encode(talk).decode(), "sampleRate": 48_000}
    found = client.post(f"{SPEECH}/prosody", json=body).json()
    assert not found["reliable"], found["prosody"]


@pytest.mark.parametrize(
    "change",
    [
        {"audioBase64": "this is no base64!"},
        {"audioBase64": ""},
        {"audioBase64": "AAAAA"},
        {"audioBase64": base64.b64encode(bytes(3200)).decode()},
        {"audioBase64": base64.b64encode(b"RIFF\0\0\0\0WAVEfmt garbage").decode()},
        {"childAge": 0},
        {"childAge": 400},
        {"childAge": "five"},
        {"sampleRate": 0},
        {"sampleRate": -16_000},
        {"sampleRate": 10**9},
        {"sampleRate": None},
        {"taskType": "x" * 101},
        {"expectedText": "x" * 1001},
        {"language": "not a language"},
        {"organisationId": "another"},
    ],
    ids=str,
)
@pytest.mark.parametrize("route", ["analyze", "prosody"])
def test_bad_input_is_a_clear_422(client: httpx.Client, talk: bytes, route: str, change: dict[str, Any]) -> None:
    """Base64 that isn't, 0.1 s, a damaged file, ages and rates nobody has, unknown fields; never a 500."""
    body = {"audioBase64": base64.b64encode(talk[:96_000]).decode(), "sampleRate": 16_000, "childAge": 5} | change
    answer = client.post(f"{SPEECH}/{route}", json=body)
    assert answer.status_code in (415, 422), answer.text
    assert answer.json()["code"] in ("invalid_input", "media_too_short", "unreadable_media", "unsupported_media")
    assert answer.json()["detail"]


def test_articulation_without_text_is_a_422(client: httpx.Client, talk: bytes) -> None:
    """There is nothing to compare with."""
    body = {"audioBase64": base64.b64encode(talk).decode(), "sampleRate": 16_000}
    assert client.post(f"{SPEECH}/articulation", json=body).status_code == 422
