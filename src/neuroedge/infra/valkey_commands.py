"""Commands to Valkey, apart from the tasks that ask for them.

A command that is cancelled costs its connection, and where `infra/cancellation.py` is not in place (in another program
that uses our accelerator, say) valkey's client can swallow the cancellation, so that whoever waits for the task to end
would wait for ever. So each command gets a task of its own.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from valkey.exceptions import TimeoutError as ValkeyTimeoutError

T = TypeVar("T")


class ValkeyCommands:
    """Runs commands whose callers may leave at any time; a command that was left may still take effect."""

    def __init__(self, *, timeout_s: float | None = None) -> None:
        """Wait at most so long for an answer; None: as long as the client itself does."""
        self._timeout_s = timeout_s
        self._running: set[asyncio.Future[Any]] = set()

    async def run(self, command: Awaitable[T]) -> T:
        """The command's answer. Raises what the client raises, and valkey's TimeoutError when none came in time."""
        task = self.begin(command)
        await asyncio.wait([task], timeout=self._timeout_s)
        if not task.done():
            raise ValkeyTimeoutError("no answer")
        return task.result()

    def begin(self, command: Awaitable[T]) -> "asyncio.Future[T]":
        """Begin a command without waiting for it; nothing but its own end or `settled` ends it."""
        task = asyncio.ensure_future(command)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def settled(self) -> None:
        """Wait for commands whose callers have left, cancel those that do not end in time; before the client closes."""
        if self._running:
            await asyncio.wait(self._running, timeout=self._timeout_s)
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=self._timeout_s)

    def _ended(self, task: "asyncio.Future[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen: nobody may be left to raise it to
