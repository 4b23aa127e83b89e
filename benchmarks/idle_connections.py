"""Memory of idle listeners: `python -m benchmarks.idle_connections`.

A thousand connections, of ten users, follow chat sessions in which nothing happens (GET /v1/sessions/{id}/events,
server-sent events). The server's resident memory is read before them, when all are open, and half a minute later, with
the processor time it took meanwhile.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil

from benchmarks.report import figure, save
from benchmarks.serving import Served, serve

USERS: Final = 10
EACH: Final = 100
IDLE_S: Final = 30.0
MOST_MB: Final = 150.0


def main() -> None:
    """Measure and save."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with serve(Path(folder) / "data") as server:
            sessions = [_session(server) for _ in range(USERS)]
            asyncio.run(_listen(server, sessions[:1], 5, 1.0))  # imports and pools are not what is measured
            before = server.resident_mb()
            opened, idle, busy = asyncio.run(_listen(server, sessions, EACH, IDLE_S))
    save(
        "idle_connections",
        [
            figure("memory of 1,000 idle listeners", "MB", [max(opened, idle) - before], at_most=MOST_MB),
            figure("resident memory before them", "MB", [before]),
            figure("processor time meanwhile", "% of a core", [busy]),
        ],
        title=f"{USERS * EACH:,} idle SSE connections",
        command="python -m benchmarks.idle_connections",
    )


def _session(server: Served) -> tuple[str, str]:
    """A fresh user's token and the path of the events of a session of theirs."""
    with server.log_in() as client:
        session = client.post("/v1/sessions", json={}).raise_for_status().json()
        return str(client.headers["Authorization"]), f"/v1/sessions/{session['id']}/events"


async def _listen(
    server: Served, sessions: list[tuple[str, str]], each: int, idle_s: float
) -> tuple[float, float, float]:
    """Megabytes when all listen and after a while, and the share of a core the server used meanwhile."""
    address = urlsplit(server.url)
    writers = []
    for token, path in sessions:
        for _ in range(each):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\r\n".encode())
            status = await reader.readline()
            if b" 200 " not in status:
                raise SystemExit(status.decode())
            writers.append(writer)
    opened, process, began = server.resident_mb(), psutil.Process(server.process.pid), time.perf_counter()
    used = sum(process.cpu_times()[:2])
    await asyncio.sleep(idle_s)
    busy = 100 * (sum(process.cpu_times()[:2]) - used) / (time.perf_counter() - began)
    idle = server.resident_mb()
    for writer in writers:
        writer.close()
    return opened, idle, busy


if __name__ == "__main__":
    main()
