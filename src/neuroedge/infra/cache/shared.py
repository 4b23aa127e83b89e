"""The level that processes and machines share: Valkey, asked for many keys at once.

neuroedge:{org}:cache:{hash of the key}   an entry; the server drops it after its time
neuroedge:{org}:cache-generation          changed when the organisation is forgotten: entries of another one are void
"""

import asyncio
import secrets
from collections.abc import Awaitable, Iterator, Sequence
from typing import Any, TypeVar
from uuid import UUID

import valkey.asyncio
from valkey.exceptions import ValkeyError

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.cache.entry import MAX_TTL_S, NO_GENERATION, Entry

T = TypeVar("T")

MAX_VALUE_BYTES = 64 * 1024
"""Larger values stay out of Valkey: a hundred of them could not be had in time."""
PATIENCE_S = 0.1
_SOCKET_TIMEOUT_S = 1.0
_KEYS_AT_ONCE = 100
_MAX_CONNECTIONS = 64
_GENERATION_TTL_S = int(MAX_TTL_S) + 24 * 3600
"""Longer than any entry lives: when it has run out, no entry of an older generation is left."""


class SharedLevel:
    """Entries in Valkey. Every method raises Unavailable when a command is not answered within `patience_s`."""

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        pool = valkey.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=_MAX_CONNECTIONS,
            timeout=_SOCKET_TIMEOUT_S,
            socket_timeout=_SOCKET_TIMEOUT_S,
            socket_connect_timeout=_SOCKET_TIMEOUT_S,
        )
        self._client = valkey.asyncio.Valkey.from_pool(pool)
        self._commands: set[asyncio.Future[Any]] = set()

    async def get(self, org_id: UUID, keys: Sequence[bytes]) -> tuple[bytes, dict[bytes, bytes]]:
        """The organisation's generation (8 bytes), and the entries the server has by key."""
        generation = NO_GENERATION
        found: dict[bytes, bytes] = {}
        for chunk in _chunks(keys):
            names = [_generation_name(org_id), *(_name(org_id, key) for key in chunk)]
            current, *entries = await self._in_time(self._client.mget(names))
            generation = _generation(current)
            found.update((key, entry) for key, entry in zip(chunk, entries, strict=True) if entry is not None)
        return generation, found

    async def put(self, org_id: UUID, entries: Sequence[Entry]) -> None:
        """Store entries; too large ones are passed over."""
        small = [entry for entry in entries if len(entry.sealed) <= MAX_VALUE_BYTES]
        for chunk in _chunks(small):
            pipeline = self._client.pipeline(transaction=False)
            for key, sealed, ttl_s in chunk:
                pipeline.set(_name(org_id, key), sealed, px=max(1, round(ttl_s * 1000)))
            await self._in_time(pipeline.execute())

    async def forget(self, org_id: UUID) -> None:
        """Make every entry of an organisation void for all processes at once, then delete them."""
        generation = secrets.token_bytes(len(NO_GENERATION))
        await self._in_time(self._client.set(_generation_name(org_id), generation, ex=_GENERATION_TTL_S))
        cursor, pattern = 0, f"neuroedge:{org_id}:cache:*"
        while True:
            cursor, names = await self._in_time(self._client.scan(cursor, match=pattern, count=1000))
            if names:
                await self._in_time(self._client.unlink(*names))
            if cursor == 0:
                return

    async def settled(self) -> None:
        """Wait for commands whose callers have left."""
        await asyncio.gather(*self._commands, return_exceptions=True)

    async def close(self) -> None:
        """Close the connections."""
        await self.settled()
        await self._client.aclose()
        await self._client.connection_pool.disconnect()

    async def _in_time(self, command: Awaitable[T]) -> T:
        """Run a command in a task of its own, never cancelled: valkey's client can swallow that
        (tests/infra/test_events.py). Late ones end by the client's own timeout."""
        task = asyncio.ensure_future(command)
        self._commands.add(task)
        task.add_done_callback(self._ended)
        await asyncio.wait([task], timeout=self._patience_s)
        if not task.done():
            raise Unavailable("Valkey is too slow for the cache")
        try:
            return task.result()
        except (ValkeyError, OSError) as error:
            raise Unavailable(f"Valkey does not answer the cache: {error}") from error

    def _ended(self, task: "asyncio.Future[Any]") -> None:
        self._commands.discard(task)
        if not task.cancelled():
            task.exception()  # seen: nobody may be left to raise it to


def _name(org_id: UUID, key: bytes) -> str:
    return f"neuroedge:{org_id}:cache:{key[16:].hex()}"


def _generation_name(org_id: UUID) -> str:
    return f"neuroedge:{org_id}:cache-generation"


def _generation(stored: bytes | None) -> bytes:
    return stored if stored is not None and len(stored) == len(NO_GENERATION) else NO_GENERATION


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _KEYS_AT_ONCE] for start in range(0, len(items), _KEYS_AT_ONCE))
