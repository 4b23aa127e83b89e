"""Commands to Valkey that end: with an answer, an error of ours, or the caller's cancellation."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import valkey.asyncio
from valkey.exceptions import ValkeyError

from neuroedge.contract.errors import Unavailable

T = TypeVar("T")


class Commands:
    """Runs commands of a client, each in a task of its own and for a limited time."""

    def __init__(self, client: "valkey.asyncio.Valkey", *, timeout_s: float) -> None:
        self.client = client
        self._timeout_s = timeout_s
        self._running: set[asyncio.Future[Any]] = set()

    async def run(self, command: Awaitable[T]) -> T:
        """The command's answer; Unavailable when there is none. A command that was left may still take effect.

        In a task of its own, as valkey's client can swallow the cancellation of the task it runs in (infra/events.py).
        """
        task = asyncio.ensure_future(command)
        self._running.add(task)
        task.add_done_callback(self._done)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(task)
        except (ValkeyError, OSError, TimeoutError) as error:
            raise Unavailable("Valkey does not answer", hint="check REDIS_URL and the server") from error

    def _done(self, task: "asyncio.Future[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be left to hear of it

    async def settled(self) -> None:
        """Wait for commands whose callers have left, cancel those that do not end; before the client is closed."""
        if self._running:
            await asyncio.wait(self._running, timeout=self._timeout_s)
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=self._timeout_s)
