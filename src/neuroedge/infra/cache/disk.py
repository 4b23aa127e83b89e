"""The slowest level: entries on this machine's disk, which outlive a restart. Its work is done in one thread."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from neuroedge.infra.cache.entry import Entry
from neuroedge.infra.cache.entry_file import EntryFile
from neuroedge.infra.cache.gathered import Gathered

T = TypeVar("T")

PATIENCE_S = 0.1
_WRITE_PATIENCE_S = 5.0
_WRITE_LINGER_S = 0.1
_READ_KEYS = 1000
_READS_AT_ONCE = 16
_WRITE_ENTRIES = 32
_WRITE_BYTES = 256 * 1024
_WRITES_AT_ONCE = 8
_QUEUE_BYTES = 32 * 1024 * 1024
_LARGEST_SHARE = 16


class DiskLevel:
    """Entries in a file below `folder`, at most `limit_bytes`. Every method raises Unavailable when the disk fails.

    A read of 1000 entries waits `patience_s`, behind one batch of writes at most. Writes wait in a queue of at most
    32 MiB; what comes on top is dropped.
    """

    def __init__(self, folder: Path, *, limit_bytes: int, patience_s: float = PATIENCE_S) -> None:
        self._file = EntryFile(folder / "cache.sqlite", limit_bytes=limit_bytes)
        self._largest_bytes = min(limit_bytes // _LARGEST_SHARE, _QUEUE_BYTES)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache-disk")
        self._reads: Gathered[Sequence[bytes], dict[bytes, bytes]] = Gathered(
            "disk read", self._read, at_once=_READS_AT_ONCE, patience_s=patience_s
        )
        self._writes: Gathered[Sequence[Entry], None] = Gathered(
            "disk write",
            self._write,
            at_once=_WRITES_AT_ONCE,
            patience_s=max(patience_s, _WRITE_PATIENCE_S),
            linger_s=_WRITE_LINGER_S,
        )
        self._queued_bytes = 0

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The entries there are, by key."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _READ_KEYS):
            found.update(await self._reads.ask(keys[start : start + _READ_KEYS]))
        return found

    async def put(self, entries: Sequence[Entry]) -> int:
        """Store entries; how many were dropped for want of room. Raises Unavailable for those not stored in time."""
        fitting = self._fitting(entries)
        size = sum(len(entry.sealed) for entry in fitting)
        self._queued_bytes += size
        try:
            for chunk in _chunks(fitting):
                await self._writes.ask(chunk, hurry=len(chunk) == _WRITE_ENTRIES)
        finally:
            self._queued_bytes -= size
        return len(entries) - len(fitting)

    async def forget(self, prefix: bytes) -> None:
        """Delete the entries whose key starts with `prefix`; those that wait to be written fail."""
        self._writes.withdraw(lambda entries: entries[0].key.startswith(prefix))
        await self._in_thread(partial(self._file.delete_prefix, prefix))

    async def close(self) -> None:
        """Wait for the thread's work and close the file."""
        await self._reads.settled()
        await self._writes.settled()
        await self._in_thread(self._file.close)
        self._thread.shutdown()

    async def _read(self, requests: list[Sequence[bytes]]) -> list[dict[bytes, bytes]]:
        found = await self._in_thread(partial(self._file.read, [key for keys in requests for key in keys]))
        return [{key: found[key] for key in keys if key in found} for keys in requests]

    async def _write(self, requests: list[Sequence[Entry]]) -> list[None]:
        await self._in_thread(partial(self._file.write, [entry for entries in requests for entry in entries]))
        return [None] * len(requests)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _fitting(self, entries: Sequence[Entry]) -> list[Entry]:
        fitting, room = [], _QUEUE_BYTES - self._queued_bytes
        for entry in entries:
            if len(entry.sealed) <= min(self._largest_bytes, room):
                fitting.append(entry)
                room -= len(entry.sealed)
        return fitting


def _chunks(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Parts of at most _WRITE_ENTRIES, and of about _WRITE_BYTES, none empty."""
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        chunk.append(entry)
        size += len(entry.sealed)
        if len(chunk) == _WRITE_ENTRIES or size >= _WRITE_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
