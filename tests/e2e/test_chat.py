"""The assistant over HTTP with the real local model: cites a document and a call, streams, is cancelled, refuses."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import SampleCall, Server, running_server
from tests.upstreams import Reply, Upstream, running_upstream

pytestmark = pytest.mark.models
MANUAL = b"# Boiler manual\n\nThe safety valve of the boiler is tested in May by Anna Schmidt.\n"


@pytest.fixture(scope="module")
def caller(server: Server) -> Iterator[httpx.Client]:
    """The owner of an organisation that the tests share."""
    with server.new_account() as client:
        yield client


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[tuple[httpx.Client, Upstream]]:
    """A caller whose model `house/talker` says what it is told to."""
    folder = tmp_path_factory.mktemp("unending")
    providers = folder / "providers.toml"
    with running_upstream() as upstream:
        providers.write_text(upstream.as_house("talker"))
        settings = {"NEUROEDGE_LLM_PROVIDERS": str(providers)}
        with running_server(folder / "data", models_dir, **settings) as server, server.new_account() as client:
            yield client, upstream


@pytest.fixture
def unending(talker: tuple[httpx.Client, Upstream]) -> httpx.Client:
    """A caller whose model `house/talker` takes ten minutes for its answer."""
    client, upstream = talker
    upstream.script(
        "talker", Reply(text='{"intent": "small_talk"}'), Reply(text="A ship sailed on and on. " * 300, pause_s=0.3)
    )
    return client


def begin(client: httpx.Client, **more: Any) -> str:
    """A new session."""
    answer = client.post("/v1/sessions", json=more)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def ask(client: httpx.Client, session_id: str, content: str, **more: Any) -> dict[str, Any]:
    """An answer in one body."""
    answer = client.post(f"/v1/sessions/{session_id}/messages", json={"content": content, "max_tokens": 64, **more})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def heard(answer: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream."""
    events, name = [], ""
    for line in answer.iter_lines():
        if line.startswith("event:"):
            name = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            events.append((name, json.loads(line.removeprefix("data:"))))
    return events


@pytest.fixture(scope="module")
def document_id(caller: httpx.Client) -> str:
    """A manual, indexed."""
    sent = caller.post("/v1/documents", files={"file": ("manual.md", MANUAL)}).json()["document"]["id"]
    with caller.stream("GET", f"/v1/documents/{sent}/events") as events:
        assert "event: done" in "".join(events.iter_text())
    return str(sent)


def test_an_answer_from_a_document_is_streamed_with_its_citation(caller: httpx.Client, document_id: str) -> None:
    """Stages, then tokens and citations, then the message as it is kept."""
    session_id = begin(caller)
    body = {"content": "When is the safety valve of the boiler tested?", "stream": True, "max_tokens": 64}
    with caller.stream("POST", f"/v1/sessions/{session_id}/messages", json=body) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = heard(answer)
    assert events[0][0] == "started"
    stages = [data["name"] for name, data in events if name == "stage"]
    assert stages == ["embed", "search", "intent", "generate", "validate"]
    last, done = events[-1]
    assert last == "done", done
    assert done["answered"], done
    message = done["message"]
    assert "May" in message["content"]
    assert message["citations"][0]["document_id"] == document_id
    assert "".join(data["text"] for name, data in events if name == "token").strip() == message["content"]
    assert [data for name, data in events if name == "citation"] == message["citations"]
    kept = caller.get(f"/v1/sessions/{session_id}/messages").json()["messages"]
    assert [m["role"] for m in kept] == ["user", "assistant"]
    assert kept[1]["content"] == message["content"]
    trace = caller.get(f"/v1/sessions/{session_id}/messages/{message['id']}/trace").json()["trace"]
    assert {"search", "intent", "generate", "validate"} <= {entry["stage"] for entry in trace}


def test_an_answer_from_a_call_cites_speaker_and_second(caller: httpx.Client, sample_call: SampleCall) -> None:
    """Of this recording only."""
    with sample_call.wav.open("rb") as file:
        done = caller.post("/transcription/upload", files={"file": ("call.wav", file)}).json()
    told = ask(caller, begin(caller), "Where is Diane now?", recording_id=done["transcript_id"])
    assert told["answered"], told
    assert "New Jersey" in told["message"]["content"]
    (cited, *_) = told["message"]["citations"]
    assert cited["recording_id"] == done["transcript_id"]
    assert cited["speaker"] in ("S1", "S2")
    assert 0 <= cited["start_s"] < 30


def test_what_nobody_said_is_not_answered(caller: httpx.Client, document_id: str) -> None:
    """It says so."""
    told = ask(caller, begin(caller), "What is the name of the captain's parrot?")
    assert not told["answered"]
    assert told["reason"]
    assert told["message"]["citations"] == []


def test_the_same_key_gives_the_same_answer(caller: httpx.Client, document_id: str) -> None:
    """And asks no model again."""
    session_id = begin(caller)
    path, headers = f"/v1/sessions/{session_id}/messages", {"Idempotency-Key": session_id}
    body = {"content": "Who tests the safety valve?", "max_tokens": 48}
    first, second = (caller.post(path, json=body, headers=headers).json() for _ in range(2))
    assert first["message"]["id"] == second["message"]["id"]
    assert len(caller.get(path).json()["messages"]) == 2
    assert caller.post(path, json={"content": "Else?"}, headers=headers).status_code == 409


def test_a_running_answer_is_cancelled(unending: httpx.Client) -> None:
    """By another connection; the stream ends with what came so far."""
    session_id = begin(unending, model="house/talker")
    body = {
        "content": "Hello! Tell me a story about a ship.",
        "stream": True,
        "include_context": False,
    }
    with unending.stream("POST", f"/v1/sessions/{session_id}/messages", json=body) as answer:
        message_id = answer.headers["x-message-id"]
        lines = answer.iter_lines()
        next(line for line in lines if line.startswith("event: token"))
        cancelled: list[httpx.Response] = []
        path = f"/v1/sessions/{session_id}/messages/{message_id}/cancel"
        other = threading.Thread(target=lambda: cancelled.append(unending.post(path)))
        other.start()
        rest = "\n".join(lines)
        other.join()
    assert cancelled[0].json()["state"] == "cancelled"
    assert '"reason": "cancelled"' in rest
    kept = unending.get(f"/v1/sessions/{session_id}/messages/{message_id}").json()
    assert kept["state"] == "cancelled"
    assert kept["content"]


def test_a_session_deleted_during_a_stream_ends_it(unending: httpx.Client) -> None:
    """With an error event; nothing is left."""
    session_id = begin(unending, model="house/talker")
    body = {
        "content": "Hello! Tell me a story about a ship.",
        "stream": True,
        "include_context": False,
    }
    with unending.stream("POST", f"/v1/sessions/{session_id}/messages", json=body) as answer:
        lines = answer.iter_lines()
        next(line for line in lines if line.startswith("event: token"))
        assert unending.delete(f"/v1/sessions/{session_id}").status_code == 204
        rest = "\n".join(lines)
    assert "event: error" in rest
    assert "deleted" in rest
    assert unending.get(f"/v1/sessions/{session_id}").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"content": "  "},
        {"content": "x", "max_tokens": 0},
        {"content": "x", "top_k": 1000},
        {"content": "x", "colour": "red"},
        {"content": "x", "document_ids": ["nothing"]},
        {"content": "x", "artifact": "statue"},
        {"content": "x", "reply_to": "019a0000-0000-7000-8000-000000000000"},
        {
            "content": "x",
            "recording_id": "019a0000-0000-7000-8000-000000000000",
            "document_ids": ["019a0000-0000-7000-8000-000000000000"],
        },
    ],
)
def test_bad_questions_are_refused(caller: httpx.Client, body: dict[str, Any]) -> None:
    """422, and nothing is kept."""
    session_id = begin(caller)
    answer = caller.post(f"/v1/sessions/{session_id}/messages", json=body)
    assert answer.status_code == 422, answer.text
    assert caller.get(f"/v1/sessions/{session_id}/messages").json()["messages"] == []


@pytest.mark.parametrize("more", [{"model": "nobody/nothing"}, {"max_tokens": 8000}])
def test_a_model_that_cannot_answer_is_a_clear_error(
    caller: httpx.Client, document_id: str, more: dict[str, Any]
) -> None:
    """An unknown one, or one whose context is smaller than the answer wanted; the message says why it failed."""
    session_id = begin(caller)
    body = {"content": "When is the safety valve of the boiler tested?", **more}
    answer = caller.post(f"/v1/sessions/{session_id}/messages", json=body)
    assert answer.status_code in (404, 422), answer.text
    kept = caller.get(f"/v1/sessions/{session_id}/messages").json()["messages"]
    assert (kept[-1]["state"], kept[-1]["error"]["code"]) == ("failed", answer.json()["code"])


def test_another_tenants_answers_are_not_there(caller: httpx.Client, stranger: httpx.Client) -> None:
    """Neither to ask, cancel, resume nor read; nor are its sources."""
    session_id = begin(caller)
    message_id = ask(caller, session_id, "Hello!")["message"]["id"]
    path = f"/v1/sessions/{session_id}/messages"
    assert stranger.post(path, json={"content": "x"}).status_code == 404
    for act in ("cancel", "resume"):
        assert stranger.post(f"{path}/{message_id}/{act}").status_code == 404
    assert stranger.get(f"{path}/{message_id}/trace").status_code == 404
    told = ask(stranger, begin(stranger), "When is the safety valve of the boiler tested?")
    assert not told["answered"]
    assert "May" not in told["message"]["content"]
