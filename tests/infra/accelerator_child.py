"""A process of its own that shares a device: `python -m tests.infra.accelerator_child ADDRESS DEVICE [OPTIONS]`.

Reads commands, a JSON list per line; writes events, a JSON list per line.
"""

import asyncio
import json
import sys
from typing import Any

import structlog
import valkey.asyncio

from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.infra.accelerator import Accelerator, Lease


def tell(*event: object) -> None:
    """Write an event."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class Telling:
    """A participant that tells what it is asked."""

    async def pause(self) -> None:
        """Nothing to unload."""
        tell("paused")

    async def resume(self) -> None:
        """Nothing to reload."""
        tell("resumed")


class Child:
    """Carries out the commands."""

    def __init__(self, client: "valkey.asyncio.Valkey", accelerator: Accelerator) -> None:
        self._client = client
        self._accelerator = accelerator
        self._releases: dict[str, asyncio.Event] = {}
        self._leases: dict[str, Lease] = {}
        self._jobs: set[asyncio.Task[None]] = set()

    def do(self, command: str, *args: Any) -> None:
        """Start a command."""
        if command == "release":
            self._releases[args[0]].set()
            return
        job = asyncio.create_task(getattr(self, command)(*args))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def hold(self, owner: str, priority: Any, wait_s: float) -> None:
        """Have the device until told to release it."""
        release = self._releases[owner] = asyncio.Event()
        tell("waiting", owner)
        try:
            async with self._accelerator.exclusive(owner=owner, priority=priority, wait_s=wait_s) as lease:
                self._leases[owner] = lease
                tell("granted", owner, lease.token)
                await release.wait()
        except NeuroEdgeError as error:
            tell("error", owner, error.code, error.detail)
        else:
            tell("released", owner)

    async def check(self, owner: str) -> None:
        """Check a lease it has or had."""
        try:
            await self._leases[owner].check()
        except NeuroEdgeError as error:
            tell("check", owner, error.code)
        else:
            tell("check", owner, "ok")

    async def contend(self, times: int) -> None:
        """Have the device so many times, counting who is inside."""
        most, tokens = 0, []
        for _ in range(times):
            async with self._accelerator.exclusive(owner="contender", wait_s=240) as lease:
                most = max(most, int(await self._client.incr("inside")))
                tokens.append(lease.token)
                await asyncio.sleep(0.005)
                await self._client.decr("inside")
        tell("contended", most, tokens)


async def main(address: str, device: str, options: str = "{}") -> None:
    """Share the device until the input ends."""
    client = valkey.asyncio.Valkey.from_url(address)
    accelerator = Accelerator(client, device=device, participant=Telling(), **json.loads(options))
    await accelerator.open()
    child = Child(client, accelerator)
    tell("open")
    while line := await asyncio.to_thread(sys.stdin.readline):
        child.do(*json.loads(line))
    await accelerator.close()
    await client.aclose()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(*sys.argv[1:]))
