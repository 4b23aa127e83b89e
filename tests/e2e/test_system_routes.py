"""/health, /ready, /v1/engines and the OpenAPI page."""

import httpx

from tests.conftest import Server


def test_health_and_ready_need_no_token(server: Server) -> None:
    """Liveness with the version; readiness with each check's latency."""
    health = httpx.get(f"{server.url}/health", timeout=60)
    assert health.json()["status"] == "ok"
    ready = httpx.get(f"{server.url}/ready", timeout=60)
    assert ready.status_code == 200
    assert set(ready.json()["checks"]) == {"database", "cache", "models"}
    assert all(check["status"] == "ok" for check in ready.json()["checks"].values())


def test_the_openapi_page_and_document_are_served(server: Server) -> None:
    """Problems are documented on every route that needs a token."""
    assert httpx.get(f"{server.url}/docs", timeout=60).status_code == 200
    document = httpx.get(f"{server.url}/openapi.json", timeout=60).json()
    assert "Problem" in document["components"]["schemas"]
    responses = document["paths"]["/v1/recordings"]["post"]["responses"]
    assert {"202", "401", "413", "422"} <= set(responses)


def test_engines_are_listed_with_group_method_and_schemas(account: httpx.Client) -> None:
    """The first eight engines are there; one engine's page has schemas and an example."""
    listed = account.get("/v1/engines").json()
    names = {engine["name"] for engine in listed["engines"]}
    assert names >= {"audio", "transcription", "diarization", "emotion", "embedding", "memory", "search", "chat"}
    assert listed["count"] == len(names)
    assert account.get("/engines").json().keys() == listed.keys()
    assert account.get("/engines/audio/health").json() == account.get("/v1/engines/audio/health").json()
    states = {engine["health"]["status"] for engine in listed["engines"]}
    assert states <= {"ready", "degraded", "unavailable"}
    shown = account.get("/v1/engines/search").json()
    assert "query" in shown["input_schema"]["properties"]
    assert shown["example"]["query"]
