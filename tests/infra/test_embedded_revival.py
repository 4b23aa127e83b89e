"""An embedded server that dies while it is held: started again, once, at the same address, with its data."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import valkey
from prometheus_client import CollectorRegistry, Counter
from structlog.testing import capture_logs

from neuroedge.contract.errors import Unavailable
from neuroedge.infra import datadir, embedded
from neuroedge.infra.embedded import Addresses, EmbeddedServers
from neuroedge.settings import Settings

pytestmark = pytest.mark.anyio


def _servers(root: Path, *, postgres: bool = True) -> EmbeddedServers:
    return EmbeddedServers(root, datadir.prepare(Settings(data_dir=root)), postgres=postgres, valkey=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory."""
    return tmp_path_factory.mktemp("revival")


@pytest.fixture
def held(root: Path) -> Iterator[tuple[EmbeddedServers, Addresses]]:
    """Both servers, held."""
    servers = _servers(root)
    yield servers, servers.start()
    servers.stop()


def _postmaster(root: Path) -> psutil.Process:
    return psutil.Process(int((root / "postgres" / "postmaster.pid").read_text().splitlines()[0]))


def _valkey(root: Path) -> psutil.Process:
    return psutil.Process(int((root / "valkey" / "valkey.pid").read_text()))


def _kill(process: psutil.Process) -> None:
    process.kill()
    psutil.wait_procs([process], timeout=60)


def _ping(address: str | None) -> bool:
    assert address
    client = valkey.Valkey.from_url(address)
    try:
        return bool(client.ping())
    finally:
        client.close()  # type: ignore[no-untyped-call]


def _restarts() -> Counter:
    return Counter("restarts", "", ("server",), registry=CollectorRegistry())


def _count(restarts: Counter, server: str) -> float:
    samples = (sample for metric in restarts.collect() for sample in metric.samples)
    return sum(s.value for s in samples if s.name.endswith("_total") and s.labels["server"] == server)


async def test_both_are_started_again_where_they_were_and_nothing_committed_is_lost(
    root: Path, held: tuple[EmbeddedServers, Addresses]
) -> None:
    """kill -9 of each; clients find them at the old address, without anybody starting anything."""
    servers, addresses = held
    assert addresses.postgres_owner
    with psycopg.connect(addresses.postgres_owner) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        conn.execute("INSERT INTO kept VALUES (1)")
    restarts = _restarts()
    keeping = asyncio.create_task(servers.keep_running(restarts=restarts))
    dead = [_postmaster(root), _valkey(root)]
    try:
        for process in dead:
            await asyncio.to_thread(_kill, process)
        while _count(restarts, "postgres") + _count(restarts, "valkey") < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    finally:
        keeping.cancel()
    with psycopg.connect(addresses.postgres_owner) as conn:
        assert conn.execute("SELECT count(*) > 0 FROM kept").fetchone() == (True,)
    assert _ping(addresses.valkey)
    assert not {process.pid for process in dead} & {_postmaster(root).pid, _valkey(root).pid}


def test_of_several_holders_one_starts_it(root: Path, held: tuple[EmbeddedServers, Addresses]) -> None:
    """The others wait for the lock and then find it alive."""
    others = [_servers(root) for _ in range(3)]
    for other in others:
        other.start()
    _kill(_valkey(root))
    with ThreadPoolExecutor(4) as threads:
        revived = list(threads.map(lambda servers: servers.revive("valkey"), [held[0], *others]))
    assert sorted(revived) == [False, False, False, True]
    for other in others:
        other.stop()
    assert _ping(held[1].valkey)


def test_a_query_that_outlived_its_server_is_ended_before_the_next_starts(
    root: Path, held: tuple[EmbeddedServers, Addresses]
) -> None:
    """It does not notice the death of its postmaster; two servers on one folder would damage it."""
    servers, addresses = held
    assert addresses.postgres_owner
    with psycopg.connect(addresses.postgres_owner) as conn, ThreadPoolExecutor(1) as threads:
        busy = psutil.Process(conn.info.backend_pid)
        query = threads.submit(conn.execute, "SELECT count(*) FROM generate_series(1, 1e12)")
        while busy.cpu_times().user < 0.1:
            time.sleep(0.01)
        _kill(_postmaster(root))
        assert busy.is_running()
        assert servers.revive("postgres")
        with pytest.raises(psycopg.OperationalError):
            query.result(timeout=60)
    assert not busy.is_running()
    with psycopg.connect(addresses.postgres_owner) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_postmaster_file_that_was_cut_off_does_not_stop_the_revival(
    root: Path, held: tuple[EmbeddedServers, Addresses]
) -> None:
    """As after a loss of power; PostgreSQL itself refuses to start with an empty one."""
    _kill(_postmaster(root))
    (root / "postgres" / "postmaster.pid").write_text("")
    assert held[0].revive("postgres")


def test_what_was_stopped_stays_stopped(tmp_path: Path) -> None:
    """A revival that waited for the lock while its holder let go."""
    servers = _servers(tmp_path, postgres=False)
    servers.start()
    process = _valkey(tmp_path)
    servers.stop()
    assert not servers.revive("valkey")
    with contextlib.suppress(psutil.NoSuchProcess):  # gone, or dead and not yet reaped
        assert process.status() == psutil.STATUS_ZOMBIE


async def test_a_server_that_dies_again_and_again_is_started_ever_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, then after 1, 2, 4 s and so on up to 30; what it says when it can't start is logged."""
    servers = _servers(tmp_path, postgres=False)
    servers.start()
    slept: list[float] = []
    clock = [0.0]

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds
        if len(slept) > 20:
            raise asyncio.CancelledError

    class Time:
        monotonic = staticmethod(lambda: clock[0])

    async def refuse(*_: Any) -> bool:
        raise Unavailable("no memory")

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(asyncio, "to_thread", refuse)
    monkeypatch.setattr(embedded, "time", Time)
    monkeypatch.setattr(servers, "_dead", lambda: ["valkey"])
    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await servers.keep_running(restarts=_restarts())
    monkeypatch.undo()
    assert slept[1::2][:8] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert logs[0]["event"] == "embedded_server_not_restarted"
    assert logs[0]["error"] == "no memory"
    servers.stop()
