"""Valkey and PostgreSQL die, hang and come back under a running server: right answers meanwhile, no restart after."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from tests.conftest import PASSWORD, SampleCall, Server, running_server
from tests.e2e.following import finished, send
from tests.e2e.task_engines import installed
from tests.external import ExternalPostgres, ExternalServer, ExternalValkey, external_servers

pytestmark = pytest.mark.slow
FEW_S = 20.0
"""Some 5 s are promised for an answer during an outage; the rest is for a busy machine."""
WAIT_S = 60.0
"""As long is waited for what comes by itself, on a machine that may stand still meanwhile."""


@dataclass
class Installation:
    """A server on an operator's PostgreSQL and Valkey."""

    server: Server
    postgres: ExternalPostgres
    valkey: ExternalValkey

    def ready(self) -> dict[str, str]:
        """The status of each check of /ready."""
        checks = httpx.get(f"{self.server.url}/ready", timeout=WAIT_S).json()["checks"]
        return {name: check["status"] for name, check in checks.items()}

    def shows(self, **wanted: str) -> bool:
        """Whether these checks of /ready have these statuses, at the same time."""
        return wanted.items() <= self.ready().items()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Installation]:
    """One for all tests: each leaves it as well as it found it, without a restart."""
    folder = tmp_path_factory.mktemp("outages")
    with external_servers() as (postgres, valkey):
        env = {**postgres.env, **valkey.env, **installed(folder / "site"), "NEUROEDGE_TASK_RETRY_S": "0.2"}
        with running_server(folder / "data", models_dir, **env) as server:
            yield Installation(server, postgres, valkey)


@contextlib.contextmanager
def outage(external: ExternalServer, how: str) -> Iterator[None]:
    """While the block runs, a server is stopped or hangs."""
    if how == "hangs":
        with external.hanging():
            yield
        return
    external.stop()
    try:
        yield
    finally:
        external.start()


def until(wanted: Callable[[], bool], *, within_s: float = WAIT_S) -> None:
    """Wait for something to be so."""
    deadline = time.monotonic() + within_s
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def login(server: Server, username: str) -> httpx.Response:
    """Log an account of the tests in."""
    body = {"username": username, "password": PASSWORD}
    return httpx.post(f"{server.url}/auth/login", json=body, timeout=WAIT_S)


def username(client: httpx.Client) -> str:
    """Whose token a client holds."""
    return str(client.get("/auth/me").json()["username"])


def trial(**payload: Any) -> dict[str, Any]:
    """A call of the trial engine, which needs nothing."""
    return {"log": "/dev/null", **payload}


def submit(client: httpx.Client, **payload: Any) -> str:
    """The id of a task that is taken."""
    answer = client.post("/v1/tasks", json={"engine": "trial", "payload": trial(**payload)})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def state(client: httpx.Client, task_id: str) -> str | None:
    """A task's state; None while the database is not back."""
    answer = client.get(f"/v1/tasks/{task_id}")
    return str(answer.json()["state"]) if answer.status_code == 200 else None


def events_of(client: httpx.Client, task_id: str) -> str:
    """What a listener to a task hears until its end."""
    return client.get(f"/v1/tasks/{task_id}/events", timeout=WAIT_S).text


def assert_unavailable(answer: httpx.Response) -> None:
    """A problem that says to come again."""
    assert answer.status_code == 503, answer.text
    assert answer.json()["code"] == "unavailable"
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.elapsed.total_seconds() < FEW_S


@pytest.mark.parametrize("how", ["stopped", "hangs"])
def test_without_valkey_everything_but_events_goes_on(how: str, installation: Installation) -> None:
    """Login, engine calls and tasks too; a listener hears the end from the database; then events come again."""
    server = installation.server
    with server.new_account() as client:
        name = username(client)
        with outage(installation.valkey, how):
            until(lambda: installation.shows(cache="failed", database="ok"))
            assert httpx.get(f"{server.url}/health", timeout=WAIT_S).status_code == 200
            for answer in (
                login(server, name),
                client.post("/v1/engines/trial/run", json=trial()),
                client.get("/v1/recordings"),
            ):
                assert answer.status_code == 200, answer.text
                assert answer.elapsed.total_seconds() < FEW_S
            task_id = submit(client, seconds=0.3)
            assert "event: succeeded" in events_of(client, task_id)
        until(lambda: installation.ready()["cache"] == "ok")
        # For some seconds after a hang nobody waits for events, to be rid of it in time.
        until(lambda: "event: started" in events_of(client, submit(client)))


@pytest.mark.parametrize("how", ["stopped", "hangs"])
def test_without_postgres_whoever_needs_it_is_told_to_come_again(how: str, installation: Installation) -> None:
    """503 with Retry-After; what needs no database is answered; afterwards no connection is dead."""
    server = installation.server
    with server.new_account() as client:
        name = username(client)
        with outage(installation.postgres, how):
            until(lambda: installation.shows(database="failed", cache="ok"))
            assert httpx.get(f"{server.url}/health", timeout=WAIT_S).status_code == 200
            with ThreadPoolExecutor(8) as callers:
                answers = [callers.submit(client.get, "/v1/recordings") for _ in range(20)]
                refused = [login(server, name), *(answer.result() for answer in answers)]
            for answer in refused:
                assert_unavailable(answer)
            called = client.post("/v1/engines/trial/run", json=trial())
            assert called.status_code == 200, called.text
            assert called.elapsed.total_seconds() < FEW_S
        until(lambda: installation.ready()["database"] == "ok")
        with ThreadPoolExecutor(8) as callers:
            answers = [callers.submit(client.get, "/v1/recordings") for _ in range(40)]
            assert {answer.result().status_code for answer in answers} == {200}
        assert login(server, name).status_code == 200


@pytest.mark.parametrize("how", ["stopped", "hangs"])
def test_the_worker_outlives_an_outage_of_postgres(how: str, installation: Installation) -> None:
    """A task under way is finished, one that waits is run, and new ones are heard of by notification again."""
    with installation.server.new_account() as client:
        running, waiting = submit(client, seconds=8), submit(client, seconds=0.1)
        until(lambda: state(client, running) != "queued")
        with outage(installation.postgres, how):
            time.sleep(7)
        # Looked at right away: from half a minute without news on, the last statement of a listener is another.
        until(lambda: listeners(installation.postgres) >= 2)
        tasks = (running, waiting)
        until(lambda: {state(client, each) for each in tasks} == {"succeeded"}, within_s=2 * WAIT_S)
        last = submit(client)
        until(lambda: state(client, last) == "succeeded")


def listeners(postgres: ExternalPostgres) -> int:
    """Connections that wait for notifications: one for each queue of a worker."""
    with psycopg.connect(postgres.superuser) as conn:
        row = conn.execute("SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'listen%'").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.models
@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", ["postgres", "valkey"])
def test_a_recording_processed_across_an_outage_is_finished(
    what: str, installation: Installation, sample_call: SampleCall
) -> None:
    """PostgreSQL stops in the middle of the work, or Valkey hangs."""
    with installation.server.new_account() as client:
        recording = send(client, sample_call.wav)
        until(lambda: client.get(f"/v1/recordings/{recording['id']}").json()["status"] != "queued")
        time.sleep(1)
        external: ExternalServer = getattr(installation, what)
        with outage(external, "stopped" if what == "postgres" else "hangs"):
            time.sleep(6)
        until(lambda: set(installation.ready().values()) == {"ok"})
        detail = finished(client, recording["id"])
        assert detail["status"] == "done", detail
        assert detail["segments"]


@pytest.mark.skipif("POSTGRES_URL" in os.environ, reason="the servers are not embedded")
@pytest.mark.parametrize("what", ["postgres", "valkey"])
def test_an_embedded_server_that_is_killed_comes_back_by_itself(what: str, tmp_path: Path, models_dir: Path) -> None:
    """kill -9 while a task runs: what was committed is there, the task is finished, the restart is counted."""
    data_dir = tmp_path / "data"
    with running_server(data_dir, models_dir, **installed(tmp_path / "site")) as server, server.new_account() as client:
        name = username(client)
        task_id = submit(client, seconds=5)
        until(lambda: state(client, task_id) != "queued")
        pidfile = data_dir / ("postgres/postmaster.pid" if what == "postgres" else "valkey/valkey.pid")
        psutil.Process(int(pidfile.read_text().splitlines()[0])).kill()
        until(lambda: restarts(server, what) >= 1)
        until(lambda: httpx.get(f"{server.url}/ready", timeout=WAIT_S).status_code == 200)
        assert login(server, name).status_code == 200
        until(lambda: state(client, task_id) == "succeeded", within_s=2 * WAIT_S)
        until(lambda: "event: started" in events_of(client, submit(client)))
        assert server.process.poll() is None


def restarts(server: Server, what: str) -> float:
    """How often the server started an embedded one again."""
    return server.metric(f'neuroedge_embedded_restarts_total{{server="{what}"}}') or 0.0
