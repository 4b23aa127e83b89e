"""What outside sends wrong: the right 4xx with a hint, no stack trace, no row and no file left behind."""

import socket
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from neuroedge.infra.media import decode, encode_wav
from tests import audio_samples
from tests.conftest import SampleCall, Server
from tests.e2e.following import processed

UPLOADS = ("/v1/recordings", "/transcription/upload", "/emotion/analyze")


@pytest.fixture
def files(sample_call: SampleCall) -> dict[str, tuple[bytes, int, str]]:
    """Bad files by name: bytes, status, code."""
    mp3 = audio_samples.make("mp3", audio_samples.tone(20.0), rate_hz=16_000)
    return {
        "empty.wav": (b"", 422, "empty_media"),
        "text.wav": (b"This is no sound at all, only words.\n" * 50, 415, "unsupported_media"),
        "truncated.mp3": (audio_samples.truncated(mp3, keep=0.5), 422, "unreadable_media"),
        "truncated.wav": (sample_call.wav.read_bytes()[:300_000], 422, "unreadable_media"),
        "short.wav": (encode_wav(audio_samples.tone(0.1)), 422, "media_too_short"),
        "silent-film.mp4": (audio_samples.silent_video(), 422, "empty_media"),
    }


def _left_behind(server: Server, client: httpx.Client) -> list[Any]:
    """Rows and files of the caller's organisation, and files in progress that stay: others' jobs may be at work."""
    org = client.get("/auth/me").json()["tenant"]
    blobs = server.data_dir / "blobs" / org
    found = set((server.data_dir / "tmp").iterdir())
    until = time.monotonic() + 60
    while found and time.monotonic() < until:
        time.sleep(0.1)
        found &= set((server.data_dir / "tmp").iterdir())
    return [
        *client.get("/v1/recordings").json()["recordings"],
        *(path for path in blobs.rglob("*") if path.is_file()),
        *found,
    ]


@pytest.mark.parametrize(
    "name", ["empty.wav", "text.wav", "truncated.mp3", "truncated.wav", "short.wav", "silent-film.mp4"]
)
@pytest.mark.parametrize("route", UPLOADS)
def test_bad_files(
    server: Server, refused: httpx.Client, files: dict[str, tuple[bytes, int, str]], route: str, name: str
) -> None:
    """Each gets its own problem with a hint, on every route that takes a file."""
    content, status, code = files[name]
    answer = refused.post(route, files={"file": (name, content)})
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["code"] == code
    assert body["hint"]
    assert "Traceback" not in answer.text
    assert _left_behind(server, refused) == []


@pytest.mark.parametrize("route", UPLOADS)
def test_ten_gigabytes_announced_are_refused_unread(server: Server, refused: httpx.Client, route: str) -> None:
    """413 comes at once, before a byte of the body is sent."""
    host, port = server.url.removeprefix("http://").split(":")
    head = (
        f"POST {route} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {refused.headers['Authorization']}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 10000000000\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode())
        answer = ""
        while part := connection.recv(65536).decode():
            answer += part
    assert answer.startswith("HTTP/1.1 413")
    assert '"too_large"' in answer
    assert _left_behind(server, refused) == []


def test_a_body_that_grows_over_the_limit_is_cut_off(refused: httpx.Client) -> None:
    """Without an announced length the count stops it."""

    def endless() -> Any:
        for _ in range(80):
            yield b"x" * 1_000_000

    answer = refused.post("/rag/memory", content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_large"


@pytest.mark.parametrize("route", UPLOADS)
@pytest.mark.parametrize(
    ("request_parts", "status"),
    [
        ({"json": {"file": "x"}}, 415),
        ({"files": {"other": ("a.wav", b"x")}}, 422),
        ({"content": b"garbage", "headers": {"Content-Type": "multipart/form-data"}}, 422),
        ({"content": b"garbage", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 422),
    ],
)
def test_forms_that_are_none(
    server: Server, refused: httpx.Client, route: str, request_parts: dict[str, Any], status: int
) -> None:
    """Another content type, no file field, no or a wrong boundary."""
    answer = refused.post(route, **request_parts)
    assert answer.status_code == status, answer.text
    assert answer.json()["hint"]
    assert _left_behind(server, refused) == []


@pytest.mark.parametrize("language", ["english please", "e1", "x" * 70_000])
def test_a_language_that_is_none(server: Server, refused: httpx.Client, language: str, sample_call: SampleCall) -> None:
    """Not a code, or absurdly long."""
    with sample_call.wav.open("rb") as file:
        answer = refused.post("/v1/recordings", files={"file": ("a.wav", file)}, data={"language": language})
    assert answer.status_code in (413, 422)
    assert _left_behind(server, refused) == []


@pytest.mark.parametrize("path", ["/v1/recordings/{}", "/v1/recordings/{}/events"])
def test_ids_that_do_not_exist_or_are_none(refused: httpx.Client, path: str) -> None:
    """404 for an unknown id, 422 for what is no id."""
    assert refused.get(path.format("019a0000-0000-7000-8000-000000000000")).status_code == 404
    assert refused.get(path.format("7")).status_code == 422
    assert refused.get("/v1/recordings", params={"limit": 0}).status_code == 422


@pytest.mark.models
def test_silence_gives_an_empty_transcript(account: httpx.Client, tmp_path: Path) -> None:
    """No invented words, no speaker, no memory; the recording is done, not failed."""
    path = tmp_path / "silence.wav"
    path.write_bytes(encode_wav(np.zeros(5 * 16_000, np.float32)))
    detail = processed(account, path)
    assert detail["status"] == "done"
    assert detail["text"] == ""
    assert detail["segments"] == []
    assert detail["speakers"] == []
    assert account.post("/rag/search", json={"query": "thank you"}).json() == []


@pytest.mark.models
@pytest.mark.parametrize("kind", ["wav8", "flac", "ogg_opus", "mp3", "m4a", "webm"])
def test_every_format_is_heard(account: httpx.Client, sample_call: SampleCall, tmp_path: Path, kind: str) -> None:
    """The start of the call in each format, and in 8 channels, is transcribed."""
    samples = decode(sample_call.wav, max_duration_s=60).samples[: 16_000 * 12]
    path = tmp_path / f"call.{kind}"
    if kind == "wav8":
        path.write_bytes(audio_samples.wav8(np.tile(samples, (8, 1)), rate_hz=16_000))
    else:
        path.write_bytes(audio_samples.make(kind, samples, rate_hz=16_000))
    detail = processed(account, path)
    assert detail["status"] == "done", detail
    assert "hello" in detail["text"].lower()


def test_an_unknown_route_and_method_are_problems(refused: httpx.Client) -> None:
    """The framework's own errors have the same form."""
    missing, wrong = refused.get("/v1/nothing"), refused.put("/v1/recordings")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")


def test_a_request_id_is_kept_when_good_and_replaced_when_not(refused: httpx.Client) -> None:
    """X-Request-ID comes back; one with odd characters does not reach a log."""
    assert refused.get("/health", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 200, "{json}"):
        given = refused.get("/health", headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert given != bad
        assert len(given) == 36


def test_an_engine_that_does_not_exist_is_a_404_with_the_names_there_are(refused: httpx.Client) -> None:
    """Both ways to run it, and its pages."""
    answers = [
        refused.post("/v1/engines/telepathy/run", json={}),
        refused.post("/engine/run", json={"engine": "telepathy", "payload": {}}),
        refused.get("/v1/engines/telepathy"),
        refused.get("/v1/engines/telepathy/health"),
    ]
    for answer in answers:
        assert answer.status_code == 404
        assert "transcription" in answer.json()["hint"]
