"""200 users at once mix embed, search and a short chat for six minutes: errors, latency, growth of memory.

Six, because the LLM's prompt cache, full from the start, goes up and down by 10 MB as it replaces its entries: over
one minute, or three, that is a slope of its own.

`python -m benchmarks.load`. Only 127.0.0.1 is called, and it stops by itself.
"""

import argparse
import asyncio
import itertools
import json
import random
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.calling import Connection, Tally, percentile, users
from benchmarks.report import figure, save
from benchmarks.serving import Served, serve

KINDS = {"embedding": 0.6, "search": 0.37, "chat": 0.03}
"""What a user does next, by chance."""
MEMORIES = 500
WARM_UP_S = 60.0
FILLING_CHATS = 20
"""Long prompts with little in common, asked before the first minute: they fill the LLM's prompt cache to its bound of
128 MiB. Short ones would not: what mostly begins like the prompt before it is computed in its place, not kept."""
CACHE_BYTES = 8 << 20
"""Bound of the cache in memory: small enough to be full after the first minute, so that what still grows is a leak."""
_WORDS = [
    "river",
    "cell",
    "energy",
    "teacher",
    "market",
    "winter",
    "engine",
    "letter",
    "garden",
    "planet",
    "signal",
    "doctor",
    "bridge",
    "music",
    "number",
]


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=360.0, help="measured time, after a minute of warming up")
    parser.add_argument("--warm-up", type=float, default=WARM_UP_S)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the embedded PostgreSQL of root runs as another user
        with (
            serve(
                Path(folder) / "data",
                NEUROEDGE_REQUESTS_PER_MINUTE="0",
                NEUROEDGE_CACHE_MEMORY_BYTES=str(CACHE_BYTES),
            ) as server,
            server.log_in() as client,
        ):
            for start in range(0, MEMORIES, 100):
                items = [{"content": text(random.Random(start + i), 12)} for i in range(100)]
                client.post("/v1/engines/memory/run", json={"items": items}).raise_for_status()
            for number in range(FILLING_CHATS):
                body = {"message": text(random.Random(number), 400), "max_tokens": 1}
                client.post("/v1/engines/chat/run", json=body).raise_for_status()
            token = client.headers["Authorization"]
            asyncio.run(_drive(server, token, arguments.users, arguments.warm_up))
            memory, done = list[tuple[float, float]](), threading.Event()
            watch = threading.Thread(target=_watch, args=(server, memory, done))
            watch.start()
            started = time.perf_counter()
            tallies = asyncio.run(_drive(server, token, arguments.users, arguments.seconds))
            elapsed_s = time.perf_counter() - started
            done.set()
            watch.join()
    _report(tallies, memory, elapsed_s, arguments.users)


def text(random_: random.Random, words: int) -> str:
    """A text nobody asked for before: what is measured is computing, not the cache."""
    return " ".join(random_.choice(_WORDS) for _ in range(words)) + f" {random_.getrandbits(48)}"


def _body(kind: str, random_: random.Random) -> bytes:
    if kind == "embedding":
        return json.dumps({"texts": [text(random_, random_.choice((5, 20, 60)))]}).encode()
    if kind == "search":
        return json.dumps({"query": text(random_, 6), "top_k": 5}).encode()
    return json.dumps({"message": f"What about the {text(random_, 3)}?", "max_tokens": 16}).encode()


async def _drive(server: Served, token: str, count: int, seconds: float) -> dict[str, Tally]:
    tallies = {kind: Tally() for kind in KINDS}
    until = time.perf_counter() + seconds
    seeds = itertools.count(time.time_ns())

    async def user(number: int) -> None:
        random_, connection = random.Random(next(seeds)), Connection(server.url, token)
        while time.perf_counter() < until:
            kind = random_.choices(list(KINDS), list(KINDS.values()))[0]
            answer = await connection.post(f"/v1/engines/{kind}/run", _body(kind, random_))
            if not tallies[kind].add(answer):
                # A user who is told to come back later waits a moment, not as long as a polite client would.
                await asyncio.sleep(random_.uniform(0.5, 1.5))
        await connection.close()

    await users(count, user)
    return tallies


def _watch(server: Served, memory: list[tuple[float, float]], done: threading.Event) -> None:
    while not done.wait(1.0):
        memory.append((time.perf_counter(), server.resident_mb()))


def _report(tallies: dict[str, Tally], memory: list[tuple[float, float]], elapsed_s: float, count: int) -> None:
    at, resident = np.array(memory).T
    slope = float(np.polyfit(at - at[0], resident, 1)[0]) * 60
    refused = {k: v for tally in tallies.values() for k, v in tally.refused.items()}
    errors = sum(n for tally in tallies.values() for status, n in tally.refused.items() if status != 429)
    figures = [
        figure("answers that are neither 200 nor 429", "", [errors], at_most=0, note=f"statuses seen: 200, {refused}"),
        figure(
            "growth of the server's resident memory after the first minute",
            "MB/min",
            [slope],
            at_most=5,
            note=f"{resident[0]:.0f} to {resident[-1]:.0f} MB",
        ),
    ]
    for kind, tally in tallies.items():
        good, busy = len(tally.good_s), tally.refused.get(429, 0)
        figures += [
            figure(f"{kind}: p50", "ms", [percentile(tally.good_s, 0.5) * 1e3], note=f"{good} answers, {busy} × 429"),
            figure(f"{kind}: p95", "ms", [percentile(tally.good_s, 0.95) * 1e3]),
            figure(f"{kind}: answers", "/s", [good / elapsed_s]),
        ]
    save("load", figures, title=f"{count} users at once, embed, search and chat", command="python -m benchmarks.load")


if __name__ == "__main__":
    main()
