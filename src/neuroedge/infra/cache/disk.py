"""The slowest level: entries on this machine's disk, which outlive a restart. Its work is done in one thread."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.cache.entry import Entry
from neuroedge.infra.cache.entry_file import EntryFile

T = TypeVar("T")

PATIENCE_S = 0.1
_KEYS_AT_ONCE = 1000
_BATCH = 64
_BATCH_BYTES = 2 * 1024 * 1024
_QUEUE_BYTES = 32 * 1024 * 1024
_LARGEST_SHARE = 16


class DiskLevel:
    """Entries in a file below `folder`, at most `limit_bytes`. Every method raises Unavailable when the disk fails.

    A read of 1000 entries waits at most `patience_s`. Writes wait in a queue of at most 32 MiB, what comes on top is
    dropped; they go to the thread one batch at a time, so that a read never stands behind more than one.
    """

    def __init__(self, folder: Path, *, limit_bytes: int, patience_s: float = PATIENCE_S) -> None:
        self._file = EntryFile(folder / "cache.sqlite", limit_bytes=limit_bytes)
        self._largest_bytes = min(limit_bytes // _LARGEST_SHARE, _QUEUE_BYTES)
        self._patience_s = patience_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache-disk")
        self._queue: deque[Entry] = deque()
        self._queued_bytes = 0
        self._writing = asyncio.Lock()

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The entries there are, by key."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            reading = self._start(partial(self._file.read, keys[start : start + _KEYS_AT_ONCE]))
            await asyncio.wait([reading], timeout=self._patience_s)
            if not reading.done():
                reading.cancel()  # one that still waits for the thread is never begun
                raise Unavailable("the disk is too slow for the cache")
            found.update(reading.result())
        return found

    async def put(self, entries: Sequence[Entry]) -> int:
        """Store entries, with those that wait already; how many of these were dropped for want of room."""
        dropped = len(entries) - sum(self._enqueue(entry) for entry in entries)
        async with self._writing:
            while self._queue:
                batch = self._next_batch()
                try:
                    await self._start(partial(self._file.write, batch))
                except Unavailable:
                    self._clear_queue()
                    raise
        return dropped

    async def forget(self, prefix: bytes) -> None:
        """Delete the entries whose key starts with `prefix`, also those that wait to be written."""
        waiting = [entry for entry in self._queue if not entry.key.startswith(prefix)]
        self._clear_queue()
        for entry in waiting:
            self._enqueue(entry)
        await self._start(partial(self._file.delete_prefix, prefix))

    async def close(self) -> None:
        """Wait for the thread's work and close the file."""
        await self._start(self._file.close)
        self._thread.shutdown()

    def _start(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _enqueue(self, entry: Entry) -> bool:
        size = len(entry.sealed)
        if size > self._largest_bytes or self._queued_bytes + size > _QUEUE_BYTES:
            return False
        self._queue.append(entry)
        self._queued_bytes += size
        return True

    def _next_batch(self) -> list[Entry]:
        batch: list[Entry] = []
        size = 0
        while self._queue and len(batch) < _BATCH and size < _BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1].sealed)
        self._queued_bytes -= size
        return batch

    def _clear_queue(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0
