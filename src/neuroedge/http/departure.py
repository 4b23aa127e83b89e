"""Ends work whose caller has left, so that what it queued is dropped."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

T = TypeVar("T")
_WATCH_AFTER_S = 0.5
"""Most calls end sooner, and cost one timer only."""

CLIENT_LEFT = 499
"""Status that log and metrics show for a request whose caller did not wait."""


class ClientLeft(Exception):
    """The caller closed the connection; nobody reads an answer."""


async def unless_client_leaves(request: Request, work: Awaitable[T]) -> T:
    """What `work` gives; cancels it at once when the caller leaves. Raises ClientLeft.

    The request's body must have been read: from there on, the next message of the connection is its end.
    """
    own, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert own is not None
    watcher: asyncio.Task[None] | None = None
    left = False

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        own.cancel()

    def begin() -> None:
        nonlocal watcher
        watcher = loop.create_task(watch())

    timer = loop.call_later(_WATCH_AFTER_S, begin)
    try:
        return await work
    except asyncio.CancelledError:
        if left and own.uncancel() == 0:
            raise ClientLeft from None
        raise
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()
