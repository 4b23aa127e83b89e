"""kill -9 of every process there is: the task is finished all the same, and its result is stored once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import Server, running_server
from tests.e2e.task_engines import installed, lines, started
from tests.e2e.test_tasks import finished, order, submitted, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LONG_S = 4.0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the trial engine writes what it does."""
    return tmp_path / "runs.log"


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """The file that runs wait for which are told so."""
    return tmp_path / "go"


@pytest.fixture
def trial(tmp_path: Path) -> dict[str, str]:
    """Environment of processes that know the trial engine."""
    return {**installed(tmp_path / "site"), "NEUROEDGE_TASK_RETRY_S": "0.2"}


@contextmanager
def working(server: Server) -> Iterator[subprocess.Popen[str]]:
    """A worker process; killed at the end if it still lives."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "neuroedge", "worker"], stdout=subprocess.PIPE, text=True, env=server.env
    )
    assert worker.stdout is not None
    try:
        assert "waiting for jobs" in worker.stdout.readline()
        yield worker
    finally:
        with suppress(ProcessLookupError):
            worker.kill()
        worker.wait()
        worker.stdout.close()


def running(client: httpx.Client, log: Path, **payload: Any) -> str:
    """The id of a task whose engine is at work."""
    task_id: str = submitted(client, order(log, **payload))["id"]
    until(client, task_id, lambda task: task["stage"] == "sleeping")
    return task_id


def resumed(client: httpx.Client, task_id: str, log: Path, *, begun: list[str]) -> None:
    """The task succeeded on its second start, and says that the first was cut off."""
    done = finished(client, task_id)
    assert (done["state"], done["attempts"], done["interrupted"], done["errors"]) == ("succeeded", 2, 1, 0), done
    assert client.get(f"/v1/tasks/{task_id}/result").json()["result"]["text"] == "\x00a"
    assert [task["id"] for task in client.get("/v1/tasks").json()["tasks"]] == [task_id]
    assert lines(log) == [*begun, "trial begins", "trial ends"]


def postmaster(server: Server) -> psutil.Process:
    """The embedded PostgreSQL's first process."""
    if "POSTGRES_URL" in server.env:
        pytest.skip("an external PostgreSQL is not ours to kill")
    return psutil.Process(int((server.data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0]))


def test_a_killed_server_with_its_own_worker(
    tmp_path: Path, models_dir: Path, trial: dict[str, str], log: Path, go: Path
) -> None:
    """The next start on the same data finishes what the server was at."""
    data_dir = tmp_path / "data"
    with running_server(data_dir, models_dir, **trial) as server:
        with server.new_account() as client:
            token = client.headers["Authorization"]
            task_id = running(client, log, hold=str(go))
        server.process.kill()
        server.process.wait()
    go.touch()
    with (
        running_server(data_dir, models_dir, **trial) as server,
        httpx.Client(base_url=server.url, headers={"Authorization": token}, timeout=60) as client,
    ):
        resumed(client, task_id, log, begun=["trial begins"])


def test_a_killed_worker(tmp_path: Path, models_dir: Path, trial: dict[str, str], log: Path, go: Path) -> None:
    """Another worker takes its task over; until then the task is still shown as running."""
    with (
        running_server(tmp_path / "data", models_dir, NEUROEDGE_WORKER="external", **trial) as server,
        server.new_account() as client,
    ):
        with working(server) as first:
            task_id = running(client, log, hold=str(go))
            first.kill()
            first.wait()
        assert client.get(f"/v1/tasks/{task_id}").json()["state"] == "running"
        go.touch()
        with working(server):
            resumed(client, task_id, log, begun=["trial begins"])


def test_a_stopped_worker(tmp_path: Path, models_dir: Path, trial: dict[str, str], log: Path, go: Path) -> None:
    """SIGTERM gives the task back at once; nobody has to notice a missing sign of life."""
    with (
        running_server(tmp_path / "data", models_dir, NEUROEDGE_WORKER="external", **trial) as server,
        server.new_account() as client,
    ):
        with working(server) as first:
            task_id = running(client, log, hold=str(go))
            first.terminate()
            assert first.wait(timeout=60) == 0
        go.touch()
        waiting = client.get(f"/v1/tasks/{task_id}").json()
        assert (waiting["state"], waiting["interrupted"]) == ("queued", 1)
        with working(server):
            resumed(client, task_id, log, begun=["trial begins", "trial is cancelled"])


def test_a_killed_database(tmp_path: Path, models_dir: Path, trial: dict[str, str], log: Path) -> None:
    """The server goes on with its database back, without being started again itself, and so does its worker."""
    with running_server(tmp_path / "data", models_dir, **trial) as server, server.new_account() as client:
        task_id = running(client, log, seconds=LONG_S)
        postmaster(server).kill()
        assert client.get(f"/v1/tasks/{task_id}").status_code in (200, 503)
        with working(server) as revived:
            revived.terminate()
            assert revived.wait(timeout=90) == 0
        deadline = time.monotonic() + 60
        while client.get("/ready").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        done = finished(client, task_id)
        assert done["state"] == "succeeded"
        assert started(log) == done["attempts"] <= 3
        assert lines(log)[-1] == "trial ends"
        following = submitted(client, order(log, name="next"))
        assert finished(client, following["id"])["state"] == "succeeded"


def test_everything_killed_at_once(
    tmp_path: Path, models_dir: Path, trial: dict[str, str], log: Path, go: Path
) -> None:
    """Server, worker, PostgreSQL and Valkey: the power failed; waiting and running tasks are both finished after it."""
    data_dir = tmp_path / "data"
    with (
        running_server(data_dir, models_dir, NEUROEDGE_WORKER="external", **trial) as server,
        server.new_account() as client,
        working(server) as worker,
    ):
        token = client.headers["Authorization"]
        task_id = running(client, log, hold=str(go))
        waiting = submitted(client, {**order(log, name="waiting"), "delay_s": 5})
        database, cache = postmaster(server).pid, int((data_dir / "valkey" / "valkey.pid").read_text())
        for pid in (server.process.pid, worker.pid, database, cache):
            os.kill(pid, signal.SIGKILL)
        server.process.wait()
    go.touch()
    with (
        running_server(data_dir, models_dir, **trial) as server,
        httpx.Client(base_url=server.url, headers={"Authorization": token}, timeout=60) as client,
    ):
        done = finished(client, task_id)
        assert (done["state"], done["attempts"], done["interrupted"]) == ("succeeded", 2, 1), done
        assert finished(client, waiting["id"])["state"] == "succeeded"
        assert sorted(lines(log)) == sorted(
            ["trial begins", "trial begins", "trial ends", "waiting begins", "waiting ends"]
        )


def test_a_task_is_cancelled_in_another_process(
    tmp_path: Path, models_dir: Path, trial: dict[str, str], log: Path
) -> None:
    """The server tells the worker, which ends the engine's call and takes the next task."""
    more = {**trial, "NEUROEDGE_WORKER": "external", "NEUROEDGE_TASK_CONCURRENCY": "1"}
    with (
        running_server(tmp_path / "data", models_dir, **more) as server,
        server.new_account() as client,
        working(server),
    ):
        task_id = running(client, log, seconds=600)
        assert client.post(f"/v1/tasks/{task_id}/cancel").json()["state"] == "cancelled"
        following = submitted(client, order(log, name="next"))
        assert finished(client, following["id"])["state"] == "succeeded"
        assert lines(log) == ["trial begins", "trial is cancelled", "next begins", "next ends"]
        assert client.get(f"/v1/tasks/{task_id}").json()["state"] == "cancelled"


def test_a_task_cancelled_after_its_worker_died_stays_cancelled(
    tmp_path: Path, models_dir: Path, trial: dict[str, str], log: Path, go: Path
) -> None:
    """The one that takes over finds nothing to do; run anew, the task runs."""
    with (
        running_server(tmp_path / "data", models_dir, NEUROEDGE_WORKER="external", **trial) as server,
        server.new_account() as client,
    ):
        with working(server) as first:
            task_id = running(client, log, hold=str(go))
            first.kill()
            first.wait()
        go.touch()
        assert client.post(f"/v1/tasks/{task_id}/cancel").json()["state"] == "cancelled"
        assert client.post(f"/v1/tasks/{task_id}/retry").status_code == 202
        with working(server):
            done = finished(client, task_id)
        assert (done["state"], done["attempts"], done["interrupted"]) == ("succeeded", 2, 0)
        assert lines(log) == ["trial begins", "trial begins", "trial ends"]
