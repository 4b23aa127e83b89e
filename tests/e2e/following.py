"""Send a recording and wait for it, as a client would."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import EventSource

PROCESSED_S = 180


def send(client: httpx.Client, path: Path, **fields: str) -> dict[str, Any]:
    """POST /v1/recordings; the created recording."""
    with path.open("rb") as file:
        answer = client.post("/v1/recordings", files={"file": (path.name, file)}, data=fields)
    assert answer.status_code == 202, answer.text
    created: dict[str, Any] = answer.json()
    return created


def events(client: httpx.Client, recording_id: str, *, after: str | None = None) -> Iterator[tuple[str, str, Any]]:
    """(id, name, data) of each event until the end."""
    headers = {"Last-Event-ID": after} if after else {}
    with client.stream(
        "GET", f"/v1/recordings/{recording_id}/events", headers=headers, timeout=PROCESSED_S
    ) as response:
        assert response.status_code == 200
        for event in EventSource(response).iter_sse():
            if event.data:  # an empty one is the keep-alive comment
                yield event.id, event.event, json.loads(event.data)


def processed(client: httpx.Client, path: Path, **fields: str) -> dict[str, Any]:
    """The recording with its result, once done."""
    recording_id = send(client, path, **fields)["id"]
    return finished(client, recording_id)


def finished(client: httpx.Client, recording_id: str) -> dict[str, Any]:
    """Wait until a recording is done or failed."""
    deadline = time.monotonic() + PROCESSED_S
    while time.monotonic() < deadline:
        detail: dict[str, Any] = client.get(f"/v1/recordings/{recording_id}").json()
        if detail["status"] in ("done", "failed"):
            return detail
        time.sleep(0.2)
    raise AssertionError(f"recording {recording_id} did not finish within {PROCESSED_S} s")
