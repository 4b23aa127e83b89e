"""NeMo Server's clients, unchanged but for the base URL."""

import httpx
import pytest

from tests.conftest import SampleCall

pytestmark = pytest.mark.models


def test_upload_answers_when_the_transcript_is_ready(account: httpx.Client, sample_call: SampleCall) -> None:
    """transcript_id, text, speakers, timestamps; then it is the newest of /transcription/recent."""
    with sample_call.wav.open("rb") as file:
        answer = account.post(
            "/transcription/upload", files={"file": ("call.wav", file)}, data={"context": "a telephone call"}
        )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert "hello" in body["text"].lower()
    assert body["speakers"] == ["S1", "S2"]
    assert {"start", "end", "speaker", "text"} <= set(body["timestamps"][0])
    recent = account.get("/transcription/recent", params={"limit": 1}).json()
    assert [item["transcript_id"] for item in recent] == [body["transcript_id"]]


def test_remember_search_and_chat(account: httpx.Client) -> None:
    """What is remembered is found by meaning and answered from, with its source."""
    memory = {
        "content": "The workshop on bread baking starts on Friday at nine in the town hall.",
        "title": "Workshop",
        "tags": ["events"],
        "memory_type": "note",
    }
    stored = account.post("/rag/memory", json=memory)
    assert stored.status_code == 200
    account.post("/rag/memory", json={"content": "The cellar door sticks when it rains."})
    hits = account.post("/rag/search", json={"query": "When does the baking course begin?", "top_k": 2}).json()
    assert hits[0]["content"] == memory["content"]
    assert set(hits[0]) == {"content", "score", "metadata"}
    assert hits[0]["metadata"]["id"] == stored.json()["memory_id"]
    chat = account.post(
        "/gemma/chat",
        json={"message": "When does the workshop on bread baking start?", "include_context": True, "max_tokens": 64},
    ).json()
    assert chat["answered"], chat
    assert "friday" in chat["response"].lower()
    assert chat["citations"][0]["memory_id"] == stored.json()["memory_id"]


def test_chat_without_context_says_so(account: httpx.Client) -> None:
    """include_context=false answers from the model alone, without citations."""
    chat = account.post("/gemma/chat", json={"message": "Say hello.", "include_context": False, "max_tokens": 16})
    assert chat.status_code == 200
    assert chat.json()["citations"] == []
    assert chat.json()["usage"]["completion_tokens"] > 0


def test_chat_is_a_session_of_the_assistant(account: httpx.Client) -> None:
    """Both messages are kept, the next one follows them, and each call is in the ledger."""
    asked = {"message": "Say hello.", "include_context": False, "max_tokens": 16}
    first = account.post("/gemma/chat", json=asked).json()
    again = account.post("/gemma/chat", json={**asked, "session_id": first["session_id"]}).json()
    assert again["session_id"] == first["session_id"]
    kept = account.get(f"/v1/sessions/{first['session_id']}/messages").json()["messages"]
    assert [message["role"] for message in kept] == ["user", "assistant"] * 2
    assert kept[1]["content"] == first["response"] == first["message"]
    usage = account.get("/v1/usage").json()["total"]
    assert usage["calls"] >= 2
    assert usage["completion_tokens"] >= first["usage"]["completion_tokens"] + again["usage"]["completion_tokens"]
    assert first["usage"]["unpriced"] is False


def test_what_the_safety_policy_blocks_is_not_answered(account: httpx.Client) -> None:
    """Neither asked nor answered: a 4xx with the reason, kept as a decision; no model was called."""
    policy = {"input": {"personal_data": {"action": "block"}}}
    assert account.put("/v1/safety/policy", json=policy).status_code == 200
    answer = account.post("/gemma/chat", json={"message": "Mail jo@example.org.", "include_context": False})
    assert (answer.status_code, answer.json()["code"]) == (422, "content_blocked")
    (decision,) = account.get("/v1/safety/decisions").json()["decisions"]
    assert (decision["stage"], decision["action"]) == ("input", "block")
    assert account.get("/v1/usage").json()["total"]["calls"] == 0


def test_emotion_of_a_file(account: httpx.Client, sample_call: SampleCall) -> None:
    """Emotions with scores, measures of the sound, and nothing kept."""
    with sample_call.wav.open("rb") as file:
        answer = account.post("/emotion/analyze", files={"file": ("call.wav", file)})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["emotions"]
    assert all(0 <= emotion["score"] <= 1 for emotion in body["emotions"])
    assert body["audio_metrics"]["duration_s"] == pytest.approx(30, abs=0.5)
    assert account.get("/v1/recordings").json()["recordings"] == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rag/memory", {"content": ""}),
        ("/rag/memory", {}),
        ("/rag/search", {"query": "x", "top_k": 0}),
        ("/rag/search", {"query": ""}),
        ("/gemma/chat", {"message": "x", "max_tokens": 100_000}),
        ("/gemma/chat", {"message": ""}),
    ],
)
def test_bad_input_is_a_422(refused: httpx.Client, path: str, body: dict[str, object]) -> None:
    """The engines' limits hold behind the dialect too."""
    answer = refused.post(path, json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_input"
