"""Every route × nobody's token × a second tenant's token. A new route without a row here fails."""

import base64
import io
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import soundfile
from fastapi.routing import APIRoute, APIWebSocketRoute

from neuroedge.bootstrap import build_app
from neuroedge.contract.models import SAMPLE_RATE_HZ
from neuroedge.settings import Settings
from tests.conftest import SampleCall, Server
from tests.engines.vision.pages import encoded, page
from tests.speakers_alone import speakers_alone

OPEN = {
    "GET /api/v2/health",
    "GET /health",
    "GET /ready",
    "GET /metrics",
    "GET /docs",
    "GET /redoc",
    "GET /openapi.json",
    "GET /docs/oauth2-redirect",
    "POST /auth/register",
    "POST /auth/login",
    "POST /auth/refresh",
    "POST /auth/logout",
}
"""Routes that need no token: they hold nothing of a tenant, or are how one gets a token."""

OWN_ONLY = {
    "GET /v1/api-keys",
    "POST /v1/api-keys",
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/responses",
    "POST /v1/messages",
    "POST /v1/messages/count_tokens",
    "GET /auth/me",
    "GET /engines",
    "GET /engines/{name}/health",
    "GET /v1/engines",
    "GET /v1/engines/{name}",
    "GET /v1/engines/{name}/health",
    "POST /v1/engines/{name}/run",
    "POST /engine/run",
    "GET /v1/recordings",
    "POST /v1/recordings",
    "GET /transcription/recent",
    "POST /transcription/upload",
    "POST /rag/memory",
    "POST /rag/search",
    "POST /gemma/chat",
    "POST /api/v1/chat/ask",
    "POST /api/ai/chat/completions",
    "POST /api/v1/search/semantic",
    "POST /api/v1/artifacts/generate",
    "POST /v1/speech/analyze",
    "POST /api/v1/speech/analyze",
    "POST /api/v1/speech/articulation",
    "POST /api/v1/speech/fluency",
    "POST /api/v1/speech/prosody",
    "POST /api/v1/speech/transcribe",
    "POST /api/v2/chat",
    "POST /emotion/analyze",
    "GET /v1/tasks",
    "POST /v1/tasks",
    "GET /v1/batches",
    "POST /v1/batches",
    "POST /api/v2/batch",
    "POST /queue/task",
    "GET /v1/artifacts",
    "POST /v1/artifacts",
    "GET /v1/settings/switches",
    "PUT /v1/settings/switches",
    "GET /v1/settings/glossary",
    "PUT /v1/settings/glossary",
    "POST /audio/transcribe",
    "POST /embed",
    "POST /model/embed",
    "POST /vision/process",
    "GET /v1/voices",
    "POST /v1/voices",
    "POST /v1/voices/verify",
    "POST /v1/voices/identify",
    "POST /v1/voices/relabel",
    "POST /v1/voice/verify",
    "POST /v1/voice/register",
    "POST /v1/voice/identify",
    "POST /v1/voice/forget",
    "POST /v1/audio/diarization",
    "POST /transcription/enroll-speaker",
    "GET /v1/safety/policy",
    "PUT /v1/safety/policy",
    "POST /v1/safety/check",
    "GET /v1/safety/decisions",
    "GET /v1/reviews",
    "POST /v1/reviews",
    "POST /v1/reviews/claim",
    "GET /v1/reviews/events",
    "GET /v1/artifacts/search",
    "GET /v1/documents",
    "POST /v1/documents",
    "POST /v1/documents/batch",
    "POST /v1/documents/urls",
    "POST /api/v1/ml/predict/difficulty",
    "POST /api/v1/ml/predict/engagement",
    "POST /api/v1/ml/predict/focus",
    "POST /api/v1/ml/detect/learning-style",
    "POST /api/v1/ml/detect/emotion",
    "POST /api/v1/ml/personalize",
    "POST /api/v1/ml/recommend/content",
    "POST /api/v1/analytics/focus",
    "POST /api/v1/analytics/break",
    "POST /api/v1/analytics/attention",
    "GET /v1/learners",
    "GET /v1/federations",
    "POST /v1/federations",
    "POST /api/v1/federated/update",
    "POST /api/v1/federated/aggregate",
    "PUT /v1/learners/{learner_id}/consent",
    "PUT /v1/recommenders/{recommender}",
    "GET /v1/knowledge",
    "POST /v1/knowledge/extract",
    "GET /v1/knowledge/entities",
    "GET /v1/knowledge/path",
    "POST /v1/search",
    "GET /v1/memories",
    "POST /v1/memories",
    "GET /v1/memories/timeline",
    "GET /v1/memories/statistics",
    "POST /v1/memories/merge",
    "POST /v1/memories/import",
    "GET /v1/memories/export",
    "GET /v1/divisions",
    "POST /v1/divisions",
    "GET /v1/index",
    "POST /v1/index/rebuild",
    "GET /v1/providers",
    "POST /v1/providers",
    "GET /v1/providers/policy",
    "PUT /v1/providers/policy",
    "GET /v1/usage",
    "GET /v1/usage/calls",
    "GET /v1/budgets",
    "PUT /v1/budgets",
    "GET /v1/sessions",
    "POST /v1/sessions",
    "POST /v1/sessions/import",
    "GET /v1/messages/search",
    "POST /v1/privacy/export",
    "POST /v1/privacy/erase",
    "POST /mcp",
    "POST /v1/embeddings",
    "POST /v1/moderations",
    "POST /v1/rerank",
    "POST /v1/audio/transcriptions",
    "POST /v1/audio/translations",
    "POST /v1/audio/speech",
    "GET /v1/audio/voices",
    "POST /api/v2/content/speech",
    "POST /api/v2/content/simplify",
    "POST /api/v2/content/translate",
    "GET /v1/files",
    "POST /v1/files",
    "GET /v1/images",
    "POST /v1/images",
    "POST /v1/images/search",
    "POST /v1/images/reembed",
    "POST /v1/models/train",
    "GET /v1/trained-models",
    "POST /v1/ml/predict",
    "POST /ml/predict",
    "GET /v1/mcp/servers",
}
"""Routes without an id of a tenant's thing: what they show must be the caller's own (tested below)."""

BY_ID = {
    "DELETE /v1/api-keys/{key_id}",
    "GET /v1/recordings/{recording_id}",
    "DELETE /v1/recordings/{recording_id}",
    "GET /v1/recordings/{recording_id}/events",
    "GET /v1/recordings/{recording_id}/transcript",
    "POST /v1/recordings/{recording_id}/relabel",
    "GET /v1/voices/{voice_id}",
    "PATCH /v1/voices/{voice_id}",
    "DELETE /v1/voices/{voice_id}",
    "POST /v1/voices/{voice_id}/samples",
    "DELETE /v1/voices/{voice_id}/samples/{sample_id}",
    "GET /v1/voices/relabels/{relabel_id}",
    "GET /v1/tasks/{task_id}",
    "GET /v1/tasks/{task_id}/result",
    "GET /v1/tasks/{task_id}/events",
    "POST /v1/tasks/{task_id}/cancel",
    "POST /v1/tasks/{task_id}/retry",
    "DELETE /v1/tasks/{task_id}",
    "GET /v1/batches/{batch_id}",
    "GET /v1/batches/{batch_id}/items",
    "GET /v1/batches/{batch_id}/results",
    "GET /v1/batches/{batch_id}/events",
    "POST /v1/batches/{batch_id}/cancel",
    "POST /v1/batches/{batch_id}/retry",
    "DELETE /v1/batches/{batch_id}",
    "GET /api/v2/batch/{batch_id}",
    "GET /api/v2/batch/{batch_id}/results",
    "POST /api/v2/batch/{batch_id}/cancel",
    "GET /v1/artifacts/{artifact_id}",
    "PATCH /v1/artifacts/{artifact_id}",
    "DELETE /v1/artifacts/{artifact_id}",
    "GET /v1/artifacts/{artifact_id}/versions",
    "GET /v1/artifacts/{artifact_id}/versions/{number}",
    "POST /v1/artifacts/{artifact_id}/versions/{number}/restore",
    "GET /v1/artifacts/{artifact_id}/diff",
    "GET /v1/artifacts/{artifact_id}/download",
    "GET /v1/artifacts/{artifact_id}/events",
    "GET /v1/images/{image_id}",
    "GET /v1/images/{image_id}/content",
    "DELETE /v1/images/{image_id}",
    "GET /v1/files/{file_id}",
    "GET /v1/files/{file_id}/content",
    "DELETE /v1/files/{file_id}",
    "GET /v1/trained-models/{trained_id}",
    "DELETE /v1/trained-models/{trained_id}",
    "GET /v1/models/{provider}/{model:path}",
    "GET /v1/documents/{document_id}",
    "PUT /v1/documents/{document_id}",
    "GET /v1/documents/{document_id}/chunks",
    "GET /v1/documents/{document_id}/events",
    "DELETE /v1/documents/{document_id}",
    "POST /v1/learners/{learner_id}/events",
    "GET /v1/learners/{learner_id}/profile",
    "GET /v1/federations/{federation_id}",
    "DELETE /v1/federations/{federation_id}",
    "POST /v1/federations/{federation_id}/close",
    "GET /v1/federations/{federation_id}/weights",
    "POST /v1/federations/{federation_id}/clients",
    "GET /v1/federations/{federation_id}/clients",
    "DELETE /v1/federations/{federation_id}/clients/{client_id}",
    "POST /v1/federations/{federation_id}/rounds",
    "GET /v1/federations/{federation_id}/rounds",
    "GET /v1/federations/{federation_id}/rounds/{round_id}",
    "POST /v1/federations/{federation_id}/rounds/{round_id}/end",
    "POST /v1/federations/{federation_id}/rounds/{round_id}/messages",
    "GET /v1/federations/{federation_id}/rounds/{round_id}/inbox/{client_id}",
    "GET /v1/learners/{learner_id}/export",
    "DELETE /v1/learners/{learner_id}",
    "POST /v1/recommenders/{recommender}/recommend",
    "POST /v1/recommenders/{recommender}/reward",
    "POST /v1/recommenders/{recommender}/evaluate",
    "DELETE /v1/recommenders/{recommender}",
    "GET /v1/knowledge/entities/{entity_id}",
    "GET /v1/memories/{memory_id}",
    "PATCH /v1/memories/{memory_id}",
    "DELETE /v1/memories/{memory_id}",
    "PATCH /v1/divisions/{division_id}",
    "DELETE /v1/divisions/{division_id}",
    "PUT /v1/divisions/{division_id}/members/{user_id}",
    "DELETE /v1/divisions/{division_id}/members/{user_id}",
    "GET /v1/reviews/{review_id}",
    "POST /v1/reviews/{review_id}/claim",
    "POST /v1/reviews/{review_id}/release",
    "POST /v1/reviews/{review_id}/approve",
    "POST /v1/reviews/{review_id}/correct",
    "POST /v1/reviews/{review_id}/reject",
    "PATCH /v1/providers/{provider_id}",
    "DELETE /v1/providers/{provider_id}",
    "POST /v1/providers/{provider_id}/test",
    "GET /v1/sessions/{session_id}",
    "PATCH /v1/sessions/{session_id}",
    "DELETE /v1/sessions/{session_id}",
    "GET /v1/sessions/{session_id}/messages",
    "POST /v1/sessions/{session_id}/messages",
    "POST /v1/sessions/{session_id}/messages/{message_id}/resume",
    "POST /v1/sessions/{session_id}/messages/{message_id}/cancel",
    "GET /v1/sessions/{session_id}/messages/{message_id}/trace",
    "GET /v1/sessions/{session_id}/messages/{message_id}",
    "GET /v1/sessions/{session_id}/messages/{message_id}/branches",
    "PATCH /v1/sessions/{session_id}/messages/{message_id}",
    "DELETE /v1/sessions/{session_id}/messages/{message_id}",
    "PUT /v1/sessions/{session_id}/messages/{message_id}/feedback",
    "DELETE /v1/sessions/{session_id}/messages/{message_id}/feedback",
    "GET /v1/sessions/{session_id}/export",
    "GET /v1/sessions/{session_id}/events",
    "GET /v1/sessions/{session_id}/attachments",
    "POST /v1/sessions/{session_id}/attachments",
    "GET /v1/sessions/{session_id}/attachments/{attachment_id}",
    "GET /v1/sessions/{session_id}/attachments/{attachment_id}/file",
    "DELETE /v1/sessions/{session_id}/attachments/{attachment_id}",
    "GET /v1/privacy/exports/{export_id}",
    "GET /v1/privacy/exports/{export_id}/file",
    "DELETE /v1/privacy/exports/{export_id}",
    "GET /v1/privacy/erasures/{erasure_id}",
}
"""Routes that name a tenant's thing: another tenant gets the 404 of a thing that does not exist."""


OPERATORS = {
    "POST /v1/models/{model_id}/load",
    "POST /v1/models/{model_id}/unload",
    "POST /v1/admin/engines/{name}/reload",
    "POST /admin/engines/reload/{engine}",
    "GET /v1/admin/index",
    "POST /v1/admin/index",
    "GET /v1/admin/keys",
    "POST /v1/admin/keys/rotate",
    "GET /v1/admin/erasures",
}
"""Routes for the operator of the installation: an organisation's owner is refused."""

INSTALLATION = {"GET /v1/models", "GET /v1/models/{model_id}", "GET /api/ps", "GET /health/detailed"}
"""Routes that show the installation, the same to every caller with a token; nothing of a tenant stands in them."""


SOCKETS = {"/v1/audio/stream", "/v1/realtime"}
"""WebSockets: tests/e2e/test_live.py tries them without a token, and with another tenant's session."""


def test_every_websocket_is_covered() -> None:
    """As every other route."""
    found = _flat(build_app(Settings()).routes)
    assert {route.path for route in found if isinstance(route, APIWebSocketRoute)} == SOCKETS


def routes() -> set[str]:
    """METHOD path of every route."""
    app = build_app(Settings())
    found = set()
    for route in _flat(app.routes):
        if isinstance(route, APIRoute) and not re.fullmatch(r"/v1/engines/[a-z_]+/run", route.path):
            found |= {f"{method} {route.path}" for method in route.methods}
    return found


def _flat(items: list[Any]) -> list[Any]:
    """Routes of nested routers too."""
    flat: list[Any] = []
    for item in items:
        nested = getattr(item, "routes", None) or getattr(getattr(item, "original_router", None), "routes", None)
        flat += _flat(list(nested)) if nested and not isinstance(item, APIRoute) else [item]
    return flat


def test_every_route_is_covered_here() -> None:
    """A route nobody thought of is a route nobody tested."""
    assert len(routes()) > 20
    assert routes() <= OPEN | OWN_ONLY | BY_ID | OPERATORS | INSTALLATION


BODIES = {
    "POST /v1/learners/{learner_id}/events": {"events": [{"id": "e", "at": "2026-01-01T00:00:00Z", "item": "i"}]},
    "PUT /v1/learners/{learner_id}/consent": {"granted": True, "by": "school"},
    "POST /v1/federations/{federation_id}/clients": {"name": "x", "public_key": "A" * 43 + "="},
    "POST /v1/federations/{federation_id}/rounds/{round_id}/messages": {
        "client_id": "019a0000-0000-7000-8000-000000000000",
        "payload": "AA==",
        "signature": "A" * 86 + "==",
    },
    "PUT /v1/recommenders/{recommender}": {},
    "POST /v1/recommenders/{recommender}/recommend": {"candidates": ["a"]},
    "POST /v1/recommenders/{recommender}/reward": {"choice_id": "019a0000-0000-7000-8000-000000000001", "reward": 1},
    "POST /v1/sessions/{session_id}/messages": {"content": "x"},
    "POST /v1/reviews/{review_id}/correct": {"text": "x"},
    "PATCH /v1/memories/{memory_id}": {"title": "x"},
    "PATCH /v1/voices/{voice_id}": {"name": "x"},
    "POST /v1/voices/{voice_id}/samples": {"samples": [{"base64": "UklGRg=="}]},
    "PATCH /v1/artifacts/{artifact_id}": {"title": "x"},
    "PATCH /v1/divisions/{division_id}": {"name": "x"},
    "PATCH /v1/providers/{provider_id}": {"settings": {"concurrency": 2}},
    "POST /v1/admin/index": {"kind": "hnsw"},
    "PATCH /v1/sessions/{session_id}": {"title": "x"},
    "PATCH /v1/sessions/{session_id}/messages/{message_id}": {"content": "x"},
    "PUT /v1/sessions/{session_id}/messages/{message_id}/feedback": {"rating": "up"},
}
"""Where an empty body is no valid one."""
NAMES = {"number": "1", "name": "embedding", "engine": "embedding", "model_id": "whisper-base"}


def _call(client: httpx.Client, route: str, thing: str) -> httpx.Response:
    method, template = route.split(" ")
    path = re.sub(r"{(\w+)}", lambda found: NAMES.get(found[1], thing), template)
    if template == "/v1/documents/{document_id}" and method == "PUT":
        return client.put(path, files={"file": ("note.txt", b"words")})
    return client.request(method, path, json=BODIES.get(route, {} if method == "POST" else None))


@pytest.mark.parametrize("route", sorted(OWN_ONLY | BY_ID | OPERATORS | INSTALLATION))
def test_nobody_gets_in_without_a_token(server: Server, route: str) -> None:
    """401 with the scheme to use, before anything else is looked at."""
    with httpx.Client(base_url=server.url, timeout=60) as nobody:
        for headers in ({}, {"Authorization": "Bearer forged.token.here"}):
            nobody.headers.update(headers)
            answer = _call(nobody, route, "019a0000-0000-7000-8000-000000000000")
            assert answer.status_code == 401
            assert _code(answer) in ("unauthenticated", "invalid_api_key", "authentication_error")
            assert answer.headers["www-authenticate"] == "Bearer"


def _code(answer: httpx.Response) -> str:
    """Of a problem, or in the words of OpenAI's and Anthropic's errors."""
    body = answer.json()
    error = body.get("error", {})
    if isinstance(error, str):  # ShikshaSetu's
        return error
    return str(body.get("code") or error.get("code") or error.get("type"))


@pytest.mark.parametrize("route", sorted(OPERATORS))
def test_an_organisations_owner_is_no_operator(refused: httpx.Client, route: str) -> None:
    """403: what concerns all tenants is not theirs to change."""
    answer = _call(refused, route, "")
    assert answer.status_code == 403
    assert answer.json()["code"] == "forbidden"


def test_what_shows_the_installation_shows_no_tenant(account: httpx.Client, stranger: httpx.Client) -> None:
    """Two tenants see the same models; neither's organisation is named."""
    org = account.get("/auth/me").json()["tenant"]
    for route in sorted(INSTALLATION):
        mine, theirs = _call(account, route, ""), _call(stranger, route, "")
        assert mine.status_code == theirs.status_code == 200
        assert org not in mine.text
        assert mine.json().keys() == theirs.json().keys()


@dataclass(frozen=True)
class Kept:
    """What the first tenant has."""

    ids: dict[str, str]
    """By the name a route gives it."""
    secret: str


@pytest.fixture(scope="module")
def owner(server: Server) -> Any:
    """The first tenant."""
    with server.new_account() as client:
        yield client


@pytest.fixture(scope="module")
def kept(owner: httpx.Client, sample_call: SampleCall) -> Kept:
    """The first tenant's recording and memory."""
    secret = "The launch code of the blue rocket is forty-two."
    assert owner.post("/rag/memory", json={"content": secret}).status_code == 200
    with sample_call.wav.open("rb") as file:
        done = owner.post("/transcription/upload", files={"file": ("call.wav", file)}).json()
    order = {"engine": "embedding", "payload": {"texts": [secret]}}
    task = owner.post("/v1/tasks", json=order).json()
    files = {"file": ("rocket.md", b"# The blue rocket\n\nDiane Miller works for Boeing in Texas.\n")}
    document = owner.post("/v1/documents", files=files).json()["document"]
    draft = {"type": "document", "content": f"# Plan\n\n{secret}\n", "visibility": "organisation"}
    artifact = owner.post("/v1/artifacts", json=draft).json()
    _wait_until(lambda: owner.get(f"/v1/documents/{document['id']}").json()["status"] == "done")
    assert owner.post("/v1/knowledge/extract").status_code == 202
    _wait_until(lambda: owner.get("/v1/knowledge/entities").json()["entities"])
    memory = owner.post("/v1/memories", json={"content": "A memory of the owner's."}).json()
    division = owner.post("/v1/divisions", json={"name": "engineering"}).json()
    export = owner.post("/v1/privacy/export", json={}).json()
    provider = {"name": "vendor", "kind": "openai", "api_key": "sk-of-the-owner-0123456789"}
    ids = {
        "memory_id": memory["id"],
        "division_id": division["id"],
        "session_id": owner.post("/v1/sessions", json={"title": secret}).json()["id"],
        "review_id": owner.post("/v1/reviews", json={"kind": "memory", "ref": memory["id"]}).json()["id"],
        "key_id": owner.post("/v1/api-keys", json={"name": "the owner's"}).json()["id"],
        "user_id": owner.get("/auth/me").json()["user_id"],
        "export_id": export["id"],
        "provider_id": owner.post("/v1/providers", json=provider).json()["id"],
        "erasure_id": "019a0000-0000-7000-8000-000000000001",
        "recording_id": done["transcript_id"],
        "task_id": task["id"],
        "batch_id": owner.post("/v1/batches", json={"items": [order]}).json()["id"],
        "file_id": owner.post("/v1/files", files={"file": ("a", b"x")}, data={"purpose": "batch"}).json()["id"],
        "image_id": _image(owner),
        "learner_id": _learner(owner),
        "federation_id": _federation(owner),
        "recommender": _recommender(owner),
        "trained_id": _trained(owner),
        **_voice(owner, sample_call),
        "provider": "somebody",
        "document_id": document["id"],
        "artifact_id": artifact["id"],
        "entity_id": owner.get("/v1/knowledge/entities").json()["entities"][0]["id"],
    }
    return Kept(ids=ids, secret=secret)


def _trained(owner: httpx.Client) -> str:
    lines = ["a,kind"] + [f"{i % 7},{'xy'[i % 2]}" for i in range(80)]
    table = {"csv": "\n".join(lines)}
    order = {"name": "m", "task": "classification", "target": "kind", "table": table, "epochs": 2, "hidden": [2]}
    answer = owner.post("/v1/engines/deep_learning/run", json={"train": order}, timeout=60)
    return str(answer.json()["result"]["model_id"])


def _voice(owner: httpx.Client, call: SampleCall) -> dict[str, str]:
    sound = io.BytesIO()
    soundfile.write(sound, speakers_alone(call)[0], SAMPLE_RATE_HZ, format="WAV")
    consent = {
        "given_by": "Diane",
        "at": "2026-01-02T08:00:00Z",
        "purposes": ["verify"],
        "text_version": "1",
        "minor": False,
    }
    sample = {"base64": base64.b64encode(sound.getvalue()).decode()}
    made = owner.post("/v1/voices", json={"name": "Diane", "consent": consent, "samples": [sample]}, timeout=60).json()
    relabel = owner.post("/v1/voices/relabel").json()
    return {"voice_id": made["id"], "sample_id": made["samples"][0]["id"], "relabel_id": relabel["id"]}


def _recommender(owner: httpx.Client) -> str:
    return str(owner.put("/v1/recommenders/next-lesson", json={}).json()["name"])


def _federation(owner: httpx.Client) -> str:
    made = owner.post("/v1/federations", json={"name": "the owner's", "weights": {"arrays": {"w": [0.0]}}})
    return str(made.json()["id"])


def _image(owner: httpx.Client) -> str:
    return str(owner.post("/v1/images", files={"file": ("page.png", encoded(page()))}).json()["id"])


def _learner(owner: httpx.Client) -> str:
    kept = owner.put("/v1/learners/anna/consent", json={"granted": True, "by": "school"})
    return str(kept.json()["learner_id"])


def _wait_until(done: Callable[[], Any], *, within_s: float = 60.0) -> None:
    until = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.models
@pytest.mark.parametrize("route", sorted(BY_ID))
def test_another_tenants_thing_is_not_found(kept: Kept, refused: httpx.Client, route: str) -> None:
    """The same 404 as for an id that never existed; nothing tells that it is there."""
    theirs = _call(refused, route, kept.ids[route.split("{")[1].split("}")[0]])
    never = _call(refused, route, "019a0000-0000-7000-8000-000000000000")
    assert theirs.status_code == never.status_code == 404
    assert _code(theirs) == _code(never)
    assert _code(never) in ("not_found", "model_not_found")
    body = theirs.json()
    # ShikshaSetu's errors are two texts, and have no place for a hint.
    assert body.get("hint") or isinstance(body["error"], str) or "GET /" in body["error"]["message"]


@pytest.mark.models
def test_lists_and_searches_hold_the_callers_own_only(kept: Kept, owner: httpx.Client, stranger: httpx.Client) -> None:
    """What the owner finds, a second tenant does not."""
    query = {"query": "launch code of the blue rocket"}
    assert kept.secret in owner.post("/rag/search", json=query).text
    assert stranger.post("/rag/search", json=query).json() == []
    assert owner.get("/v1/recordings").json()["recordings"]
    assert stranger.get("/v1/recordings").json()["recordings"] == []
    assert owner.get("/v1/tasks").json()["tasks"]
    assert stranger.get("/v1/tasks").json()["tasks"] == []
    assert owner.get("/v1/batches").json()["batches"]
    assert stranger.get("/v1/batches").json()["batches"] == []
    assert owner.get("/transcription/recent").json()
    assert stranger.get("/transcription/recent").json() == []
    assert owner.get("/v1/documents").json()["documents"]
    assert stranger.get("/v1/documents").json()["documents"] == []
    assert kept.secret in owner.get("/v1/artifacts/search", params={"q": query["query"]}).text
    assert stranger.get("/v1/artifacts/search", params={"q": query["query"]}).json()["hits"] == []
    assert owner.get("/v1/artifacts").json()["artifacts"]
    assert stranger.get("/v1/artifacts").json()["artifacts"] == []
    assert stranger.get("/v1/knowledge/entities").json()["entities"] == []
    assert kept.secret in owner.post("/v1/search", json=query).text
    assert stranger.post("/v1/search", json=query).json()["hits"] == []
    assert kept.secret in owner.get("/v1/memories/export").text
    assert stranger.get("/v1/memories/export").text == ""
    assert stranger.get("/v1/memories").json()["memories"] == []
    assert stranger.get("/v1/memories/statistics").json()["memories"] == 0
    assert stranger.get("/v1/divisions").json()["divisions"] == []
    assert kept.secret in owner.get("/v1/sessions").text
    assert stranger.get("/v1/sessions").json()["sessions"] == []
    assert stranger.get("/v1/messages/search", params={"q": kept.secret}).json()["hits"] == []
    assert "vendor" in owner.get("/v1/providers").text
    assert "vendor" not in stranger.get("/v1/providers").text
    assert stranger.get("/v1/usage/calls").json()["calls"] == []
    assert stranger.get("/v1/usage").json()["total"]["calls"] == 0
    assert owner.get("/v1/api-keys").json()["keys"]
    assert stranger.get("/v1/api-keys").json()["keys"] == []
    assert owner.get("/v1/files").json()["data"]
    assert stranger.get("/v1/files").json()["data"] == []
    assert owner.get("/v1/images").json()["images"]
    assert stranger.get("/v1/images").json()["images"] == []
    picture = {"image": {"base64": base64.b64encode(encoded(page())).decode()}}
    assert owner.post("/v1/images/search", json=picture).json()["hits"]
    assert stranger.post("/v1/images/search", json=picture).json()["hits"] == []
    assert stranger.post("/v1/images/search", json={"image_id": kept.ids["image_id"]}).status_code == 404
    assert owner.get("/v1/reviews").json()["reviews"]
    assert stranger.get("/v1/reviews").json()["reviews"] == []
    assert stranger.get("/v1/safety/decisions").json()["decisions"] == []
    assert stranger.get("/v1/knowledge").json()["memories"] == 0
    assert owner.get("/v1/learners").json()["learners"]
    assert stranger.get("/v1/learners").json()["learners"] == []
    assert owner.get("/v1/federations").json()["federations"]
    assert stranger.get("/v1/federations").json()["federations"] == []
    there, here = kept.ids["entity_id"], "019a0000-0000-7000-8000-000000000000"
    for ends in ({"from": there, "to": there}, {"from": here, "to": here}):
        assert stranger.get("/v1/knowledge/path", params=ends).status_code == 404


@pytest.mark.models
def test_chat_and_search_of_another_tenants_recording_find_nothing(kept: Kept, stranger: httpx.Client) -> None:
    """Naming another tenant's recording as the place to search gives no answer from it."""
    found = stranger.post(
        "/v1/engines/search/run", json={"query": "who is calling", "recording_id": kept.ids["recording_id"]}
    )
    assert found.json()["result"]["hits"] == []
    answer = stranger.post("/gemma/chat", json={"message": "What is the launch code of the blue rocket?"}).json()
    assert not answer["answered"]
    assert answer["citations"] == []
    assert "forty-two" not in answer["message"]


@pytest.mark.models
def test_a_blob_key_cannot_leave_the_tenant(kept: Kept, stranger: httpx.Client, owner: httpx.Client) -> None:
    """Audio by blob key is looked up below the caller's own organisation; paths that climb are refused."""
    key = f"recordings/{kept.ids['recording_id']}/audio.wav"
    org = owner.get("/auth/me").json()["tenant"]
    assert owner.post("/v1/engines/audio/run", json={"audio": {"blob": key}}).status_code == 200
    assert stranger.post("/v1/engines/audio/run", json={"audio": {"blob": key}}).status_code == 404
    for climbing in (f"../{org}/{key}", f"x/../../{org}/{key}", f"/{org}/{key}"):
        assert stranger.post("/v1/engines/audio/run", json={"audio": {"blob": climbing}}).status_code == 422


def test_a_tenant_in_the_payload_or_a_header_changes_nothing(account: httpx.Client, stranger: httpx.Client) -> None:
    """The tenant comes from the token alone."""
    me, other = account.get("/auth/me").json()["tenant"], stranger.get("/auth/me").json()["tenant"]
    assert account.get("/auth/me", headers={"X-Tenant-ID": other}).json()["tenant"] == me
    assert account.post("/rag/search", json={"query": "x", "org_id": other}).status_code == 422
