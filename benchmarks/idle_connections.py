"""Memory of idle listeners: `python -m benchmarks.idle_connections`.

A thousand connections, of ten users, follow chat sessions in which nothing happens (GET /v1/sessions/{id}/events,
server-sent events). The server's resident memory is read before them, when all are open, and half a minute later, with
the processor time it took meanwhile.

Then, on a server of its own, a thousand WebSockets (GET /v1/audio/stream) that were let in and have not said yet what
they want, which they may for ten seconds; and as many live sessions as a process takes (64), started and silent, with
the recogniser loaded before they are counted.
"""

import argparse
import asyncio
import json
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil

from benchmarks.report import Figure, figure, save
from benchmarks.serving import Served, serve
from neuroedge.http.live_connection import FIRST_MESSAGE_S

USERS: Final = 10
EACH: Final = 100
IDLE_S: Final = 30.0
MOST_MB: Final = 150.0
AT_ONCE: Final = 50
"""WebSockets opened at the same time: all must be there before the first is given up."""
SESSIONS: Final = 64


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="print only, save nothing")
    dry = parser.parse_args().dry
    figures = [*_events(), *_websockets()]
    if dry:
        for f in figures:
            print(f"{f.name}: {f.median:g} {f.unit} {f.target}")
        return
    save(
        "idle_connections",
        figures,
        title=f"{USERS * EACH:,} idle connections",
        command="python -m benchmarks.idle_connections",
    )


def _events() -> list[Figure]:
    """Server-sent events."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with serve(Path(folder) / "data") as server:
            sessions = [_session(server) for _ in range(USERS)]
            asyncio.run(_listen(server, sessions[:1], 5, 1.0))  # imports and pools are not what is measured
            before = server.resident_mb()
            opened, idle, busy = asyncio.run(_listen(server, sessions, EACH, IDLE_S))
    return [
        figure("memory of 1,000 idle listeners", "MB", [max(opened, idle) - before], at_most=MOST_MB),
        figure("resident memory before them", "MB", [before]),
        figure("processor time meanwhile", "% of a core", [busy]),
    ]


def _websockets() -> list[Figure]:
    """WebSockets before their first message, and silent live sessions."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        limits = {"NEUROEDGE_LIVE_SESSIONS": str(SESSIONS), "NEUROEDGE_REQUESTS_PER_MINUTE": "0"}
        with serve(Path(folder) / "data", **limits) as server, server.log_in() as client:
            token = str(client.headers["Authorization"])
            return asyncio.run(_opened(server, token))


async def _opened(server: Served, token: str) -> list[Figure]:
    await _unspoken(server, token, AT_ONCE)  # imports and pools are not what is measured
    before = server.resident_mb()
    took_mb = await _unspoken(server, token, USERS * EACH) - before
    await _silent(server, token, 1)  # loads the recogniser
    loaded = server.resident_mb()
    sessions_mb = await _silent(server, token, SESSIONS) - loaded
    return [
        figure("memory of 1,000 idle WebSockets", "MB", [took_mb], at_most=MOST_MB, note="let in, nothing said yet"),
        figure(f"memory of {SESSIONS} silent live sessions", "MB", [sessions_mb], note="the most a process takes"),
    ]


async def _unspoken(server: Served, token: str, count: int) -> float:
    """Megabytes when so many are let in; anything but that ends the benchmark."""
    address = urlsplit(server.url)
    request = (
        f"GET /v1/audio/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    ).encode()

    async def opened() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 101"):
            raise SystemExit(answer.decode())
        return reader, writer

    pairs: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    began = time.perf_counter()
    while len(pairs) < count:
        pairs += await asyncio.gather(*(opened() for _ in range(min(AT_ONCE, count - len(pairs)))))
    taken_mb = server.resident_mb()
    if time.perf_counter() - began > FIRST_MESSAGE_S - 1:
        raise SystemExit("the first were given up before the last was there: this machine has too much to do")
    for _, writer in pairs:
        writer.close()
    await asyncio.sleep(1)
    return taken_mb


async def _silent(server: Served, token: str, count: int) -> float:
    """Megabytes when so many sessions have begun and nobody speaks."""
    from websockets.asyncio.client import connect

    url = f"{server.url.replace('http', 'ws', 1)}/v1/audio/stream"
    async with AsyncExitStack() as stack:
        for _ in range(count):
            socket = await stack.enter_async_context(connect(url, additional_headers={"Authorization": token}))
            await socket.send(json.dumps({"type": "start"}))
            told = json.loads(await socket.recv())
            if told["type"] != "session":
                raise SystemExit(str(told))
        await asyncio.sleep(IDLE_S / 3)
        return server.resident_mb()


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
