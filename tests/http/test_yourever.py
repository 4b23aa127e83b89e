"""Yourever's routes: what they refuse before a service is asked."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from neuroedge.http.dialects.yourever import router
from tests.fakes import make_principal
from tests.http.plain_platform import make_app, token


@pytest.mark.parametrize(
    "order",
    [
        {"prompt": "x", "title": ""},
        {"prompt": "x", "title": "a\0b"},
        {"prompt": "a\0b"},
        {"prompt": "x", "type": "code", "language": " "},
    ],
)
def test_an_artifact_that_cannot_be_made_is_the_callers_error(order: dict[str, Any]) -> None:
    """Told with the field, as everywhere."""
    app = make_app(router)
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post("/api/v1/artifacts/generate", json=order, headers=token(app, make_principal()))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert answer.json()["errors"][0]["msg"]
