"""Things that come while the ones before are written are written together, next."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batches(Generic[T, R]):
    """Gives items to `write`, many at once, one batch at a time; each waits for its own result.

    `write` gives a result or an error for each item, in their order. What is handed in is written, whether or not the
    caller still waits.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]], *, most: int = 500) -> None:
        self._write = write
        self._most = most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None
        self.unwritten = 0
        """Items handed in that have no result yet."""

    def put(self, item: T) -> "asyncio.Future[R]":
        """Hand in an item; its result. Cancelling that changes nothing of what is written."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self.unwritten += 1
        if self._task is None:
            # Without the caller's context: its deadline and request id are not those of the others.
            self._task = asyncio.create_task(self._write_all(), context=Context())
        return future

    async def close(self, *, within_s: float) -> int:
        """Wait until all is written, for so long at most; how many are not."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=within_s)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        return self.unwritten

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                # One turn of the loop: what is ready to come now gets into this batch, not the next.
                await asyncio.sleep(0)
                batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                results = await self._results([item for item, _ in batch])
                self.unwritten -= len(batch)
                for (_, future), result in zip(batch, results, strict=True):
                    _settle(future, result)
        finally:
            self._task = None

    async def _results(self, items: Sequence[T]) -> Sequence[R | Exception]:
        try:
            return await self._write(items)
        except Exception as error:
            return [error] * len(items)


def _settle(future: "asyncio.Future[R]", result: R | Exception) -> None:
    if future.done():  # its caller left
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
