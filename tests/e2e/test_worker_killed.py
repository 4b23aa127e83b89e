"""A worker killed in the middle: the job goes on from the last finished step and nothing is doubled."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql

from neuroedge.bootstrap import open_servers
from neuroedge.settings import Settings
from tests.conftest import SampleCall, Server, running_server
from tests.e2e.following import events, finished, send

pytestmark = [pytest.mark.models, pytest.mark.slow]


SMALL = {"NEUROEDGE_MODELS": "speech_to_text=whisper-tiny-en"}
"""What is heard is not what is tested."""


def _start_worker(server: Server) -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        [sys.executable, "-m", "neuroedge", "worker"], stdout=subprocess.PIPE, text=True, env=server.env
    )
    assert worker.stdout is not None
    assert "waiting for jobs" in worker.stdout.readline()
    return worker


def _kill(worker: subprocess.Popen[str]) -> None:
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert worker.stdout is not None
    worker.stdout.close()


def _owner(server: Server) -> str:
    """Where the owner of the server's database connects."""

    async def address() -> str:
        async with open_servers(Settings(data_dir=server.data_dir)) as servers:
            return servers.postgres_owner

    return asyncio.run(address())


@contextmanager
def _unfinished(server: Server, step: str) -> Iterator[None]:
    """Until the block ends, no recording gets further than this step: its output waits to be stored."""
    with psycopg.connect(_owner(server), autocommit=True) as conn:
        conn.execute(
            "CREATE OR REPLACE FUNCTION public.wait_for_test() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END $$"
        )
        conn.execute(
            sql.SQL(
                "CREATE OR REPLACE TRIGGER wait_for_test BEFORE INSERT ON public.recording_steps FOR EACH ROW"
                " WHEN (NEW.step = {}) EXECUTE FUNCTION public.wait_for_test()"
            ).format(sql.Literal(step))
        )
        conn.execute("SELECT pg_advisory_lock(7)")
        yield


@pytest.mark.timeout(400)
@pytest.mark.parametrize("step", ["transcribe", "emotion"])
def test_a_killed_workers_job_is_resumed(step: str, tmp_path: Path, models_dir: Path, sample_call: SampleCall) -> None:
    """kill -9 while a step runs; the next worker does only what was not finished."""
    with running_server(tmp_path / "data", models_dir, NEUROEDGE_WORKER="external", **SMALL) as server:
        first = _start_worker(server)
        second = None
        try:
            with server.new_account() as client:
                with _unfinished(server, step):
                    recording = send(client, sample_call.wav)
                    for _, name, data in events(client, recording["id"]):
                        if name == "progress" and data["step"] == step:
                            break
                    _kill(first)
                assert client.get(f"/v1/recordings/{recording['id']}").json()["status"] == "running"
                second = _start_worker(server)
                detail = finished(client, recording["id"])
                assert detail["status"] == "done", detail
                done = [data["step"] for _, name, data in events(client, recording["id"]) if name == "step"]
                assert done == ["analyse", "transcribe", "diarize", "identify", "emotion", "remember"]
                query = {"query": detail["segments"][0]["text"], "recording_id": recording["id"], "top_k": 50}
                hits = client.post("/v1/engines/search/run", json=query).json()["result"]["hits"]
                assert len(hits) == len({hit["id"] for hit in hits})
                assert len({(h["metadata"]["start_s"], h["content"]) for h in hits}) == len(hits)
                assert len(hits) <= len(detail["segments"])
        finally:
            for worker in (first, second):
                if worker is not None and worker.poll() is None:
                    _kill(worker)


@pytest.mark.timeout(300)
def test_a_stopped_server_gives_its_job_back_and_goes_on_at_the_next_start(
    tmp_path: Path, models_dir: Path, sample_call: SampleCall
) -> None:
    """SIGTERM in the middle; the second start on the same data finds the recording and finishes it."""
    data_dir = tmp_path / "data"
    with running_server(data_dir, models_dir, **SMALL) as server:
        client = server.new_account()
        token = client.headers["Authorization"]
        recording = send(client, sample_call.wav)
        for _, name, data in events(client, recording["id"]):
            if name == "progress" and data["step"] == "transcribe":
                break
        client.close()
    with (
        running_server(data_dir, models_dir, **SMALL) as server,
        httpx.Client(base_url=server.url, headers={"Authorization": token}, timeout=60) as client,
    ):
        assert finished(client, recording["id"])["status"] == "done"


@pytest.mark.timeout(300)
def test_a_server_killed_with_9_starts_again(tmp_path: Path, models_dir: Path) -> None:
    """No stale lock or pid stops the next start; users and tokens are still good."""
    data_dir = tmp_path / "data"
    with running_server(data_dir, models_dir, **SMALL) as server:
        client = server.new_account()
        token = client.headers["Authorization"]
        client.close()
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    with running_server(data_dir, models_dir) as server:
        me = httpx.get(f"{server.url}/auth/me", headers={"Authorization": token}, timeout=60)
        assert me.status_code == 200


def test_two_processes_share_the_embedded_servers(tmp_path: Path, models_dir: Path) -> None:
    """A command beside a running server joins its database, and leaves it running when it ends."""
    with running_server(tmp_path / "data", models_dir) as server:
        done = subprocess.run(
            [sys.executable, "-m", "neuroedge", "users", "create", "second", "second@example.org"],
            env={**server.env, "NEUROEDGE_PASSWORD": "a good password"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        login = {"username": "second", "password": "a good password"}
        assert httpx.post(f"{server.url}/auth/login", json=login, timeout=60).status_code == 200
        owner = _owner(server)
        psycopg.connect(owner).close()
    # Whoever is last to leave stops the servers.
    if "POSTGRES_URL" not in server.env:
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(owner)
