"""Embedding over HTTP against the same encoder called in process: `python -m benchmarks.embedding_serving`.

Rounds alternate, and the speed in process is the mean of before and after each. In process, one loop hands the encoder
32 texts at a time, which is the best it can do: batches are full and nothing else runs. Over HTTP, 32 callers send one
text each, or eight, as soon as they have the last answer. With --peer-python, the Python of an environment with
sentence-transformers, that encodes texts of the same kind in float32 on torch in every round.
"""

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import uvloop

from benchmarks.calling import Connection, Tally, percentile, users
from benchmarks.embedding import Peer
from benchmarks.embedding import texts as benchmark_texts
from benchmarks.report import figure, save
from benchmarks.serving import serve

CALLERS = 32
PEER_TEXTS = 320


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--peer-python")
    parser.add_argument("--peer-model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--role", choices=["inside", "load"], help="used by the benchmark itself")
    parser.add_argument("--target", default="{}", help="used by the benchmark itself")
    arguments = parser.parse_args()
    if arguments.role == "inside":
        print(json.dumps(asyncio.run(_inside(arguments.seconds))))
    elif arguments.role == "load":
        print(json.dumps(uvloop.run(_load(arguments.seconds, **json.loads(arguments.target)))))
    else:
        with ExitStack() as stack:
            peer = arguments.peer_python and stack.enter_context(
                Peer(arguments.peer_python, arguments.peer_model, threads=2)
            )
            measure(rounds=arguments.rounds, seconds=arguments.seconds, peer=peer or None)


def measure(*, rounds: int, seconds: float, peer: Peer | None) -> None:
    """Alternate rounds."""
    inside: list[tuple[float, float]] = []
    """Texts/s in process around the round with one text a call, and around the one with eight."""
    served, in_eights, theirs = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with serve(Path(folder) / "data", NEUROEDGE_REQUESTS_PER_MINUTE="0") as server, server.log_in() as client:
            target: dict[str, str | int] = {"url": server.url, "token": client.headers["Authorization"]}
            _part("load", 3.0, target)
            before = _part("inside", seconds)["per_s"]
            for _ in range(rounds):
                served.append(_part("load", seconds, {**target, "size": 1}))
                between = _part("inside", seconds)["per_s"]
                in_eights.append(_part("load", seconds, {**target, "size": 8}))
                after = _part("inside", seconds)["per_s"]
                inside.append(((before + between) / 2, (between + after) / 2))
                before = after
                if peer is not None:
                    sample = list(itertools.islice(_unseen(), PEER_TEXTS))
                    theirs.append(PEER_TEXTS / peer.encode(sample)[0])
    ratios = [s["per_s"] / i for s, (i, _) in zip(served, inside, strict=True)]
    of_eights = [s["per_s"] / i for s, (_, i) in zip(in_eights, inside, strict=True)]
    figures = [
        figure("texts/s over HTTP, one text a call, over texts/s in process", "×", ratios, at_least=0.9),
        figure("texts/s over HTTP, eight texts a call, over texts/s in process", "×", of_eights, at_least=0.9),
        figure("p99 over p50 over HTTP, one text a call", "×", [s["p99_ms"] / s["p50_ms"] for s in served], at_most=10),
        figure("texts/s over HTTP, one text a call", "/s", [s["per_s"] for s in served]),
        figure("texts/s over HTTP, eight texts a call", "/s", [s["per_s"] for s in in_eights]),
        figure("texts/s in process", "/s", [i for pair in inside for i in pair]),
        figure("latency p50 over HTTP", "ms", [s["p50_ms"] for s in served]),
        figure("latency p99 over HTTP", "ms", [s["p99_ms"] for s in served]),
    ]
    if theirs:
        over = [s["per_s"] / t for s, t in zip(served, theirs, strict=True)]
        eights_over = [s["per_s"] / t for s, t in zip(in_eights, theirs, strict=True)]
        figures += [
            figure("texts/s over HTTP, one text a call, over sentence-transformers", "×", over, at_least=2.0),
            figure("texts/s over HTTP, eight texts a call, over sentence-transformers", "×", eights_over, at_least=2.0),
            figure("texts/s of sentence-transformers in process, float32, batches of 32", "/s", theirs),
        ]
    save(
        "embedding_serving",
        figures,
        title=f"Embedding over HTTP, {CALLERS} callers, mixed lengths",
        command="python -m benchmarks.embedding_serving" + " --peer-python PYTHON" * bool(theirs),
    )


def _part(role: str, seconds: float, target: dict[str, str | int] | None = None) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.embedding_serving", "--role", role, "--seconds", str(seconds)]
    out = subprocess.check_output([*command, "--target", json.dumps(target or {})], text=True)
    answer: dict[str, float] = json.loads(out.splitlines()[-1])
    return answer


async def _inside(seconds: float) -> dict[str, float]:
    from benchmarks import in_process
    from neuroedge.contract.models import TEXT_EMBEDDING

    pool = in_process.pool()
    unseen, count = _unseen(), 0
    async with pool.lease(TEXT_EMBEDDING) as encoder:
        await encoder.encode([next(unseen) for _ in range(64)])
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            await encoder.encode([next(unseen) for _ in range(CALLERS)])
            count += CALLERS
        elapsed_s = time.perf_counter() - started
    await pool.close()
    return {"per_s": count / elapsed_s}


async def _load(seconds: float, *, url: str, token: str, size: int = 1) -> dict[str, float]:
    tally, unseen = Tally(), _unseen()
    until = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        connection = Connection(url, token)
        while time.perf_counter() < until:
            body = json.dumps({"texts": [next(unseen) for _ in range(size)]}).encode()
            answer = await connection.post("/v1/engines/embedding/run", body)
            if not tally.add(answer):
                raise SystemExit(answer.body.decode())
        await connection.close()

    started = time.perf_counter()
    await users(CALLERS, caller)
    elapsed_s = time.perf_counter() - started
    return {
        "per_s": size * len(tally.good_s) / elapsed_s,
        "p50_ms": percentile(tally.good_s, 0.5) * 1e3,
        "p99_ms": percentile(tally.good_s, 0.99) * 1e3,
    }


def _unseen() -> "itertools.chain[str]":
    """The benchmark's texts again and again, each time a little different: the cache must not answer."""
    sample = benchmark_texts()
    stamp = time.time_ns() // 10**6 % 10**6
    return itertools.chain.from_iterable(
        (f"{stamp + turn * len(sample) + i} {text}" for i, text in enumerate(sample)) for turn in itertools.count()
    )


if __name__ == "__main__":
    main()
