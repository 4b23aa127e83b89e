"""Processes that share a device: a NeMo component asks for it over Valkey, or an exclusive role of another process."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import valkey

from neuroedge.bootstrap import open_servers
from neuroedge.settings import Settings
from tests.conftest import Server, running_server

pytestmark = pytest.mark.models
ENCODER = "all-minilm-l6-v2-int8"


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Server]:
    """A server of its own: while it is paused nobody else may need its models."""
    with running_server(tmp_path_factory.mktemp("sharing") / "data", models_dir) as server:
        yield server


@pytest.fixture
def client(sharing: Server) -> Iterator[httpx.Client]:
    """An account on it."""
    with sharing.new_account() as account:
        yield account


def bus(server: Server) -> "valkey.Valkey":
    """The server's Valkey: its address is in the process's environment, or found as the server's own start finds it."""

    async def address() -> str:
        async with open_servers(Settings(data_dir=server.data_dir)) as servers:
            return servers.valkey

    return valkey.Valkey.from_url(server.env.get("REDIS_URL") or asyncio.run(address()))


def state(client: httpx.Client) -> str:
    """Of the encoder."""
    return str(client.get(f"/v1/models/{ENCODER}").json()["state"])


def heard(listener: Any) -> dict[str, Any]:
    """The next message, or a failure."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        message = listener.get_message(ignore_subscribe_messages=True, timeout=0.2)
        if message:
            answer: dict[str, Any] = json.loads(message["data"])
            return answer
    raise AssertionError("no answer")


def test_a_nemo_component_gets_the_device_and_gives_it_back(sharing: Server, client: httpx.Client) -> None:
    """pause_transcription: models leave, transcription_paused; calls wait; resume_transcription: models are back."""
    assert client.post("/v1/engines/embedding/run", json={"texts": ["warm"]}).status_code == 200
    with bus(sharing) as server, server.pubsub() as listener:
        listener.subscribe("transcription_paused", "transcription_resumed")
        server.publish("pause_transcription", json.dumps({"task_id": "nemo-1", "reason": "chat"}))
        assert heard(listener)["task_id"] == "nemo-1"
        assert state(client) == "unloaded"
        late = client.post(
            "/v1/engines/embedding/run", json={"texts": ["not now"]}, headers={"X-Request-Timeout": "0.5"}
        )
        assert late.status_code in (408, 503)
        assert client.get("/health").status_code == 200
        server.publish("resume_transcription", json.dumps({"task_id": "nemo-1"}))
        assert heard(listener)["task_id"] == "nemo-1"
    assert state(client) == "ready"
    assert client.post("/v1/engines/embedding/run", json={"texts": ["again"]}).status_code == 200


def test_an_exclusive_role_of_another_process_sends_the_others_away(
    sharing: Server, client: httpx.Client, models_dir: Path
) -> None:
    """A second server on the same data directory has its encoder alone; the first unloads, and loads again after."""
    assert client.post("/v1/engines/embedding/run", json={"texts": ["warm once more"]}).status_code == 200
    before = client.get(f"/v1/models/{ENCODER}").json()["loads"]
    with running_server(sharing.data_dir, models_dir, NEUROEDGE_EXCLUSIVE_ROLES="text_embedding") as second:
        with second.new_account() as other:
            answer = other.post("/v1/engines/embedding/run", json={"texts": ["alone"]}, timeout=60)
            assert answer.status_code == 200, answer.text
        end = time.monotonic() + 60
        while (now := client.get(f"/v1/models/{ENCODER}").json())["loads"] == before or now["state"] != "ready":
            assert time.monotonic() < end
            time.sleep(0.1)
    assert client.post("/v1/engines/embedding/run", json={"texts": ["together"]}).status_code == 200
