"""What the gateway adds to a call, against a proxy that passes bytes on: `python -m benchmarks.gateway_overhead`.

Three processes on 127.0.0.1: a provider that speaks OpenAI's wire format and streams a fixed answer, a Starlette proxy
over httpx that passes it on byte by byte, and `neuroedge serve` with that provider in its providers.toml, so that a
call is authenticated, admitted, begun and ended in the ledger, read event by event and written anew. Requests
alternate between proxy and NeuroEdge within a round, and what is judged is the difference of the two medians. An
answer is whole with its last event, `[DONE]`; the end of its body, which waits for the ledger, is told beside it.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.report import Figure, figure, save
from benchmarks.serving import serve
from neuroedge.cli.serve import bind

_THIS = [sys.executable, "-m", "benchmarks.gateway_overhead"]
_PIECES = 20
_PACE_S = 0.005
"""Between two pieces of a paced answer, as a quick provider has it."""
_REST_S = 0.05
"""After each request: what NeuroEdge still notes of an answer must not slow the other's next one."""
_MOST_MS = 3.0
_PROVIDERS = """
[[provider]]
name = "fake"
wire = "openai"
base_url = "{url}/v1"
api_key = "sk-none"
private = true
[[provider.model]]
name = "quick"
context_tokens = 8192
price = {{ prompt_usd_per_million = "1", completion_usd_per_million = "2" }}
[[provider.model]]
name = "paced"
context_tokens = 8192
price = {{ prompt_usd_per_million = "1", completion_usd_per_million = "2" }}
"""


@dataclass(frozen=True)
class Times:
    """Of one streamed answer, in milliseconds from the request's first byte."""

    first_ms: float
    whole_ms: float
    """Until `data: [DONE]`."""
    end_ms: float
    """Until the body's end."""


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=60, help="to each of the two, in one round")
    parser.add_argument("--role", choices=["provider", "proxy"], help="used by the benchmark itself")
    parser.add_argument("--upstream", default="", help="used by the benchmark itself")
    parser.add_argument("--dry", action="store_true", help="print only, save nothing")
    arguments = parser.parse_args()
    if arguments.role == "provider":
        _listen(_provider())
    elif arguments.role == "proxy":
        _listen(_proxy(arguments.upstream))
    else:
        measure(rounds=arguments.rounds, requests=arguments.requests, keep=not arguments.dry)


def measure(*, rounds: int, requests: int, keep: bool) -> None:
    """Alternate between proxy and gateway."""
    with tempfile.TemporaryDirectory() as folder, _running("provider") as provider:
        root = Path(folder)
        root.chmod(0o755)  # the embedded PostgreSQL of root runs as another user
        listed = root / "providers.toml"
        listed.write_text(_PROVIDERS.format(url=provider))
        limits = {"NEUROEDGE_REQUESTS_PER_MINUTE": "100000000", "NEUROEDGE_LLM_PROVIDERS": str(listed)}
        with (
            _running("proxy", "--upstream", provider) as proxy,
            serve(root / "data", **limits) as ours,
            ours.log_in() as client,
        ):
            token = str(client.headers["Authorization"])
            servers = {"proxy": (proxy, ""), "ours": (ours.url, "fake/")}
            found = {
                model: asyncio.run(_rounds(servers, token, model=model, rounds=rounds, requests=requests))
                for model in ("quick", "paced")
            }
    figures = _figures(found)
    if keep:
        save(
            "gateway_overhead",
            figures,
            title="Cost of a call through the gateway",
            command="python -m benchmarks.gateway_overhead",
        )
    else:
        for f in figures:
            print(f"{f.name}: {f.median:g} {f.unit} ({f.low:g}-{f.high:g}) {f.target}")


def _figures(found: dict[str, list[dict[str, Times]]]) -> list[Figure]:
    quick, paced = found["quick"], found["paced"]
    return [
        figure(
            "added until the first piece p50",
            "ms",
            [r["ours"].first_ms - r["proxy"].first_ms for r in quick],
            at_most=_MOST_MS,
        ),
        figure(
            f"added to a paced answer of {_PIECES} pieces p50",
            "ms",
            [r["ours"].whole_ms - r["proxy"].whole_ms for r in paced],
            at_most=_MOST_MS,
            note=f"a piece every {_PACE_S * 1e3:g} ms",
        ),
        figure(
            f"added to an answer of {_PIECES} pieces at once p50",
            "ms",
            [r["ours"].whole_ms - r["proxy"].whole_ms for r in quick],
            note="nothing but computing",
        ),
        figure(
            "added until a paced answer's body ends p50",
            "ms",
            [r["ours"].end_ms - r["proxy"].end_ms for r in paced],
            note="when the call is in the ledger",
        ),
        *(figure(f"first piece p50, {name}", "ms", [r[name].first_ms for r in quick]) for name in ("proxy", "ours")),
    ]


async def _rounds(
    servers: dict[str, tuple[str, str]], token: str, *, model: str, rounds: int, requests: int
) -> list[dict[str, Times]]:
    """Medians of each round."""
    callers = {
        name: _Caller(f"{url}/v1/chat/completions", token, model=prefix + model)
        for name, (url, prefix) in servers.items()
    }
    for caller in callers.values():
        for _ in range(10):  # first requests import SDKs, build routes, open connections
            await caller.ask()
    found = []
    for _ in range(rounds):
        times: dict[str, list[Times]] = {name: [] for name in callers}
        for _ in range(requests):
            for name, caller in callers.items():
                times[name].append(await caller.ask())
                await asyncio.sleep(_REST_S)
        found.append({name: _median(all_of) for name, all_of in times.items()})
    for caller in callers.values():
        caller.close()
    return found


def _median(times: list[Times]) -> Times:
    return Times(*(statistics.median(each) for each in zip(*(astuple(t) for t in times), strict=True)))


class _Caller:
    """One connection over plain sockets: an HTTP library's client would take the cores that are to be measured."""

    def __init__(self, url: str, token: str, *, model: str) -> None:
        parts = urlsplit(url)
        body = json.dumps(
            {"model": model, "stream": True, "messages": [{"role": "user", "content": "What does this cost?"}]}
        ).encode()
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._request = head.encode() + body
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self) -> Times:
        """Ask, and read the whole answer. Anything but an answer ends the benchmark."""
        if self._streams is None or self._streams[0].at_eof():  # a server hangs up when nothing comes for a while
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        started = time.perf_counter()
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit((head + await reader.read(2000)).decode())
        first = whole = 0.0
        answer = b""
        while not answer.endswith(b"0\r\n\r\n"):
            if not (read := await reader.read(65536)):
                raise SystemExit(f"the answer was cut off: {answer[-500:].decode()}")
            answer += read
            if not first and b"piece" in answer:
                first = time.perf_counter()
            if not whole and b"[DONE]" in answer[-100:]:
                whole = time.perf_counter()
        if answer.count(b"piece") < _PIECES:
            raise SystemExit(answer.decode())
        end = time.perf_counter()
        return Times(*((at - started) * 1e3 for at in (first, whole, end)))

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()


def _provider() -> Any:
    """A fixed answer in OpenAI's wire format, with usage."""

    def chunk(**more: Any) -> bytes:
        body = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], **more}
        return b"data: " + json.dumps(body).encode() + b"\n\n"

    def said(delta: dict[str, str], finish: str | None = None) -> bytes:
        return chunk(choices=[{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}], usage=None)

    usage = {"prompt_tokens": 4, "completion_tokens": _PIECES, "total_tokens": 4 + _PIECES}
    pieces = [said({"content": f"piece{n} "}) for n in range(_PIECES)]
    begin = said({"role": "assistant", "content": ""})
    end = said({}, "stop") + chunk(usage=usage) + b"data: [DONE]\n\n"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked, more = b"", True
        while more:
            message = await receive()
            asked, more = asked + message.get("body", b""), message.get("more_body", False)
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": begin, "more_body": True})
        paced = json.loads(asked)["model"] == "paced"
        for piece in pieces:
            if paced:
                await asyncio.sleep(_PACE_S)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": end})

    return app


def _proxy(upstream: str) -> Any:
    """The peer: request and answer passed on as bytes."""
    import httpx
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    client = httpx.AsyncClient(base_url=upstream, timeout=60, trust_env=False)

    async def passed_on(request: Request) -> StreamingResponse:
        headers = {"content-type": "application/json", "authorization": request.headers["authorization"]}
        asked = client.build_request("POST", request.url.path, content=await request.body(), headers=headers)
        answer = await client.send(asked, stream=True)

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.aiter_raw():
                    yield piece
            finally:
                await answer.aclose()

        return StreamingResponse(pieces(), answer.status_code, media_type=answer.headers["content-type"])

    return Starlette(routes=[Route("/{path:path}", passed_on, methods=["POST"])])


def _listen(app: Any) -> None:
    """With the uvicorn configuration of `neuroedge serve`."""
    import uvicorn

    listener = bind("127.0.0.1", 0)
    listener.listen(2048)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, loop="uvloop", http="httptools", ws="none", lifespan="off"
    )
    uvicorn.Server(config).run(sockets=[listener])


@contextlib.contextmanager
def _running(role: str, *more: str) -> Iterator[str]:
    with subprocess.Popen([*_THIS, "--role", role, *more], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
