"""A database that hangs: nobody waits for it long, and nobody who may wait is cut off."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from neuroedge.contract.errors import Unavailable
from neuroedge.infra import datadir
from neuroedge.infra.embedded import EmbeddedServers
from neuroedge.infra.vault import Vault, new_master_key
from neuroedge.settings import Settings
from neuroedge.stores import connection, schema
from neuroedge.stores.connection import AnsweringConnection
from neuroedge.stores.postgres import Database

pytestmark = pytest.mark.anyio
FEW_S = 30.0
"""What is promised is some 5 s; the rest is for a busy machine."""


class Postgres:
    """A server of these tests' own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        secrets = datadir.prepare(Settings(data_dir=root))
        self.servers = EmbeddedServers(root, secrets, postgres=True, valkey=False)
        addresses = self.servers.start()
        assert addresses.postgres_owner
        assert addresses.postgres_app
        schema.upgrade(addresses.postgres_owner, app_password=secrets.postgres_app_password)
        self.app_url = addresses.postgres_app

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """All its processes stopped."""
        pid = int((self.root / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        postmaster = psutil.Process(pid)
        stopped = [postmaster, *postmaster.children()]
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The server."""
    postgres = Postgres(tmp_path_factory.mktemp("hanging"))
    yield postgres
    postgres.servers.stop()


@pytest.fixture
async def db(postgres: Postgres) -> AsyncIterator[Database]:
    """An open pool."""
    db = Database(postgres.app_url, max_size=4, keys=Vault(new_master_key()))
    await db.open()
    yield db
    await db.close()


async def test_a_hanging_server_is_unavailable_within_seconds_and_then_serves_again(
    postgres: Postgres, db: Database
) -> None:
    """Several callers at once, more than the pool has connections; afterwards each gets one that works."""

    async def one() -> None:
        async with db.unbound() as conn:
            await conn.execute("SELECT 1")

    await one()
    with postgres.hanging():
        started = time.monotonic()
        outcomes = await asyncio.gather(*(one() for _ in range(6)), return_exceptions=True)
        assert time.monotonic() - started < FEW_S
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert all(isinstance(o, Unavailable) and o.retry_after_s for o in outcomes)
    await asyncio.gather(*(one() for _ in range(6)))


async def test_a_statement_in_flight_fails_when_the_server_begins_to_hang(postgres: Postgres, db: Database) -> None:
    """It was sent to a server that was well; its answer never comes."""

    async def sleep() -> None:
        async with db.unbound() as conn:
            await conn.execute("SELECT pg_sleep(1000)")

    sleeping = asyncio.create_task(sleep())
    await asyncio.sleep(0.2)
    with postgres.hanging():
        async with asyncio.timeout(FEW_S):
            with pytest.raises(Unavailable):
                await sleeping


async def test_ping_answers_at_once_though_psycopg_cancels_slowly(postgres: Postgres, db: Database) -> None:
    """/ready must not hang with the database."""
    await db.ping()
    with postgres.hanging():
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await db.ping()
        assert time.monotonic() - started < FEW_S / 2
    await db.ping()


async def test_a_slow_statement_of_a_healthy_server_is_waited_for(
    postgres: Postgres, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server takes connections, so it lives."""
    monkeypatch.setattr(connection, "_SILENT_S", 0.1)
    monkeypatch.setattr(connection, "_ALIVE_S", 60)
    async with db.unbound() as conn:
        cursor = await conn.execute("SELECT 1 AS one, pg_sleep(1)")
        row = await cursor.fetchone()
    assert row is not None
    assert row["one"] == 1


async def test_a_statement_without_end_is_ended_by_the_server(postgres: Postgres) -> None:
    """The limit goes with the connection."""
    db = Database(postgres.app_url, max_size=4, keys=Vault(new_master_key()))
    await db.open()
    async with db.unbound() as conn:
        cursor = await conn.execute("SHOW statement_timeout")
        row = await cursor.fetchone()
    await db.close()
    assert row == {"statement_timeout": "1min"}


async def test_a_connection_whose_process_hangs_while_the_server_lives_is_given_up(
    postgres: Postgres, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one backend stuck in a broken disk: no time limit of the server ends its statement."""
    monkeypatch.setattr(connection, "_SILENT_S", 0.1)
    monkeypatch.setattr(connection, "_LOST_S", 0.5)

    async def stop_and_ask() -> None:
        async with db.unbound() as conn:
            backend = psutil.Process(conn.info.backend_pid)
            backend.send_signal(signal.SIGSTOP)
            try:
                await conn.execute("SELECT 1")
            finally:
                backend.send_signal(signal.SIGCONT)

    with pytest.raises(Unavailable):
        await stop_and_ask()


async def test_a_listener_may_wait_for_ever(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """No notification for long is no sign of a hang."""
    async with await AnsweringConnection.connect(postgres.app_url, autocommit=True) as conn:
        await conn.execute("LISTEN nothing")
        with monkeypatch.context() as hasty:
            hasty.setattr(connection, "_SILENT_S", 0.05)
            hasty.setattr(connection, "_LOST_S", 0.1)
            assert [n async for n in conn.notifies(timeout=1)] == []
        await conn.execute("SELECT 1")


async def test_severing_a_closed_connection_does_nothing(postgres: Postgres) -> None:
    """The timer may strike late."""
    conn = await AnsweringConnection.connect(postgres.app_url)
    await conn.close()
    conn.sever()
    with pytest.raises(psycopg.OperationalError):
        await conn.execute("SELECT 1")


def test_an_operators_own_time_limits_are_kept() -> None:
    """Ours are only for where none is given."""
    kept = connection.with_limits("postgresql://somebody@db.example/neuroedge?connect_timeout=30")
    assert "connect_timeout=30" in kept
    assert "keepalives_idle=10" in kept
