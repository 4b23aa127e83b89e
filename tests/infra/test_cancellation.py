"""A cancellation that comes together with what was waited for is not lost (tests/conftest.py begins as servers do)."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg_pool.pool_async import WaitingClient

from neuroedge.bootstrap import open_servers
from neuroedge.settings import Settings

pytestmark = pytest.mark.anyio


async def test_cancelled_in_the_moment_the_answer_comes() -> None:
    """Python 3.11's own returns the answer, and the task goes on."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(asyncio.wait_for(answer, 60))
    await asyncio.sleep(0)
    answer.set_result("late")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("steps", range(8))
async def test_cancelled_while_the_pool_hands_over_a_connection(steps: int) -> None:
    """At whichever step of the loop it comes: who is told to stop does not go on with a connection."""
    client: WaitingClient[Any] = WaitingClient()
    went_on = False

    async def work() -> None:
        nonlocal went_on
        await client.wait(60)
        await asyncio.sleep(0)
        went_on = True

    working = asyncio.ensure_future(work())
    for _ in range(4):
        await asyncio.sleep(0)
    await client.set(object())
    for _ in range(steps):
        await asyncio.sleep(0)
    cancelled = working.cancel()
    await asyncio.wait([working])
    assert went_on is not cancelled


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python has it itself")
async def test_every_process_that_works_with_servers_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Server, worker and commands alike."""
    monkeypatch.setattr(asyncio, "wait_for", None)
    elsewhere = {"postgres_url": "postgresql://a", "postgres_app_url": "postgresql://b", "redis_url": "redis://c"}
    async with open_servers(Settings.model_validate({"data_dir": tmp_path, **elsewhere})):
        assert asyncio.wait_for is not None


@pytest.mark.parametrize("timeout", [0.01, 0, -1, None])
async def test_what_it_gives_otherwise(timeout: float | None) -> None:
    """The answer, its own error, or that it took too long, after which it is no longer waited for."""
    ended = asyncio.Event()

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def answer(give: Callable[[], int]) -> int:
        return give()

    if timeout is not None:
        never_ending = asyncio.ensure_future(never())
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(never_ending, timeout)
        assert ended.is_set()
    done = asyncio.ensure_future(answer(lambda: 7))
    failed = asyncio.ensure_future(answer(lambda: 1 // 0))
    await asyncio.wait([done, failed])
    assert await asyncio.wait_for(done, timeout) == 7
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(failed, timeout)
