"""Local chat streamed through NeuroEdge against llama.cpp's own HTTP server, `python -m benchmarks.chat_streaming`.

Both answer POST /v1/chat/completions with the same GGUF file, as many threads and a context shared by four streams.
The peer is the server inside xllamacpp in a process of its own: the same llama.cpp, without Python on a token's way.
Rounds alternate between the two, the prompts of a round are the same for both and new in each round, and what is
judged is the median over rounds of a ratio or a difference within one round. The time to the first token has rounds of
its own, more and shorter ones, as a single answer tells it only once. Who asks is one process that stays, so that
nothing starts up beside an answer. The smaller the model, the harsher the test of what is around it.
"""

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from benchmarks.report import Figure, figure, save
from benchmarks.serving import serve
from neuroedge.runtimes.device import available_cores
from neuroedge.runtimes.llama import DEFAULT_CONTEXT_TOKENS, DEFAULT_PARALLEL
from neuroedge.settings import load_settings

_MODELS = ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct")
_STREAMS = (1, 4)
_TOKENS = 128
"""Of an answer whose speed is what is measured: from the request to the end, its beginning included."""
_FIRST_TOKENS = 4
"""Of the answers whose first token is what is measured."""
_FIRST_ROUNDS = 3
"""Rounds for the first token to one for the speed."""
_REST_S = 0.5
"""After each round: what NeuroEdge still notes of its answers must not slow the other's next one."""
_SETTLES_S = 6.0
"""After a round for warming up."""
_THIS = [sys.executable, "-m", "benchmarks.chat_streaming"]
_WORDS = re.compile(rb'"content":\s?"[^"]')
_COUNT = re.compile(rb'"completion_tokens":\s?(\d+)')


@dataclass(frozen=True)
class Round:
    """One round against one server."""

    per_s: float
    """Tokens of all streams a second, from the first request to the last answer's end."""
    first_ms: float
    """Median time from a request to its first words."""


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=5, help=f"for the speed; {_FIRST_ROUNDS} times as many for the first token"
    )
    parser.add_argument("--models", nargs="+", default=_MODELS)
    parser.add_argument("--role", choices=["peer", "drive"], help="used by the benchmark itself")
    parser.add_argument("--target", default="{}", help="used by the benchmark itself")
    parser.add_argument("--dry", action="store_true", help="print only, save nothing")
    arguments = parser.parse_args()
    if arguments.role == "peer":
        serve_peer(**json.loads(arguments.target))
    elif arguments.role == "drive":
        asyncio.run(_drive())
    else:
        measure(models=arguments.models, rounds=arguments.rounds, keep=not arguments.dry)


def measure(*, models: list[str], rounds: int, keep: bool) -> None:
    """Alternate rounds against both servers, for each model."""
    figures = [f for model in models for f in _measured(model, rounds)]
    if keep:
        save(
            "chat_streaming",
            figures,
            title="Local chat streamed, against llama.cpp's own server",
            command="python -m benchmarks.chat_streaming",
        )
    else:
        for f in figures:
            print(f"{f.name}: {f.median:g} {f.unit} ({f.low:g}-{f.high:g}) {f.target} {f.met}")


def _measured(model: str, rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)  # the embedded PostgreSQL of root runs as another user
        with (
            _peer(model) as peer,
            serve(root / "data", NEUROEDGE_REQUESTS_PER_MINUTE="100000000") as ours,
            ours.log_in() as client,
            _Asking() as asking,
        ):
            targets = {
                "llama.cpp": {"url": peer, "token": "Bearer none", "model": model},
                "ours": {"url": ours.url, "token": client.headers["Authorization"], "model": f"local/{model}"},
            }
            figures = []
            for streams in _STREAMS:
                # Loads, first connections, first prompts; and what looks through answers loads when it has the first.
                for number in (-2 * streams, -2 * streams - 1):
                    _both(asking, targets, streams=streams, tokens=_TOKENS, number=number)
                    time.sleep(_SETTLES_S)
                speed, first = (
                    [_both(asking, targets, streams=streams, tokens=tokens, number=from_ + n) for n in range(count)]
                    for tokens, count, from_ in (
                        (_TOKENS, rounds, streams * 1000),
                        (_FIRST_TOKENS, rounds * _FIRST_ROUNDS, streams * 1000 + 500),
                    )
                )
                figures += _figures(model, streams, speed=speed, first=first)
            return figures


def _both(
    asking: "_Asking", targets: dict[str, dict[str, str]], *, streams: int, tokens: int, number: int
) -> dict[str, Round]:
    """One round against each; who is first alternates."""
    order = list(targets) if number % 2 else list(reversed(targets))
    rounds = {}
    for name in order:
        rounds[name] = asking.round({**targets[name], "streams": streams, "tokens": tokens, "number": number})
        time.sleep(_REST_S)
    return rounds


class _Asking:
    """The process that asks: an order a line, a round a line."""

    def __enter__(self) -> Self:
        command = [*_THIS, "--role", "drive"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def round(self, order: dict[str, Any]) -> Round:
        """Have one made."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        told = self._process.stdout.readline()
        if not told:
            raise SystemExit("who asks ended, for the reason above")
        return Round(**json.loads(told))


def _figures(model: str, streams: int, *, speed: list[dict[str, Round]], first: list[dict[str, Round]]) -> list[Figure]:
    of = f"{model}, {streams} stream{'s' * (streams > 1)}"
    return [
        figure(
            f"tokens/s of ours over llama.cpp's server, {of}",
            "×",
            [r["ours"].per_s / r["llama.cpp"].per_s for r in speed],
            at_least=0.95,
        ),
        figure(
            f"first token later than llama.cpp's server, {of}",
            "ms",
            [r["ours"].first_ms - r["llama.cpp"].first_ms for r in first],
            at_most=20,
        ),
        *(
            figure(f"{what} {name}, {of}", unit, [getattr(r[name], field) for r in rounds])
            for what, field, unit, rounds in (
                ("tokens/s", "per_s", "/s", speed),
                ("first token", "first_ms", "ms", first),
            )
            for name in ("llama.cpp", "ours")
        ),
    ]


async def _drive() -> None:
    """Make the rounds that stdin orders."""
    for line in sys.stdin:
        print(json.dumps(await _round(**json.loads(line))), flush=True)


async def _round(*, url: str, token: str, model: str, streams: int, tokens: int, number: int) -> dict[str, float]:
    """Streams at the same time over connections of their own, opened before the clock runs."""
    connections = [await asyncio.open_connection(*_address(url)) for _ in range(streams)]
    prompts = [f"Write a long story about town number {number * 10 + n}." for n in range(streams)]
    started = time.perf_counter()
    answers = await asyncio.gather(
        *(
            _ask(*connection, token=token, model=model, prompt=prompt, tokens=tokens)
            for connection, prompt in zip(connections, prompts, strict=True)
        )
    )
    elapsed_s = time.perf_counter() - started
    return {
        "per_s": sum(count for count, _ in answers) / elapsed_s,
        "first_ms": statistics.median(first_s for _, first_s in answers) * 1e3,
    }


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 80)


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, token: str, model: str, prompt: str, tokens: int
) -> tuple[int, float]:
    """Tokens of the answer, and seconds to its first words."""
    question = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body = json.dumps(question).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    sent, first_s, answer = time.perf_counter(), 0.0, b""
    writer.write(head.encode() + body)
    while b"data: [DONE]" not in answer[-200:]:
        piece = await reader.read(65536)
        if not piece:
            raise SystemExit(answer.decode(errors="replace"))
        answer += piece
        if not first_s and _WORDS.search(answer):
            first_s = time.perf_counter() - sent
    writer.close()
    counted = _COUNT.findall(answer)
    if not counted or not first_s:
        raise SystemExit(answer.decode(errors="replace"))
    return int(counted[-1]), first_s


def serve_peer(*, path: str) -> None:
    """llama.cpp's server with its own settings; threads, context and streams as ours."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.fit_params = False
    params.n_gpu_layers = 0
    params.n_ctx, params.n_parallel, params.kv_unified = DEFAULT_CONTEXT_TOKENS, DEFAULT_PARALLEL, True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = available_cores()
    params.verbosity = -1
    params.ui = False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


@contextlib.contextmanager
def _peer(model: str) -> Iterator[str]:
    target = json.dumps({"path": str(load_settings().model_store / model / "model.gguf")})
    command = [*_THIS, "--role", "peer", "--target", target]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


if __name__ == "__main__":
    main()
