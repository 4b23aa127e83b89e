"""kill -9 of the server while the assistant answers: after the next start the answer comes by itself."""

import signal
import time
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from tests.conftest import running_server
from tests.upstreams import Reply, running_upstream

pytestmark = [pytest.mark.slow, pytest.mark.models, pytest.mark.timeout(300)]
QUESTION = {"content": "Hello there!", "include_context": False, "stream": True, "max_tokens": 32}
WAIT_S = 60


def test_an_answer_that_was_cut_off_is_there_when_the_client_reconnects(tmp_path: Path, models_dir: Path) -> None:
    """The stream breaks; then the message runs on, is done, and the question sent again gives the same answer."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    with running_upstream() as upstream:
        (data_dir / "providers.toml").write_text(upstream.as_house("talker"))
        upstream.script("talker", Reply(text="This is never heard to its end.", stall_after=2))
        with running_server(data_dir, models_dir) as server, server.new_account() as client:
            token = client.headers["Authorization"]
            session_id = client.post("/v1/sessions", json={"model": "house/talker"}).json()["id"]
            path = f"/v1/sessions/{session_id}/messages"
            heard = _cut_off(client, path, kill=lambda: server.process.send_signal(signal.SIGKILL))
            server.process.wait(timeout=30)
        assert "event: started" in heard
        assert "event: done" not in heard
        upstream.script("talker", Reply(text="Hello to you."))
        with (
            running_server(data_dir, models_dir) as server,
            httpx.Client(base_url=server.url, headers={"Authorization": token}, timeout=60) as client,
        ):
            answer = _done(client, path)
            assert (answer["state"], answer["role"], answer["content"]) == ("done", "assistant", "Hello to you.")
            again = client.post(path, json={**QUESTION, "stream": False}, headers={"Idempotency-Key": "once"})
            assert again.status_code == 200, again.text
            assert again.json()["message"]["id"] == answer["id"]
            assert len(client.get(path).json()["messages"]) == 2


def _cut_off(client: httpx.Client, path: str, *, kill: Any) -> str:
    """What was heard of the answer until the server was killed in its middle."""
    heard: list[str] = []

    def listen() -> None:
        try:
            with client.stream("POST", path, json=QUESTION, headers={"Idempotency-Key": "once"}) as answer:
                for piece in answer.iter_text():
                    heard.append(piece)
        except httpx.HTTPError:
            heard.append("(broken)")

    listener = Thread(target=listen)
    listener.start()
    until = time.monotonic() + WAIT_S
    while "event: stage" not in "".join(heard) or '"generate"' not in "".join(heard):
        assert time.monotonic() < until, heard
        time.sleep(0.05)
    time.sleep(0.5)  # the model is in the middle of its words
    kill()
    listener.join(timeout=30)
    return "".join(heard)


def _done(client: httpx.Client, path: str) -> dict[str, Any]:
    """The answer, once it is no longer being written."""
    until = time.monotonic() + WAIT_S
    while (answer := client.get(path).json()["messages"][-1])["state"] == "running":
        assert time.monotonic() < until, answer
        time.sleep(0.2)
    found: dict[str, Any] = answer
    return found
