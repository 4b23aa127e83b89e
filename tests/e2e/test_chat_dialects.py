"""Yourever's and ShikshaSetu's clients, unchanged but for the base URL."""

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import Server

pytestmark = pytest.mark.models
FACT = "The workshop on bread baking starts on Friday at nine in the town hall."
QUESTION = "When does the workshop on bread baking start?"
NOBODY = "019a0000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def caller(server: Server) -> Iterator[httpx.Client]:
    """The owner of an organisation that remembers a fact."""
    with server.new_account() as client:
        assert client.post("/v1/memories", json={"content": FACT, "title": "Workshop"}).status_code == 201
        yield client


def test_yourever_asks_with_sources(caller: httpx.Client) -> None:
    """In a session of its own, which the next question can name."""
    told = caller.post("/api/v1/chat/ask", json={"question": QUESTION, "maxTokens": 64})
    assert told.status_code == 200, told.text
    body = told.json()
    assert body["answered"], body
    assert "Friday" in body["answer"]
    assert body["sources"][0]["quote"] == FACT
    again = caller.post(
        "/api/v1/chat/ask", json={"question": QUESTION, "sessionId": body["sessionId"], "maxTokens": 64}
    )
    assert again.json()["sessionId"] == body["sessionId"]
    assert len(caller.get(f"/v1/sessions/{body['sessionId']}/messages").json()["messages"]) == 4


def test_yourever_completes_within_its_own_organisation(caller: httpx.Client) -> None:
    """organizationId is checked against the token, never used as tenant."""
    organisation = caller.get("/auth/me").json()["tenant"]
    body = {"message": "Hello!", "organizationId": organisation, "divisionId": None, "sessionId": None}
    told = caller.post("/api/ai/chat/completions", json=body)
    assert told.status_code == 200, told.text
    assert {"id", "content", "artifacts"} <= set(told.json())
    assert told.json()["content"]
    for other in ({"organizationId": NOBODY}, {"divisionId": NOBODY}):
        refused = caller.post("/api/ai/chat/completions", json={"message": "Hello!", **other})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


def test_yourever_searches_by_meaning(caller: httpx.Client, stranger: httpx.Client) -> None:
    """The caller's own only."""
    found = caller.post("/api/v1/search/semantic", json={"query": "baking course", "limit": 3}).json()["results"]
    assert found[0]["content"] == FACT
    assert {"id", "title", "content", "score", "metadata"} == set(found[0])
    assert stranger.post("/api/v1/search/semantic", json={"query": "baking course"}).json() == {"results": []}


def test_yourever_has_an_artifact_made(caller: httpx.Client) -> None:
    """Which is an artifact like any other."""
    order = {"prompt": "A short note that the workshop starts on Friday.", "type": "document", "maxTokens": 64}
    made = caller.post("/api/v1/artifacts/generate", json=order)
    assert made.status_code == 200, made.text
    body = made.json()
    assert body["content"]
    assert caller.get(f"/v1/artifacts/{body['id']}").json()["id"] == body["id"]


def test_shikshasetu_chats_in_json_and_by_events(caller: httpx.Client) -> None:
    """The same answer, and the stream's tokens are its words."""
    told = caller.post("/api/v2/chat", json={"message": QUESTION, "max_tokens": 64})
    assert told.status_code == 200, told.text
    body = told.json()
    assert "Friday" in body["response"]
    assert body["request_id"] == told.headers["x-request-id"]
    accept = {"Accept": "text/event-stream"}
    with caller.stream("POST", "/api/v2/chat", json={"message": QUESTION, "max_tokens": 64}, headers=accept) as answer:
        events = [json.loads(line.removeprefix("data:")) for line in answer.iter_lines() if line.startswith("data:")]
    assert events[0]["type"] == "start"
    assert events[-1]["type"] == "done"
    words = "".join(event["content"] for event in events if event["type"] == "token").strip()
    assert words == events[-1]["response"] == body["response"]


def test_shikshasetu_tells_errors_in_its_own_words(caller: httpx.Client, server: Server) -> None:
    """{error, message, request_id}, whatever went wrong."""
    for body, code, status in (
        ({}, "invalid_input", 422),
        ({"message": "x", "colour": "red"}, "invalid_input", 422),
        ({"message": "x", "session_id": NOBODY}, "not_found", 404),
    ):
        answer = caller.post("/api/v2/chat", json=body)
        assert answer.status_code == status
        told = answer.json()
        assert set(told) == {"error", "message", "request_id"}
        assert (told["error"], told["request_id"]) == (code, answer.headers["x-request-id"])
    with httpx.Client(base_url=server.url, timeout=60) as nobody:
        refused = nobody.post("/api/v2/chat", json={"message": "x"})
        assert (refused.status_code, refused.json()["error"]) == (401, "unauthenticated")
        health = nobody.get("/api/v2/health").json()
        assert health["live"] is True
        assert health["checks"]["database"]["status"] == "ok"
