"""Embedded PostgreSQL and Valkey: shared by processes, safe after kill -9, never open to others."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
import valkey

from neuroedge.infra import datadir
from neuroedge.infra.embedded import EmbeddedServers
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
    out, _ = holder.communicate("\n", timeout=60)
    assert out == "let go\n"


def _server_processes(root: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if str(root) in command and ("postgres" in process.name() or "valkey" in process.name()):
            found.append(process.name())
    return found


def test_the_last_holder_stops_the_servers(tmp_path: Path) -> None:
    """Two processes share them; the first to leave leaves them running."""
    first, second = _holder(tmp_path), _servers(tmp_path)
    addresses = second.start()
    _end(first)
    assert addresses.postgres_owner
    assert addresses.valkey
    with psycopg.connect(addresses.postgres_owner) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    client = valkey.Valkey.from_url(addresses.valkey)
    assert client.ping()
    client.close()
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
    for process in doomed:
        process.kill()
    psutil.wait_procs(doomed, timeout=10)
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
    servers.start()
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
    assert addresses.valkey
    client = valkey.Valkey.from_url(addresses.valkey)
    assert client.ping()
    client.close()
    servers.stop()
