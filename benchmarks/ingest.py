"""Ingest: text chunks a second, end to end, against embedding alone; and the server's memory meanwhile.

    python -m benchmarks.ingest --wordnet DIR [--chunks N] [--documents N] [--minutes M]

Documents of many passages, each of ten glosses of WordNet (Debian's `wordnet-base`) in a new order, are sent over HTTP
one after the other, and the time is taken until each is done: parsed, cut, embedded, kept for a resumption, sealed,
hashed, indexed, committed, so that all of it can be found. In turn with them, one loop hands the same encoder passages
read back from the document, 64 at a time. The resident memory of the server is read all the time; its growth is the
slope over all chunks but the first fifth, which fill the pools and caches. 100,000 chunks take some 40 minutes on two
cores, so --minutes ends it with the document then sent; what was found is shown and saved after every document, so that
a run that is cut off keeps its figures.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import psutil
import uvloop

from benchmarks import vector_data
from benchmarks.report import Figure, figure, save
from benchmarks.serving import Served, serve

A_CALL: Final = 64
GLOSSES: Final = 10
INSIDE_S: Final = 10.0
READ_BACK: Final = 1000
"""Passages of each document that are embedded in process."""
COMPARED: Final = 2
"""One document in so many is followed by embedding its passages in process."""
SETTLED: Final = 0.2
"""Part of all chunks after which memory should not grow any more."""
GROWTH_MB: Final = 20.0
"""Most the server may grow over 100,000 chunks."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The server's memory when so many chunks were done."""

    chunks: float
    resident_mb: float
    private_mb: float
    """Without what belongs to files: libraries, mapped models."""


@dataclass(slots=True)
class Found:
    """What was measured so far."""

    inside: list[float] = field(default_factory=list)
    served: list[float] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)

    @property
    def chunks(self) -> int:
        """Stored so far."""
        return round(self.memory[-1].chunks) if self.memory else 0


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, required=True)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=None, help="send no further document after so long")
    parser.add_argument("--inside", action="store_true", help="used by the benchmark itself")
    given = parser.parse_args()
    if given.inside:
        print(uvloop.run(_inside(json.load(sys.stdin))))
        return
    found, texts, started = Found(), passages(given.wordnet), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        # One log-in has to last for all documents.
        limits = {"NEUROEDGE_REQUESTS_PER_MINUTE": "0", "NEUROEDGE_ACCESS_TOKEN_TTL_S": "86400"}
        with serve(Path(folder) / "data", **limits) as server, server.log_in() as client:
            _ingest(server, client, itertools.islice(texts, 4 * A_CALL), found)
            for number in range(1, given.documents + 1):
                document, rate = _ingest(
                    server, client, itertools.islice(texts, given.chunks // given.documents), found
                )
                found.served.append(rate)
                if number % COMPARED == 1:
                    found.inside.append(_pure(_read_back(client, document)))
                minutes = (time.monotonic() - started) / 60
                print(f"-- document {number} of {given.documents}, {minutes:.1f} min", flush=True)
                save(
                    "ingest",
                    _figures(found),
                    title=f"Ingest: {found.chunks:,} text chunks",
                    command=f"python -m benchmarks.ingest --wordnet DIR --chunks {given.chunks}"
                    f" --documents {given.documents}" + (f" --minutes {given.minutes:g}" if given.minutes else ""),
                )
                if given.minutes and minutes >= given.minutes:
                    break


def _figures(found: Found) -> list[Figure]:
    first, last = found.memory[0], found.memory[-1]
    return [
        figure(
            "chunks/s of documents, end to end, over texts/s of embedding alone",
            "×",
            [s / i for s, i in zip(found.served[::COMPARED], found.inside, strict=True)],
            at_least=0.7,
        ),
        figure("chunks/s of documents, end to end", "/s", found.served, note=f"{len(found.served)} documents"),
        figure("texts/s of embedding alone, in process", "/s", found.inside),
        figure(
            "growth of the server over 100,000 chunks",
            "MB",
            [1e5 * slope(found.memory, "resident_mb")],
            at_most=GROWTH_MB,
            note=f"slope of {found.chunks:,} chunks without the first {SETTLED:.0%}",
        ),
        figure(
            "growth of its private memory over 100,000 chunks",
            "MB",
            [1e5 * slope(found.memory, "private_mb")],
            note="without pages of libraries and mapped models",
        ),
        figure(
            "resident memory of the server at the end",
            "MB",
            [last.resident_mb],
            note=f"private {last.private_mb:.0f}; at the start {first.resident_mb:.0f}, private {first.private_mb:.0f}",
        ),
    ]


def slope(memory: list[Memory], kind: str) -> float:
    """MB a chunk, of the least squares line through all but the beginning."""
    late = [point for point in memory if point.chunks >= SETTLED * memory[-1].chunks]
    return float(np.polyfit([point.chunks for point in late], [getattr(point, kind) for point in late], 1)[0])


def passages(wordnet: Path) -> Iterator[str]:
    """Texts without end, none twice."""
    pieces, rng = list(vector_data.glosses(wordnet)), random.Random(1)
    for number in itertools.count():
        yield f"{number}: " + "; ".join(rng.sample(pieces, GLOSSES)) + "."


def _ingest(server: Served, client: httpx.Client, texts: Iterator[str], found: Found) -> tuple[str, float]:
    """Id of a document of these passages, and its chunks a second until it is done."""
    before, readings = found.chunks, list[tuple[float, Any]]()
    process = psutil.Process(server.process.pid)
    body = "\n\n".join(texts).encode()
    started = time.perf_counter()
    sent = client.post("/v1/documents", files={"file": ("glosses.txt", body, "text/plain")}).raise_for_status().json()
    document: dict[str, Any] = {}
    while document.get("status") != "done":
        time.sleep(0.25)
        document = client.get(f"/v1/documents/{sent['document']['id']}").raise_for_status().json()
        if document["status"] == "failed":
            raise SystemExit(str(document))
        readings.append((time.perf_counter() - started, process.memory_info()))
    seconds = readings[-1][0]
    for at_s, read in readings:
        chunks = before + document["chunks"] * at_s / seconds
        found.memory.append(Memory(chunks, read.rss / 1e6, (read.rss - read.shared) / 1e6))
    return document["id"], document["chunks"] / seconds


def _read_back(client: httpx.Client, document: str) -> list[str]:
    texts, after = list[str](), -1
    while len(texts) < READ_BACK:
        page = client.get(f"/v1/documents/{document}/chunks", params={"limit": 200, "after": after})
        rows = page.raise_for_status().json()
        texts += [row["content"] for row in rows["chunks"]]
        if rows["next"] is None:
            break
        after = rows["next"]
    return texts


def _pure(texts: list[str]) -> float:
    command = [sys.executable, "-m", "benchmarks.ingest", "--wordnet", ".", "--inside"]
    return float(subprocess.check_output(command, text=True, input=json.dumps(texts)).splitlines()[-1])


async def _inside(texts: list[str]) -> float:
    """Texts a second of the encoder alone, as the pool opens it."""
    from benchmarks import in_process
    from neuroedge.contract.models import TEXT_EMBEDDING

    pool = in_process.pool()
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
