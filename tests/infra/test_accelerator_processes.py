"""A device shared by real processes: exclusion, order, and processes that die, freeze or never answer."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import valkey.asyncio

from neuroedge.infra import datadir
from neuroedge.infra.embedded import EmbeddedServers
from neuroedge.settings import Settings

pytestmark = pytest.mark.anyio

_FAST: dict[str, Any] = {"alive_s": 5.0, "ack_timeout_s": 60.0}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An embedded Valkey."""
    root: Path = tmp_path_factory.mktemp("accelerator")
    servers = EmbeddedServers(root, datadir.prepare(Settings(data_dir=root)), postgres=False, valkey=True)
    yield str(servers.start().valkey)
    servers.stop()


class Process:
    """A running `tests.infra.accelerator_child`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._passed: list[list[Any]] = []

    def do(self, *command: object) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def told(self, *event: object, timeout_s: float = 60) -> list[Any]:
        """The next event that begins so; events before it are passed over."""
        assert self._process.stdout is not None
        async with asyncio.timeout(timeout_s):
            while line := await self._process.stdout.readline():
                got: list[Any] = json.loads(line)
                self._passed.append(got)
                if got[: len(event)] == list(event):
                    return got
        raise AssertionError(f"ended before {event}: {self._passed}")

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def end(self) -> None:
        """Let it close, or reap it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(60):
                await self._process.stdout.read()
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise


Start = Callable[..., AbstractAsyncContextManager[list[Process]]]


@pytest.fixture
def device() -> str:
    """A device of the test's own."""
    return f"test/{uuid4()}"


Queued = Callable[[int], Awaitable[None]]


@pytest.fixture
async def queued(address: str, device: str) -> AsyncIterator[Queued]:
    """Wait until so many jobs are known to Valkey to wait for the device."""
    async with valkey.asyncio.Valkey.from_url(address) as client:

        async def wait(count: int) -> None:
            async with asyncio.timeout(60):
                while await client.zcard(f"neuroedge:accelerator:{{{device}}}:queue") != count:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

        yield wait


@pytest.fixture
def start(address: str, device: str) -> Start:
    """Start processes on the device."""

    @contextlib.asynccontextmanager
    async def starting(count: int, **options: object) -> AsyncIterator[list[Process]]:
        command = [sys.executable, "-m", "tests.infra.accelerator_child", address, device]
        pipe = subprocess.PIPE
        started: list[Process] = []
        try:
            for _ in range(count):
                child = await asyncio.create_subprocess_exec(
                    *command, json.dumps(_FAST | options), stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
                )
                started.append(Process(child))
            for process in started:
                await process.told("open")
            yield started
        finally:
            for process in started:
                await process.end()

    return starting


async def test_two_are_never_inside_and_tokens_grow(start: Start) -> None:
    """Three processes contend; each lease is alone, its token greater than every one before."""
    async with start(3, alive_s=30) as processes:
        for process in processes:
            process.do("contend", 10)
        results = [await process.told("contended", timeout_s=240) for process in processes]
    assert [most for _, most, _ in results] == [1, 1, 1]
    tokens = [tokens for _, _, tokens in results]
    assert all(own == sorted(own) for own in tokens)
    assert sorted(token for own in tokens for token in own) == list(range(1, 31))


async def test_high_goes_first_and_equals_in_order_of_arrival(start: Start, queued: Queued) -> None:
    """Waiting jobs of several processes are served by priority, then first come first served."""
    async with start(3, alive_s=30) as (first, second, third):
        first.do("hold", "now", "low", 1)
        await first.told("granted", "now")
        arrivals = [(second, "low"), (third, "normal"), (second, "normal"), (third, "high"), (first, "high")]
        for n, (process, priority) in enumerate(arrivals):
            process.do("hold", f"{priority}{n}", priority, 240)
            await queued(n + 1)
        first.do("release", "now")
        for owner, process in [("high3", third), ("high4", first), ("normal1", third), ("normal2", second)]:
            await process.told("granted", owner)
            process.do("release", owner)
        await second.told("granted", "low0")
        second.do("release", "low0")


async def test_a_killed_holder_frees_the_device_soon(start: Start) -> None:
    """kill -9: the paused processes come back and the next waiter gets the device, long before the lease's TTL."""
    async with start(3) as (holder, waiter, idle):
        holder.do("hold", "doomed", "normal", 5)
        await holder.told("granted", "doomed")
        await idle.told("paused")
        holder.signal(signal.SIGKILL)
        await idle.told("resumed")
        waiter.do("hold", "next", "normal", 60)
        await waiter.told("granted", "next")
        waiter.do("release", "next")


async def test_a_waiter_inherits_from_a_killed_holder(start: Start, queued: Queued) -> None:
    """A job that is already queued gets the device of a holder killed with -9; a dead waiter before it is skipped."""
    async with start(3) as (holder, dead, waiter):
        holder.do("hold", "doomed", "normal", 5)
        await holder.told("granted", "doomed")
        dead.do("hold", "dead", "high", 60)
        await queued(1)
        waiter.do("hold", "next", "low", 60)
        await queued(2)
        dead.signal(signal.SIGKILL)
        holder.signal(signal.SIGKILL)
        await waiter.told("granted", "next")
        waiter.do("release", "next")


async def test_a_frozen_holder_cannot_go_on(start: Start) -> None:
    """Stopped for longer than its signs of life last, it finds its lease taken and its job is cancelled."""
    async with start(2) as (frozen, other):
        frozen.do("hold", "frozen", "normal", 5)
        (_, _, token) = await frozen.told("granted", "frozen")
        frozen.signal(signal.SIGSTOP)
        other.do("hold", "other", "normal", 60)
        # The frozen process' registration has run out too: nobody waits for its acknowledgement.
        (_, _, newer) = await other.told("granted", "other")
        assert newer > token
        frozen.do("check", "frozen")
        frozen.signal(signal.SIGCONT)
        await frozen.told("error", "frozen", "device_lost")
        other.do("check", "other")
        await other.told("check", "other", "ok")
        other.do("release", "other")
        await other.told("released", "other")


async def test_check_of_a_lost_lease_raises(start: Start) -> None:
    """Also asked later, a lost lease stays lost; the others' lease is not disturbed by its former holder."""
    async with start(2) as (frozen, other):
        frozen.do("hold", "frozen", "normal", 5)
        await frozen.told("granted", "frozen")
        frozen.signal(signal.SIGSTOP)
        await other.told("resumed")
        frozen.signal(signal.SIGCONT)
        await frozen.told("error", "frozen", "device_lost")
        frozen.do("check", "frozen")
        await frozen.told("check", "frozen", "device_lost")


async def test_a_killed_participant_is_not_waited_for(start: Start) -> None:
    """Its registration runs out before the ack timeout does."""
    async with start(2) as (holder, killed):
        killed.signal(signal.SIGKILL)
        holder.do("hold", "job", "normal", 1)
        await holder.told("granted", "job")
        holder.do("release", "job")


async def test_a_process_that_starts_during_a_lease_leaves_the_device(start: Start) -> None:
    """It is paused before `open` returns, and comes back at the lease's end."""
    async with start(1, alive_s=30) as (holder,):
        holder.do("hold", "job", "normal", 1)
        await holder.told("granted", "job")
        late = start(1)
        async with late as (newcomer,):
            assert newcomer._passed[0] == ["paused"]
            holder.do("release", "job")
            await newcomer.told("resumed")
