"""Memories stored a second over HTTP against embedding the same texts in process; memory over many of them.

    python -m benchmarks.ingest --wordnet DIR [--chunks N]

A chunk is ten glosses of WordNet (Debian's `wordnet-base`) in a new order, about as long as a passage of a document.
Over HTTP, four callers send 64 chunks a call to the engine `memory`: embedded, keywords found, sealed, hashed, indexed,
committed. In process, one loop hands the same encoder 64 chunks at a time. The two take turns; the resident memory of
the server is read after every call, and its growth is the slope over the second half of all chunks.
"""

import argparse
import asyncio
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import uvloop

from benchmarks import vector_data
from benchmarks.calling import Connection, users
from benchmarks.report import figure, save
from benchmarks.serving import Served, serve
from neuroedge.settings import load_settings

CALLERS: Final = 4
A_CALL: Final = 64
ROUNDS: Final = 5
GLOSSES: Final = 10
INSIDE_S: Final = 15.0
GROWTH_MB: Final = 20.0
"""Most the server may grow over 100,000 chunks, by the slope of the second half."""


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, required=True)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--inside", type=int, default=None, help="used by the benchmark itself")
    given = parser.parse_args()
    if given.inside is not None:
        print(uvloop.run(_inside(chunks(given.wordnet, seed=given.inside))))
        return
    inside, served, memory = list[float](), list[float](), list[tuple[int, float]]()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with serve(Path(folder) / "data", NEUROEDGE_REQUESTS_PER_MINUTE="0") as server, server.log_in() as client:
            token = str(client.headers["Authorization"])
            texts = chunks(given.wordnet, seed=0)
            uvloop.run(_send(server, token, texts, 4 * A_CALL, memory))
            for turn in range(ROUNDS):
                inside.append(_pure(given.wordnet, turn + 1))
                served.append(uvloop.run(_send(server, token, texts, given.chunks // ROUNDS, memory)))
    half = [point for point in memory if point[0] > given.chunks / 2]
    slope = float(np.polyfit([count for count, _ in half], [mb for _, mb in half], 1)[0])
    save(
        "ingest",
        [
            figure(
                "chunks/s over HTTP, 64 a call, over texts/s of embedding alone",
                "×",
                [s / i for s, i in zip(served, inside, strict=True)],
                at_least=0.7,
            ),
            figure("chunks/s over HTTP", "/s", served, note=f"{CALLERS} callers"),
            figure("texts/s of embedding alone, in process", "/s", inside),
            figure("growth of the server over 100,000 chunks", "MB", [1e5 * slope], at_most=GROWTH_MB),
            figure("resident memory of the server at the end", "MB", [memory[-1][1]], note=f"from {memory[0][1]:.0f}"),
        ],
        title=f"Ingest: {given.chunks:,} text chunks",
        command=f"python -m benchmarks.ingest --wordnet DIR --chunks {given.chunks}",
    )


def chunks(wordnet: Path, *, seed: int) -> Iterator[str]:
    """Texts without end, none twice."""
    pieces, rng = list(vector_data.glosses(wordnet)), random.Random(seed)
    for number in itertools.count():
        yield f"{seed}.{number}: " + "; ".join(rng.sample(pieces, GLOSSES)) + "."


def _pure(wordnet: Path, seed: int) -> float:
    command = [sys.executable, "-m", "benchmarks.ingest", "--wordnet", str(wordnet), "--inside", str(seed)]
    return float(subprocess.check_output(command, text=True).splitlines()[-1])


async def _inside(texts: Iterator[str]) -> float:
    """Texts a second of the encoder alone, as the pool opens it."""
    from neuroedge.bootstrap import catalogue_of
    from neuroedge.contract.models import TEXT_EMBEDDING
    from neuroedge.runtimes import device
    from neuroedge.runtimes.device import Router
    from neuroedge.runtimes.pool import Pool, PoolSettings

    settings, cores = load_settings(), device.available_cores()
    options = {"calibration_dir": str(settings.model_store / "calibration")}
    pool = Pool(
        catalogue_of(settings),
        PoolSettings(cores=cores, threads=cores, budget_bytes={}, options=options),
        router=Router("cpu"),
    )
    count = 0
    async with pool.lease(TEXT_EMBEDDING) as encoder:
        await encoder.encode(list(itertools.islice(texts, A_CALL)))
        started = time.perf_counter()
        while time.perf_counter() - started < INSIDE_S:
            await encoder.encode(list(itertools.islice(texts, A_CALL)))
            count += A_CALL
        elapsed_s = time.perf_counter() - started
    await pool.close()
    return count / elapsed_s


async def _send(server: Served, token: str, texts: Iterator[str], count: int, memory: list[tuple[int, float]]) -> float:
    """Chunks stored a second."""
    left = itertools.repeat(None, max(1, count // A_CALL))
    before = memory[-1][0] if memory else 0
    sent = 0
    started = time.perf_counter()

    async def caller(_: int) -> None:
        nonlocal sent
        connection = Connection(server.url, token)
        for _turn in left:
            items = [{"content": text} for text in itertools.islice(texts, A_CALL)]
            answer = await connection.post("/v1/engines/memory/run", json.dumps({"items": items}).encode())
            if answer.status != 200:
                raise SystemExit(answer.body.decode())
            sent += A_CALL
            memory.append((before + sent, await asyncio.to_thread(server.resident_mb)))
        await connection.close()

    await users(CALLERS, caller)
    return sent / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
