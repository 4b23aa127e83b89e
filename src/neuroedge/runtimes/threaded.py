"""A model's own bounded thread pool: computations never block the event loop and never pile up in shared threads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, ParamSpec, TypeVar

from neuroedge.contract.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")

MAX_WAITING = 64
_RETRY_AFTER_S = 10


class Threaded:
    """Base of runtime adapters. One worker: a model computes one thing at a time; its threads are the library's.

    At most `max_waiting` computations wait for a worker; one more is refused at once with Overloaded.
    """

    def __init__(self, model_id: str, *, workers: int = 1, max_waiting: int = MAX_WAITING) -> None:
        self.model_id = model_id
        self._threads = _BoundedThreads(model_id, workers=workers, max_waiting=max_waiting)

    async def _in_thread(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: fn(*args, **kwargs))

    def close(self) -> None:
        """Wait for the running computation and end the threads; subclasses drop the library's objects."""
        self._threads.shutdown(wait=True, cancel_futures=True)


class _BoundedThreads(ThreadPoolExecutor):
    """An executor whose `submit` raises Overloaded when too much is submitted and not done."""

    def __init__(self, name: str, *, workers: int, max_waiting: int) -> None:
        super().__init__(max_workers=workers, thread_name_prefix=name)
        self._limit = workers + max_waiting
        self._unfinished = 0
        self._counting = Lock()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        with self._counting:
            if self._unfinished >= self._limit:
                raise Overloaded("the model is busy", hint="try again later", retry_after_s=_RETRY_AFTER_S)
            self._unfinished += 1
        try:
            future = super().submit(fn, *args, **kwargs)
        except BaseException:
            self._done()
            raise
        # Called once however it ends: with a result, with an error or cancelled while it waited.
        future.add_done_callback(self._done)
        return future

    def _done(self, _: Future[Any] | None = None) -> None:
        with self._counting:
            self._unfinished -= 1
