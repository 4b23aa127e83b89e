"""How soon another process leaves the device: `python -m benchmarks.accelerator`.

The other process is idle and unloads nothing, so this is the cost of the protocol itself: queue, lease, pause,
acknowledgement.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import structlog
import valkey.asyncio

from benchmarks.report import figure, save
from neuroedge.infra import datadir
from neuroedge.infra.accelerator import Accelerator
from neuroedge.infra.embedded import EmbeddedServers
from neuroedge.settings import Settings

_DEVICE = "bench/ram"
_PAUSE_S = 0.02
"""Between rounds, so that the other process is idle again."""


class Idle:
    """A participant with nothing to unload."""

    async def pause(self) -> None:
        """Nothing to unload."""

    async def resume(self) -> None:
        """Nothing to reload."""


@contextlib.asynccontextmanager
async def sharing(address: str) -> AsyncIterator[tuple[Accelerator, "valkey.asyncio.Valkey"]]:
    """Take part in sharing the device."""
    client = valkey.asyncio.Valkey.from_url(address)
    accelerator = Accelerator(client, device=_DEVICE, participant=Idle())
    await accelerator.open()
    yield accelerator, client
    await accelerator.close()
    await client.aclose()


async def participate(address: str) -> None:
    """Be the other process, and if told so its job, until the input ends."""
    async with sharing(address) as (accelerator, _):
        print("open", flush=True)
        if await asyncio.to_thread(sys.stdin.readline):
            async with accelerator.exclusive(owner="doomed", wait_s=5):
                print("granted", flush=True)
                await asyncio.to_thread(sys.stdin.readline)


@contextlib.contextmanager
def other_process(address: str) -> "Iterator[subprocess.Popen[str]]":
    """Another process on the device."""
    command = [sys.executable, "-m", "benchmarks.accelerator", "--participate", address]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "open\n"
    yield process
    process.stdin.close()
    process.wait()
    process.stdout.close()


async def acknowledgements(address: str, rounds: int) -> list[float]:
    """Milliseconds from asking for the device until the other process has left it."""
    taken = []
    async with sharing(address) as (accelerator, _):
        for _ in range(rounds):
            started = time.perf_counter()
            async with accelerator.exclusive(owner="bench", wait_s=5):
                taken.append((time.perf_counter() - started) * 1e3)
            await asyncio.sleep(_PAUSE_S)
    return taken


async def foreign_acknowledgements(address: str, rounds: int) -> list[float]:
    """Milliseconds from a foreign `pause_transcription` until `transcription_paused`, two processes paused."""
    taken = []
    async with sharing(address) as (_, client):
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        await pubsub.subscribe("transcription_paused", "transcription_resumed")
        for n in range(rounds):
            started = time.perf_counter()
            for channel in ("pause_transcription", "resume_transcription"):
                await client.publish(channel, json.dumps({"task_id": str(n), "reason": "bench"}))
                while await pubsub.get_message(timeout=1) is None:
                    pass
                if channel == "pause_transcription":
                    taken.append((time.perf_counter() - started) * 1e3)
            await asyncio.sleep(_PAUSE_S)
        await pubsub.aclose()  # type: ignore[no-untyped-call]
    return taken


async def takeover(address: str) -> float:
    """Seconds from kill -9 of a holder until the next job has the device."""
    with other_process(address) as doomed:
        async with sharing(address) as (accelerator, _):
            assert doomed.stdin is not None
            assert doomed.stdout is not None
            doomed.stdin.write("go\n")
            doomed.stdin.flush()
            await asyncio.to_thread(doomed.stdout.readline)
            doomed.send_signal(signal.SIGKILL)
            started = time.perf_counter()
            async with accelerator.exclusive(owner="bench", wait_s=30):
                return time.perf_counter() - started


def percentile(values: list[float], percent: int) -> float:
    """A percentile of many values."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--participate", metavar="ADDRESS", help="be the other process")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
    if arguments.participate:
        asyncio.run(participate(arguments.participate))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        servers = EmbeddedServers(root, datadir.prepare(Settings(data_dir=root)), postgres=False, valkey=True)
        address = str(servers.start().valkey)
        with other_process(address):
            own = [asyncio.run(acknowledgements(address, arguments.rounds)) for _ in range(arguments.runs)]
            foreign = [asyncio.run(foreign_acknowledgements(address, arguments.rounds)) for _ in range(arguments.runs)]
        after_kill = [asyncio.run(takeover(address)) for _ in range(arguments.runs)]
        servers.stop()
    figures = []
    for name, runs in (("pause acknowledged by an idle process", own), ("NeMo pause acknowledged", foreign)):
        for percent in (50, 95, 99):
            at_most = 100 if percent == 95 else None
            values = [percentile(run, percent) for run in runs]
            note = f"{arguments.rounds} rounds a run"
            figures.append(figure(f"{name}, p{percent}", "ms", values, at_most=at_most, note=note))
    figures.append(figure("device free after kill -9 of its holder", "s", after_kill, note="signs of life last 5 s"))
    save(
        "accelerator",
        figures,
        title="Sharing a device between processes",
        command="python -m benchmarks.accelerator",
    )


if __name__ == "__main__":
    main()
