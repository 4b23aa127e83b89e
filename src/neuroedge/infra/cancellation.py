"""Cancellations that are not lost.

`asyncio.wait_for` of Python 3.11 returns what it waited for when it is cancelled in the moment that comes (mended in
3.12, https://github.com/python/cpython/issues/96764): the task goes on as if nobody had cancelled it. psycopg's pool,
the Valkey client and procrastinate use it wherever they wait, so that a worker told to stop at the wrong moment worked
on for ever, a cancelled job ran to its end, and a deadline passed unseen.
"""

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")


def keep_cancellations() -> None:
    """Give this process 3.12's `asyncio.wait_for`; does nothing where Python has it."""
    if sys.version_info < (3, 12):
        asyncio.wait_for = asyncio.tasks.wait_for = _wait_for  # type: ignore[assignment]


async def _wait_for(fut: Awaitable[_T], timeout: float | None) -> _T:
    """What `fut` gives. Raises TimeoutError, once `fut` has ended, when that took longer than `timeout` seconds."""
    if timeout is not None and timeout <= 0:
        future = asyncio.ensure_future(fut)
        if future.done():
            return future.result()
        future.cancel()
        await asyncio.wait([future])
        try:
            return future.result()
        except asyncio.CancelledError as error:
            raise TimeoutError from error
    async with asyncio.timeout(timeout):
        return await fut
