"""What NeuroEdge adds to a call: a no-op engine against a bare FastAPI route, `python -m benchmarks.overhead`.

Both are one process with the same uvicorn configuration on 127.0.0.1; both take and give the same pydantic models. The
no-op engine is a third party's, found by its entry point, so that nothing of it is built in. Rounds alternate between
the two and are short, and what is judged is a ratio or a difference within one round: the machine's other work hits
both alike. CPU time per request tells the same with less noise.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks.report import Figure, figure, save
from benchmarks.serving import serve
from neuroedge.cli.serve import bind

_ENGINE = '''
from neuroedge.contract.engine import Engine, EngineInput, EngineOutput

class NoopInput(EngineInput):
    """Anything."""
    text: str
    count: int = 1

class NoopOutput(EngineOutput):
    """The same."""
    text: str
    count: int

class Noop(Engine[NoopInput, NoopOutput]):
    """Answers what it is given."""
    name = "noop"
    title = "No operation"
    method = "echo"
    example = NoopInput(text="x")

    async def run(self, payload, ctx):
        return NoopOutput(method=self.method, text=payload.text, count=payload.count)
'''
_BODY = json.dumps({"text": "What does this cost?", "count": 3}).encode()
_THROUGHPUT_CONNECTIONS = 32
_THIS = [sys.executable, "-m", "benchmarks.overhead"]


@dataclass(frozen=True)
class Target:
    """A server, and how to call it."""

    url: str
    token: str
    pid: int


@dataclass(frozen=True)
class Load:
    """One round against one server."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """CPU time of the server process per request."""


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one round against one server")
    parser.add_argument("--role", choices=["bare", "load"], help="used by the benchmark itself")
    parser.add_argument("--target", default="{}", help="used by the benchmark itself")
    parser.add_argument("--dry", action="store_true", help="print only, save nothing")
    arguments = parser.parse_args()
    if arguments.role == "bare":
        serve_bare()
    elif arguments.role == "load":
        print(json.dumps(_drive(**json.loads(arguments.target))))
    else:
        measure(rounds=arguments.rounds, seconds=arguments.seconds, keep=not arguments.dry)


def measure(*, rounds: int, seconds: float, keep: bool) -> None:
    """Alternate rounds against both servers."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)  # the embedded PostgreSQL of root runs as another user
        _install_engine(root / "noop")
        path = os.pathsep.join([str(root / "noop"), os.environ.get("PYTHONPATH", "")])
        with (
            _bare() as (bare, bare_pid),
            serve(root / "data", PYTHONPATH=path, NEUROEDGE_REQUESTS_PER_MINUTE="100000000") as ours,
            ours.log_in() as client,
        ):
            token, url = client.headers["Authorization"], f"{ours.url}/v1/engines/noop/run"
            targets = {
                "bare": Target(url=f"{bare}/run", token="Bearer none", pid=bare_pid),
                "ours": Target(url=url, token=token, pid=ours.process.pid),
            }
            for target in targets.values():
                load(target, connections=4, seconds=1.0)  # first requests build routes, schemas, connections
            results = {
                connections: _rounds(targets, connections=connections, rounds=rounds, seconds=seconds)
                for connections in (1, _THROUGHPUT_CONNECTIONS)
            }
    figures = _figures(results)
    if keep:
        save("overhead", figures, title="Cost of a call around the engine", command="python -m benchmarks.overhead")
    else:
        for f in figures:
            print(f"{f.name}: {f.median:g} {f.unit} ({f.low:g}-{f.high:g})")


def _rounds(targets: dict[str, Target], *, connections: int, rounds: int, seconds: float) -> list[dict[str, Load]]:
    found = []
    for n in range(rounds):
        order = list(targets) if n % 2 == 0 else list(reversed(targets))
        found.append({name: load(targets[name], connections=connections, seconds=seconds) for name in order})
    return found


def _figures(results: dict[int, list[dict[str, Load]]]) -> list[Figure]:
    one, many = results[1], results[_THROUGHPUT_CONNECTIONS]
    at = f"{_THROUGHPUT_CONNECTIONS} connections"
    ratios = figure(f"requests/s of ours over bare, {at}", "×", [r["ours"].per_s / r["bare"].per_s for r in many])
    return [
        replace(ratios, target="≥ 0.5", met=ratios.median >= 0.5),
        figure("added latency p50, 1 connection", "ms", [r["ours"].p50_ms - r["bare"].p50_ms for r in one], at_most=2),
        *(
            figure(f"{what} {name}, {of}", unit, [getattr(r[name], field) for r in rounds])
            for what, field, unit, rounds, of in (
                ("latency p50", "p50_ms", "ms", one, "1 connection"),
                ("latency p99", "p99_ms", "ms", one, "1 connection"),
                ("requests/s", "per_s", "/s", many, at),
                ("latency p50", "p50_ms", "ms", many, at),
                ("latency p99", "p99_ms", "ms", many, at),
                ("CPU of the server per request", "cpu_us", "µs", many, at),
            )
            for name in ("bare", "ours")
        ),
    ]


def load(target: Target, *, connections: int, seconds: float) -> Load:
    """One round, from a process of its own: its interpreter's lock is not the servers'."""
    order = {"url": target.url, "token": target.token, "connections": connections, "seconds": seconds}
    before = psutil.Process(target.pid).cpu_times()
    out = subprocess.check_output([*_THIS, "--role", "load", "--target", json.dumps(order)], text=True)
    after, found = psutil.Process(target.pid).cpu_times(), json.loads(out)
    cpu_s = after.user - before.user + after.system - before.system
    return Load(cpu_us=cpu_s / found.pop("requests") * 1e6, **found)


def _drive(*, url: str, token: str, connections: int, seconds: float) -> dict[str, float]:
    import uvloop

    parts = urlsplit(url)
    host, port = str(parts.hostname), int(parts.port or 80)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(_BODY)}\r\n\r\n"
    )
    request, latencies_s = head.encode() + _BODY, list[float]()

    async def run() -> float:
        loop, started = asyncio.get_running_loop(), time.perf_counter()
        callers = [
            (await loop.create_connection(lambda: _Caller(request, latencies_s), host, port))[1]
            for _ in range(connections)
        ]
        await asyncio.sleep(seconds)
        elapsed_s = time.perf_counter() - started
        for caller in callers:
            caller.stop()
            await caller.stopped
        return elapsed_s

    elapsed_s = uvloop.run(run())
    ordered = sorted(latencies_s)
    return {
        "requests": len(ordered),
        "per_s": len(ordered) / elapsed_s,
        "p50_ms": statistics.median(ordered) * 1e3,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1e3,
    }


class _Caller(asyncio.Protocol):
    """One connection that sends the next request as soon as it has the whole answer to the last.

    Far cheaper than an HTTP library's client: on two cores, what the caller costs is not there for the servers.
    """

    def __init__(self, request: bytes, latencies_s: list[float]) -> None:
        self._request = request
        self._latencies_s = latencies_s
        self._answer = b""
        self._last = False
        self.stopped = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport: Any = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer; after its last, go on. Anything but a 200 ends the benchmark."""
        self._answer += data
        head, complete, body = self._answer.partition(b"\r\n\r\n")
        if not complete:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.stopped.set_exception(SystemExit(self._answer.decode()))
            return
        if len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        self._latencies_s.append(time.perf_counter() - self._sent)
        if self._last:
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, or too early."""
        if not self.stopped.done():
            self.stopped.set_result(None) if self._last else self.stopped.set_exception(exc or EOFError())

    def stop(self) -> None:
        """Send nothing more."""
        self._last = True

    def _send(self) -> None:
        self._answer = b""
        self._sent = time.perf_counter()
        self._transport.write(self._request)


def serve_bare() -> None:
    """The peer: one async route with a model in and a model out, the uvicorn configuration of `neuroedge serve`."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Input(BaseModel):
        text: str
        count: int = 1

    class Output(BaseModel):
        text: str
        count: int

    app = FastAPI()

    async def run(body: Input) -> Output:
        return Output(text=body.text, count=body.count)

    app.add_api_route("/run", run, methods=["POST"], response_model=Output)
    listener = bind("127.0.0.1", 0)
    listener.listen(2048)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, loop="uvloop", http="httptools", ws="none", server_header=False
    )
    uvicorn.Server(config).run(sockets=[listener])


@contextlib.contextmanager
def _bare() -> Iterator[tuple[str, int]]:
    with subprocess.Popen([*_THIS, "--role", "bare"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


def _install_engine(folder: Path) -> None:
    """A package as pip would leave it: a module, and metadata with an entry point."""
    info = folder / "noop_engine-1.dist-info"
    info.mkdir(parents=True)
    (folder / "noop_engine.py").write_text(_ENGINE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noop-engine\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[neuroedge.engines]\nnoop = noop_engine:Noop\n")


if __name__ == "__main__":
    main()
