"""Ingest: text chunks a second, end to end, against embedding alone; and the server's memory meanwhile.

    python -m benchmarks.ingest --wordnet DIR [--chunks N] [--documents N]

Documents of many passages, each of ten glosses of WordNet (Debian's `wordnet-base`) in a new order, are sent over HTTP
one after the other, and the time is taken until each is done: parsed, cut, embedded, kept for a resumption, sealed,
hashed, indexed, committed, so that all of it can be found. In turn with them, one loop hands the same encoder passages
read back from the document, 64 at a time. The resident memory of the server is read all the time; its growth is the
slope over the second half of all chunks.
"""

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import uvloop

from benchmarks import vector_data
from benchmarks.report import figure, save
from benchmarks.serving import Served, serve
from neuroedge.settings import load_settings

A_CALL: Final = 64
GLOSSES: Final = 10
INSIDE_S: Final = 15.0
READ_BACK: Final = 1500
"""Passages of each document that are embedded in process."""
GROWTH_MB: Final = 20.0
"""Most the server may grow over 100,000 chunks, by the slope of the second half."""


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, required=True)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--inside", action="store_true", help="used by the benchmark itself")
    given = parser.parse_args()
    if given.inside:
        print(uvloop.run(_inside(json.load(sys.stdin))))
        return
    inside, served, memory = list[float](), list[float](), list[tuple[int, float]]()
    texts = passages(given.wordnet)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with serve(Path(folder) / "data", NEUROEDGE_REQUESTS_PER_MINUTE="0") as server, server.log_in() as client:
            _ingest(server, client, itertools.islice(texts, 4 * A_CALL), memory)
            for _ in range(given.documents):
                document, rate = _ingest(
                    server, client, itertools.islice(texts, given.chunks // given.documents), memory
                )
                served.append(rate)
                inside.append(_pure(_read_back(client, document)))
    stored = memory[-1][0]
    half = [point for point in memory if point[0] > stored / 2]
    slope = float(np.polyfit([count for count, _ in half], [mb for _, mb in half], 1)[0])
    save(
        "ingest",
        [
            figure(
                "chunks/s of documents, end to end, over texts/s of embedding alone",
                "×",
                [s / i for s, i in zip(served, inside, strict=True)],
                at_least=0.7,
            ),
            figure("chunks/s of documents, end to end", "/s", served, note=f"{given.documents} documents"),
            figure("texts/s of embedding alone, in process", "/s", inside),
            figure("growth of the server over 100,000 chunks", "MB", [1e5 * slope], at_most=GROWTH_MB),
            figure("resident memory of the server at the end", "MB", [memory[-1][1]], note=f"from {memory[0][1]:.0f}"),
        ],
        title=f"Ingest: {stored:,} text chunks",
        command=f"python -m benchmarks.ingest --wordnet DIR --chunks {given.chunks} --documents {given.documents}",
    )


def passages(wordnet: Path) -> Iterator[str]:
    """Texts without end, none twice."""
    pieces, rng = list(vector_data.glosses(wordnet)), random.Random(1)
    for number in itertools.count():
        yield f"{number}: " + "; ".join(rng.sample(pieces, GLOSSES)) + "."


def _ingest(
    server: Served, client: httpx.Client, texts: Iterator[str], memory: list[tuple[int, float]]
) -> tuple[str, float]:
    """Id of a document of these passages, and its chunks a second until it is done."""
    before = memory[-1][0] if memory else 0
    body = "\n\n".join(texts).encode()
    started = time.perf_counter()
    sent = client.post("/v1/documents", files={"file": ("glosses.txt", body, "text/plain")}).raise_for_status().json()
    document: dict[str, Any] = {}
    while document.get("status") != "done":
        time.sleep(0.25)
        document = client.get(f"/v1/documents/{sent['document']['id']}").raise_for_status().json()
        if document["status"] == "failed":
            raise SystemExit(str(document))
        memory.append((before, server.resident_mb()))
    seconds = time.perf_counter() - started
    memory.append((before + document["chunks"], server.resident_mb()))
    return document["id"], document["chunks"] / seconds


def _read_back(client: httpx.Client, document: str) -> list[str]:
    found, after = list[str](), -1
    while len(found) < READ_BACK:
        page = client.get(f"/v1/documents/{document}/chunks", params={"limit": 200, "after": after})
        rows = page.raise_for_status().json()
        found += [row["content"] for row in rows["chunks"]]
        if rows["next"] is None:
            break
        after = rows["next"]
    return found


def _pure(texts: list[str]) -> float:
    command = [sys.executable, "-m", "benchmarks.ingest", "--wordnet", ".", "--inside"]
    return float(subprocess.check_output(command, text=True, input=json.dumps(texts)).splitlines()[-1])


async def _inside(texts: list[str]) -> float:
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
        turns = itertools.cycle(range(0, max(1, len(texts) - A_CALL), A_CALL))
        await encoder.encode(texts[:A_CALL])
        started = time.perf_counter()
        while time.perf_counter() - started < INSIDE_S:
            start = next(turns)
            batch = texts[start : start + A_CALL]
            await encoder.encode(batch)
            count += len(batch)
        elapsed_s = time.perf_counter() - started
    await pool.close()
    return count / elapsed_s


if __name__ == "__main__":
    main()
