"""Speech over HTTP: by OpenAI's SDK, streamed and whole, in ShikshaSetu's dialect; a provider's voice, its fallback."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from neuroedge.infra.media import decode
from tests.conftest import Server, running_server
from tests.voice_upstream import VoiceUpstream, running_voice_upstream

TEXT = "The lamp is on. " * 3
LONG = "This is one of many sentences that are said one after the other. " * 30
SAYS_S = 300


def _sdk(account: httpx.Client) -> openai.OpenAI:
    token = account.headers["authorization"].removeprefix("Bearer ")
    return openai.OpenAI(base_url=str(account.base_url.join("/v1")), api_key=token, max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def owner(server: Server) -> Iterator[httpx.Client]:
    """The owner of an organisation on the shared server: voices of this machine."""
    with server.new_account() as client:
        yield client


@pytest.fixture(scope="module")
def client(owner: httpx.Client) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK with the owner's token."""
    with _sdk(owner) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def upstream() -> Iterator[VoiceUpstream]:
    """A provider of voices."""
    with running_voice_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def networked(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, upstream: VoiceUpstream) -> Iterator[Server]:
    """A server whose operator has set that provider up."""
    folder = tmp_path_factory.mktemp("networked")
    (folder / "providers.toml").write_text(
        f'[[provider]]\nname = "room"\nwire = "openai"\nbase_url = "{upstream.url}"\n'
        '[[provider.voice]]\nmodel = "tts-1"\nvoices = ["alloy", "nova"]\nanswer_s = 60\n'
    )
    more = {"NEUROEDGE_LLM_PROVIDERS": str(folder / "providers.toml")}
    with running_server(folder / "data", models_dir, **more) as running:
        yield running


def seconds(data: bytes) -> float:
    """Of an encoded file."""
    return decode(data, max_duration_s=SAYS_S).duration_s


@pytest.mark.parametrize("form", ["mp3", "opus", "aac", "flac", "wav"])
def test_the_sdk_gets_a_file(client: openai.OpenAI, form: Any) -> None:
    """OpenAI's names of models and voices are understood; every format plays."""
    answer = client.audio.speech.create(model="tts-1", voice="alloy", input=TEXT, response_format=form)
    assert 2 < seconds(answer.content) < 10
    assert answer.response.headers["x-neuroedge-method"] in ("piper", "espeak-ng")


def test_bare_samples_have_openais_rate(client: openai.OpenAI) -> None:
    """24 kHz, 16 bits: twice as fast is about half as long, pauses still less."""
    lengths = [
        len(
            client.audio.speech.create(
                model="default", voice="espeak/en-us", input=TEXT, speed=s, response_format="pcm"
            ).content
        )
        for s in (1.0, 2.0)
    ]
    assert 2 * 48_000 < lengths[0] < 10 * 48_000
    assert lengths[1] == pytest.approx(lengths[0] / 2, rel=0.35)


def test_long_text_is_heard_while_it_is_spoken(client: openai.OpenAI) -> None:
    """Several pieces make one file, in both ways of streaming."""
    asked: Any = {"model": "default", "voice": "espeak/en-us", "input": LONG, "response_format": "mp3"}
    with client.audio.speech.with_streaming_response.create(**asked) as answer:
        pieces = list(answer.iter_bytes(1024))
        assert answer.headers["x-neuroedge-voice"] == "espeak/en-us"
    whole = seconds(b"".join(pieces))
    assert 60 < whole < SAYS_S
    with client.audio.speech.with_streaming_response.create(**asked, stream_format="sse") as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    events = [json.loads(line) for line in lines]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert len(events) > 3
    assert events[-1]["type"] == "speech.audio.done"
    assert events[-1]["usage"]["input_tokens"] == len(LONG)
    assert seconds(b"".join(base64.b64decode(event["audio"]) for event in events[:-1])) == pytest.approx(whole, abs=1)


def test_ssml_is_spoken(owner: httpx.Client) -> None:
    """A pause makes it longer."""
    lengths = []
    for pause in ("0ms", "2s"):
        body = {"input": f'<speak>One <break time="{pause}"/> two.</speak>', "response_format": "wav"}
        lengths.append(seconds(owner.post("/v1/audio/speech", json=body).content))
    assert lengths[1] - lengths[0] == pytest.approx(2.0, abs=0.3)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": "x" * 1_000_000}, "input"),
        ({"input": 5}, "input"),
        ({"input": "...  "}, None),
        ({"input": "<speak><x/></speak>"}, "ssml"),
        ({"input": "x", "speed": 0}, "speed"),
        ({"input": "x", "speed": 100}, "speed"),
        ({"input": "x", "response_format": "midi"}, "response_format"),
        ({"input": "x", "stream_format": "morse"}, "stream_format"),
        ({"input": "x", "voice": "nobody"}, "voice"),
        ({"input": "x", "voice": ""}, "voice"),
        ({"input": "x", "language": "tlh"}, "language"),
        ({"input": "x", "voice": "espeak/de", "language": "hi"}, "language"),
        ({"input": "x", "instructions": "whisper"}, None),
        ({"input": "x", "pitch": 2}, "pitch"),
    ],
)
def test_what_cannot_be_said_is_told(owner: httpx.Client, body: dict[str, Any], param: str | None) -> None:
    """400 in OpenAI's shape, naming the field."""
    answer = owner.post("/v1/audio/speech", json={"model": "default", **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert param is None or param in str(error["param"])


def test_no_number_and_no_json_are_told(owner: httpx.Client) -> None:
    """NaN is none; an unknown model is not found."""
    for data in (b'{"input": "x", "speed": NaN}', b"{", b"[]"):
        answer = owner.post("/v1/audio/speech", content=data, headers={"content-type": "application/json"})
        assert answer.status_code == 400
    unknown = owner.post("/v1/audio/speech", json={"model": "nobody-has-this", "input": "x"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


def test_voices_are_listed(owner: httpx.Client) -> None:
    """Those that are not installed tell how; none leaves this machine here."""
    voices = owner.get("/v1/audio/voices").json()["data"]
    by_id = {voice["id"]: voice for voice in voices}
    assert by_id["espeak/hi"]["ready"]
    assert by_id["piper-joe"]["ready"] or "piper-joe" in by_id["piper-joe"]["remedy"]
    assert all(voice["private"] for voice in voices)


def test_shikshasetu_says_a_text(owner: httpx.Client) -> None:
    """In the languages it teaches; errors have its body."""
    body = {"text": "नमस्ते, यह एक परीक्षण है।", "language": "hi"}
    said = owner.post("/api/v2/content/speech", json=body).json()
    assert (said["backend"], said["voice"], said["language"]) == ("espeak-ng", "espeak/hi", "hi")
    assert seconds(base64.b64decode(said["audio"])) == pytest.approx(said["duration_s"], abs=0.2)
    for wrong in (
        {},
        {"text": ""},
        {"text": "x", "language": "tlh"},
        {"text": "x", "speed": 9},
        {"text": "x" * 1_000_000},
    ):
        refused = owner.post("/api/v2/content/speech", json=wrong)
        assert refused.status_code == 422
        assert refused.json().keys() == {"error", "message", "request_id"}


def test_a_providers_voice_comes_first_and_is_paid_for(networked: Server, upstream: VoiceUpstream) -> None:
    """By its name; its characters stand in the usage; what was said is not bought twice."""
    upstream.forget()
    with networked.new_account() as account, _sdk(account) as sdk:
        first, again = [sdk.audio.speech.create(model="tts-1", voice="nova", input=TEXT) for _ in range(2)]
        assert first.response.headers["x-neuroedge-voice"] == "room/tts-1/nova"
        assert [asked["voice"] for asked in upstream.asked] == ["nova"]
        assert seconds(first.content) == seconds(again.content)
        calls = account.get("/v1/usage/calls").json()
        assert "tts-1" in json.dumps(calls)
        assert account.get("/v1/audio/voices").json()["data"][0]["id"] == "room/tts-1/alloy"


def test_when_the_provider_fails_this_machine_speaks(networked: Server, upstream: VoiceUpstream) -> None:
    """Both dialects tell why; a failure in the middle of a long text does not end it."""
    upstream.forget()
    upstream.status = 500
    with networked.new_account() as account:
        answer = account.post("/v1/audio/speech", json={"input": "One two three.", "voice": "alloy"})
        assert answer.status_code == 200
        assert answer.headers["x-neuroedge-method"] in ("piper", "espeak-ng")
        assert answer.headers["x-neuroedge-fallback"].startswith("room/tts-1/alloy: ")
        said = account.post("/api/v2/content/speech", json={"text": "Four five six."}).json()
        assert said["backend"] in ("piper", "espeak-ng")
        assert said["fallback_reason"].startswith("room/tts-1/alloy: ")
        upstream.forget()
        upstream.broken_after = 1
        body = {"input": "Once upon a time. " + LONG[:600], "voice": "alloy", "response_format": "mp3"}
        assert seconds(account.post("/v1/audio/speech", json=body).content) > 20
        assert len(upstream.asked) >= 2


def test_what_must_stay_here_is_said_here(networked: Server, upstream: VoiceUpstream) -> None:
    """An organisation that settled on local models never reaches the provider."""
    upstream.forget()
    with networked.new_account() as account:
        assert account.put("/v1/providers/policy", json={"local_only": True}).status_code == 200
        answer = account.post("/v1/audio/speech", json={"input": "A secret.", "voice": "alloy"})
        assert answer.status_code == 200
        assert answer.headers["x-neuroedge-method"] in ("piper", "espeak-ng")
        assert upstream.asked == []
        named = account.post("/v1/audio/speech", json={"input": "A secret.", "voice": "room/tts-1/alloy"})
        assert named.status_code == 400
