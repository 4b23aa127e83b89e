"""Waiting for an event, but not for ever."""

import asyncio
from typing import Any


async def wait(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for the event at most so long; whether it came."""
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False


async def first(future: "asyncio.Future[Any]", event: asyncio.Event) -> None:
    """Wait for either; the future is left alone."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([future, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
