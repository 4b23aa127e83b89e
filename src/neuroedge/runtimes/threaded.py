"""A model's own bounded thread pool: computations never block the event loop and never pile up in shared threads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threaded:
    """Base of runtime adapters. One worker: a model computes one thing at a time; its threads are the library's."""

    def __init__(self, model_id: str, *, workers: int = 1) -> None:
        self.model_id = model_id
        self._threads = ThreadPoolExecutor(max_workers=workers, thread_name_prefix=model_id)

    async def _in_thread(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: fn(*args, **kwargs))

    def close(self) -> None:
        """Wait for the running computation and end the threads; subclasses drop the library's objects."""
        self._threads.shutdown(wait=True, cancel_futures=True)
