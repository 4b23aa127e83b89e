"""The fastest level: packed values in this process, bounded in bytes."""

import time
from collections.abc import Callable
from contextlib import suppress

from cachetools import TLRUCache

MAX_TTL_S = 300.0
"""Longest stay here: what another process forgot is gone from this one after so long."""
ENTRY_OVERHEAD_BYTES = 512
"""What an entry takes beyond its payload: key, header of the bytes, places in three dicts and a heap (measured)."""
_LARGEST_SHARE = 8


class MemoryLevel:
    """Least recently used values go first when `limit_bytes` is reached; a value of more than 1/8 of it never enters.

    Times run on a monotonic clock. Values are kept packed, so that no caller can change what another one gets.
    """

    def __init__(self, limit_bytes: int, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._largest_bytes = limit_bytes // _LARGEST_SHARE
        self._timer = timer
        self._entries: TLRUCache[bytes, tuple[bytes, float]] = TLRUCache(
            limit_bytes, ttu=lambda key, value, now: value[1], timer=timer, getsizeof=lambda value: _size(value[0])
        )

    @property
    def size_bytes(self) -> int:
        """Bytes taken now, overhead included."""
        return int(self._entries.currsize)

    def get(self, key: bytes) -> bytes | None:
        """The packed value, or None."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: bytes, payload: bytes, ttl_s: float) -> None:
        """Keep a packed value for `ttl_s`, at most MAX_TTL_S; larger ones than the share of one are passed over."""
        if _size(payload) <= self._largest_bytes:
            self._entries[key] = payload, self._timer() + min(ttl_s, MAX_TTL_S)
        else:
            self._entries.pop(key, None)

    def forget(self, prefix: bytes) -> None:
        """Drop every key that starts with `prefix`."""
        self._entries.expire()
        for key in [key for key in self._entries if key.startswith(prefix)]:
            with suppress(KeyError):  # it expired a moment ago
                del self._entries[key]

    def clear(self) -> int:
        """Drop everything; the bytes that were taken."""
        taken = self.size_bytes
        self._entries.clear()
        return taken


def _size(payload: bytes) -> int:
    return len(payload) + ENTRY_OVERHEAD_BYTES
