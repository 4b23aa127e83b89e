"""How many files are decoded at once, and how many may wait."""

import asyncio
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from neuroedge.contract.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")
_RETRY_AFTER_S = 30


class DecodeSlots:
    """Lets `at_once` decodings run and `max_waiting` wait; one more is refused at once with Overloaded.

    `async with slots:` holds a slot for a block; a cancelled block frees it though a thread it started may still run.
    `run` holds it until the thread has ended.
    """

    def __init__(self, *, at_once: int = 1, max_waiting: int = 16) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._max_waiting = max_waiting
        self._waiting = 0

    async def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`fn` in a thread, in a slot. Raises Overloaded, and what `fn` raises."""
        await self.__aenter__()
        work = asyncio.ensure_future(asyncio.to_thread(fn, *args, **kwargs))
        work.add_done_callback(self._end)
        return await asyncio.shield(work)

    def _end(self, work: "asyncio.Future[Any]") -> None:
        self._free.release()
        if not work.cancelled():
            work.exception()  # seen: who called may have left

    async def __aenter__(self) -> None:
        if self._free.locked() and self._waiting >= self._max_waiting:
            raise Overloaded("too many files are being decoded", hint="try again later", retry_after_s=_RETRY_AFTER_S)
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1

    async def __aexit__(self, *_: object) -> None:
        self._free.release()
