"""Voices over HTTP, as a client sees them: enrolment, comparison, names in recordings, dialects, bad input."""

import base64
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from tests.conftest import SampleCall, Server
from tests.speakers_alone import speakers_alone

pytestmark = pytest.mark.models
CONSENT: dict[str, Any] = {
    "given_by": "Diane",
    "at": "2026-01-02T08:00:00Z",
    "purposes": ["verify", "identify", "label_recordings"],
    "text_version": "2026-01",
    "minor": False,
}


@pytest.fixture(scope="module")
def spoken(sample_call: SampleCall) -> list[np.ndarray]:
    """What each of the two people of the call says alone; the first one speaks first."""
    return speakers_alone(sample_call)


@pytest.fixture(scope="module")
def owner(server: Server) -> Iterator[httpx.Client]:
    """An organisation for this module."""
    with server.new_account() as client:
        yield client


def wav(samples: np.ndarray, rate_hz: int = 16_000) -> bytes:
    """As a file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format="WAV")
    return file.getvalue()


def b64(samples: np.ndarray) -> str:
    """As base64."""
    return base64.b64encode(wav(samples)).decode()


def enrolled(client: httpx.Client, samples: np.ndarray, **more: Any) -> dict[str, Any]:
    """A voice, by a form."""
    data = {"name": "Diane", "consent": json.dumps(CONSENT), **more}
    answer = client.post("/v1/voices", files={"file": ("d.wav", wav(samples))}, data=data)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/voices/{answer.json()['id']}"
    found: dict[str, Any] = answer.json()
    return found


def test_recordings_call_an_enrolled_person_by_name(
    owner: httpx.Client, spoken: list[np.ndarray], sample_call: SampleCall
) -> None:
    """One recorded before by relabelling, one after by itself; searches too; S1 again when the voice is deleted."""
    with sample_call.wav.open("rb") as file:
        before = owner.post("/transcription/upload", files={"file": ("call.wav", file)}).json()
    assert before["speakers"] == ["S1", "S2"]
    longer = max(spoken, key=len)
    voice = enrolled(owner, longer)
    assert voice["usable"]
    assert voice["samples"][0]["quality"]["speech_s"] > 5
    assert "vector" not in json.dumps(voice)
    run = owner.post(f"/v1/recordings/{before['transcript_id']}/relabel")
    assert run.status_code == 202
    done = _until(lambda: owner.get(f"/v1/voices/relabels/{run.json()['id']}").json(), "done")
    assert (done["done"], done["labelled"], done["skipped"]) == (1, 1, 0)
    detail = owner.get(f"/v1/recordings/{before['transcript_id']}").json()
    names = {speaker["label"]: speaker["name"] for speaker in detail["speakers"]}
    assert sorted(filter(None, names.values())) == ["Diane"]
    assert {segment["speaker"] for segment in detail["segments"]} == {"Diane", *[k for k, v in names.items() if not v]}
    hits = owner.post("/v1/search", json={"query": "hello", "speaker": "Diane"}).json()["hits"]
    assert hits
    assert all(hit["metadata"]["speaker"] == "Diane" for hit in hits)
    with sample_call.wav.open("rb") as file:
        after = owner.post("/transcription/upload", files={"file": ("call.wav", file)}).json()
    assert "Diane" in after["speakers"]
    assert owner.delete(f"/v1/voices/{voice['id']}").status_code == 204
    assert owner.get(f"/v1/voices/{voice['id']}").status_code == 404
    again = owner.get(f"/v1/recordings/{after['transcript_id']}").json()
    assert {segment["speaker"] for segment in again["segments"]} == {"S1", "S2"}
    search = {"query": "hello", "speaker": "Diane"}
    _wait(lambda: not owner.post("/v1/search", json=search).json()["hits"])


def test_verify_and_identify(account: httpx.Client, stranger: httpx.Client, spoken: list[np.ndarray]) -> None:
    """One half against the other, by form and by JSON; another organisation knows nobody."""
    main, other = sorted(spoken, key=len, reverse=True)
    half = len(main) * 3 // 4
    voice = enrolled(account, main[:half], external_id="d-1", labels=json.dumps({"team": "sales"}), keep_days="30")
    assert voice["labels"] == {"team": "sales"}
    body = {"voice_id": voice["id"], "audio": {"base64": b64(main[half:])}}
    mine = account.post("/v1/voices/verify", json=body).json()
    theirs = account.post(
        "/v1/voices/verify", files={"file": ("x.wav", wav(other))}, data={"voice_id": voice["id"]}
    ).json()
    assert mine["candidates"][0]["llr"] > max(0, theirs["candidates"][0]["llr"])
    assert theirs["candidates"][0]["decision"] != "same"
    assert mine["candidates"][0]["name"] == "Diane"
    assert theirs["identified"] is None
    found = account.post("/v1/voices/identify", files={"file": ("x.wav", wav(main[half:]))}).json()
    assert found["candidates"][0]["id"] == voice["id"]
    assert stranger.post("/v1/voices/verify", json=body).status_code == 404
    assert stranger.post("/v1/voices/identify", json={"audio": body["audio"]}).json()["candidates"] == []
    listed = account.get("/v1/voices").json()
    assert [v["id"] for v in listed["voices"]] == [voice["id"]]
    changed = account.patch(f"/v1/voices/{voice['id']}", json={"name": "Di", "external_id": None}).json()
    assert (changed["name"], changed["external_id"]) == ("Di", None)
    sample = voice["samples"][0]["id"]
    assert account.delete(f"/v1/voices/{voice['id']}/samples/{sample}").status_code == 204
    assert not account.get(f"/v1/voices/{voice['id']}").json()["usable"]
    assert account.post("/v1/voices/verify", json=body).status_code == 409


def test_what_is_refused_says_why(account: httpx.Client, spoken: list[np.ndarray]) -> None:
    """Consent, guardian, two people, too short, no base64, no JSON, unknown fields: never 500, never kept."""
    main, other = sorted(spoken, key=len, reverse=True)
    good: dict[str, Any] = {"name": "D", "consent": CONSENT, "samples": [{"base64": b64(main)}]}
    for body, status, code in (
        ({**good, "consent": None}, 422, "consent_required"),
        ({**good, "consent": {**CONSENT, "minor": True}}, 422, "consent_required"),
        ({**good, "consent": {**CONSENT, "purposes": []}}, 422, "invalid_input"),
        ({**good, "consent": {**CONSENT, "at": "2999-01-01T00:00:00Z"}}, 422, "invalid_input"),
        ({**good, "samples": [{"base64": b64(np.concatenate([main, other]))}]}, 422, "voice_sample_refused"),
        ({**good, "samples": [{"base64": b64(main[:8000])}]}, 422, "voice_sample_refused"),
        ({**good, "samples": [{"base64": b64(np.clip(main * 60, -1, 1))}]}, 422, "voice_sample_refused"),
        ({**good, "samples": [{"base64": b64(main[:3200])}]}, 422, "media_too_short"),
        ({**good, "samples": [{"base64": "no base64!"}]}, 422, None),
        ({**good, "samples": []}, 422, "invalid_input"),
        ({**good, "name": ""}, 422, "invalid_input"),
        ({**good, "keep_days": 10**6}, 422, "invalid_input"),
        ({**good, "more": 1}, 422, "invalid_input"),
        ([], 422, "invalid_input"),
    ):
        answer = account.post("/v1/voices", json=body)
        assert answer.status_code == status, answer.text
        if code is not None:
            assert answer.json()["code"] == code, answer.text
    form = {"name": "D", "consent": "no json"}
    assert account.post("/v1/voices", files={"file": ("x.wav", b"x")}, data=form).json()["code"] == "invalid_input"
    assert account.post("/v1/voices", content=b"x").status_code == 415
    assert account.post("/v1/voices/identify", json={"audio": {"base64": "AAAA"}}).status_code in (415, 422)
    assert account.get("/v1/voices").json()["voices"] == []


def test_nemos_enrolment(account: httpx.Client, spoken: list[np.ndarray]) -> None:
    """audio_file and speaker_id, and a consent the first time; the second time is a sample more."""
    main = max(spoken, key=len)
    send: dict[str, Any] = {"files": {"audio_file": ("d.wav", wav(main))}}
    refused = account.post("/transcription/enroll-speaker", **send, data={"speaker_id": "diane"})
    assert (refused.status_code, refused.json()["code"]) == (422, "consent_required")
    first = account.post(
        "/transcription/enroll-speaker", **send, data={"speaker_id": "diane", "consent": json.dumps(CONSENT)}
    )
    assert first.status_code == 200, first.text
    again = account.post("/transcription/enroll-speaker", **send, data={"speaker_id": "diane"}).json()
    assert (again["speaker_id"], again["voice_id"], again["samples"]) == ("diane", first.json()["voice_id"], 2)
    assert account.post("/transcription/enroll-speaker", **send).status_code == 422


def test_localais_voices(account: httpx.Client, spoken: list[np.ndarray]) -> None:
    """verify, register, identify, forget with LocalAI's fields; embeddings are not given out."""
    main, other = sorted(spoken, key=len, reverse=True)
    half = len(main) * 2 // 3
    one, two = b64(main[:half]), f"data:audio/wav;base64,{b64(main[half:])}"
    same = account.post("/v1/voice/verify", json={"model": "m", "audio1": one, "audio2": two}).json()
    differs = account.post("/v1/voice/verify", json={"audio1": one, "audio2": b64(other)}).json()
    assert same["distance"] < differs["distance"]
    assert not differs["verified"]
    strict = account.post("/v1/voice/verify", json={"audio1": one, "audio2": two, "threshold": 0.0}).json()
    assert (strict["verified"], strict["threshold"]) == (False, 0.0)
    register = {"name": "Alice", "audio": one, "labels": {"a": "b"}}
    assert account.post("/v1/voice/register", json=register).json()["code"] == "consent_required"
    made = account.post("/v1/voice/register", json={**register, "consent": CONSENT}).json()
    assert made["name"] == "Alice"
    (match,) = account.post("/v1/voice/identify", json={"audio": two, "threshold": 2.0}).json()["matches"]
    assert (match["id"], match["labels"], match["match"]) == (made["id"], {"a": "b"}, True)
    assert account.post("/v1/voice/forget", json={"id": made["id"]}).status_code == 204
    assert account.post("/v1/voice/forget", json={"id": made["id"]}).status_code == 404
    assert account.post("/v1/voice/embed", json={"audio": one}).status_code == 404
    url = {"audio1": "https://example.com/a.wav", "audio2": two}
    assert account.post("/v1/voice/verify", json=url).status_code == 422


def test_localais_diarization(account: httpx.Client, sample_call: SampleCall) -> None:
    """json, verbose_json and rttm agree; what cannot be done is refused."""

    def ask(**fields: str) -> httpx.Response:
        with sample_call.wav.open("rb") as file:
            return account.post("/v1/audio/diarization", files={"file": ("call.wav", file)}, data=fields)

    plain = ask(model="any").json()
    assert (plain["task"], plain["num_speakers"]) == ("diarize", 2)
    assert plain["duration"] == pytest.approx(30, abs=0.1)
    assert {s["speaker"] for s in plain["segments"]} == {"SPEAKER_00", "SPEAKER_01"}
    verbose = ask(response_format="verbose_json", min_duration_on="1.0", num_speakers="2").json()
    assert all(s["end"] - s["start"] >= 1.0 for s in verbose["segments"])
    assert sum(s["segment_count"] for s in verbose["speakers"]) == len(verbose["segments"])
    rttm = ask(response_format="rttm")
    assert rttm.headers["content-type"].startswith("text/plain")
    assert len(rttm.text.splitlines()) == len(plain["segments"])
    assert rttm.text.startswith("SPEAKER audio 1 ")
    for wrong in ({"response_format": "xml"}, {"num_speakers": "two"}, {"include_text": "true"}):
        assert ask(**wrong).status_code == 422


def _until(look: Any, state: str, *, timeout_s: float = 60) -> Any:
    """What `look` gives once it is in the state."""
    found: list[Any] = []

    def there() -> bool:
        found[:] = [look()]
        return bool(found[0]["state"] == state)

    _wait(there, timeout_s=timeout_s)
    return found[0]


def _wait(done: Any, *, timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.2)
