"""The level that processes and machines share: Valkey, asked for many keys at once.

neuroedge:{org}:cache:{hash of the key}   an entry; the server drops it after its time
neuroedge:{org}:cache-generation          changed when the organisation is forgotten: entries of another one are void
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar
from uuid import UUID

import valkey.asyncio
from valkey.exceptions import ValkeyError

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.cache.entry import MAX_TTL_S, NO_GENERATION, Entry
from neuroedge.infra.cache.gathered import Gathered
from neuroedge.infra.cache.line import Line
from neuroedge.infra.valkey_commands import ValkeyCommands

T = TypeVar("T")
_Write = tuple[str, bytes, int]
"""Name, entry, milliseconds to live."""

MAX_VALUE_BYTES = 64 * 1024
"""Larger values stay out of Valkey: a hundred of them could not be had in time."""
PATIENCE_S = 0.1
_WRITE_PATIENCE_S = 1.0
_WRITE_LINGER_S = 0.1
_READ_LINGER_S = 0.02
_SOCKET_TIMEOUT_S = 1.0
_KEYS_AT_ONCE = 100
_REQUESTS_AT_ONCE = 32
_MAX_CONNECTIONS = 8
_GENERATION_TTL_S = int(MAX_TTL_S) + 24 * 3600
"""Longer than any entry lives: when it has run out, no entry of an older generation is left."""


class SharedLevel:
    """Entries in Valkey. Every method raises Unavailable when it fails; a read of 100 entries waits `patience_s`."""

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S) -> None:
        pool = valkey.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=_MAX_CONNECTIONS,
            timeout=_SOCKET_TIMEOUT_S,
            socket_timeout=_SOCKET_TIMEOUT_S,
            socket_connect_timeout=_SOCKET_TIMEOUT_S,
        )
        self._client = valkey.asyncio.Valkey.from_pool(pool)
        # The queues below ask one batch at a time.
        self._reading, self._writing = (Line(url, timeout_s=_SOCKET_TIMEOUT_S) for _ in range(2))
        self._reads: Gathered[list[str], list[bytes | None]] = Gathered(
            "valkey read",
            self._read,
            at_once=_REQUESTS_AT_ONCE,
            patience_s=patience_s,
            linger_s=_READ_LINGER_S,
        )
        self._writes: Gathered[list[_Write], None] = Gathered(
            "valkey write",
            self._write,
            at_once=_REQUESTS_AT_ONCE,
            patience_s=max(patience_s, _WRITE_PATIENCE_S),
            linger_s=_WRITE_LINGER_S,
        )
        self._commands = ValkeyCommands()

    async def get(self, org_id: UUID, keys: Sequence[bytes], *, hurry: bool = True) -> tuple[bytes, dict[bytes, bytes]]:
        """The organisation's generation (8 bytes), and the entries the server has by key.

        Without `hurry` a read waits 20 ms for others, to go with them.
        """
        generation = NO_GENERATION
        found: dict[bytes, bytes] = {}
        for chunk in _chunks(keys):
            names = [_generation_name(org_id), *(_name(org_id, key) for key in chunk)]
            current, *entries = await self._reads.ask(names, hurry=hurry)
            generation = _generation(current)
            found.update((key, entry) for key, entry in zip(chunk, entries, strict=True) if entry is not None)
        return generation, found

    async def put(self, org_id: UUID, entries: Sequence[Entry]) -> None:
        """Store entries; too large ones are passed over."""
        small = [entry for entry in entries if len(entry.sealed) <= MAX_VALUE_BYTES]
        for chunk in _chunks(small):
            writes = [(_name(org_id, key), sealed, max(1, round(ttl_s * 1000))) for key, sealed, ttl_s in chunk]
            await self._writes.ask(writes, hurry=len(writes) == _KEYS_AT_ONCE)

    async def forget(self, org_id: UUID) -> None:
        """Make every entry of an organisation void for all processes at once, then delete them."""
        generation = secrets.token_bytes(len(NO_GENERATION))
        run = self._commands.run
        cursor, pattern = 0, f"neuroedge:{org_id}:cache:*"
        with _wrapped():
            await run(self._client.set(_generation_name(org_id), generation, ex=_GENERATION_TTL_S))
            while True:
                cursor, names = await run(self._client.scan(cursor, match=pattern, count=1000))
                if names:
                    await run(self._client.unlink(*names))
                if cursor == 0:
                    return

    async def settled(self) -> None:
        """Wait for commands whose callers have left."""
        await self._reads.settled()
        await self._writes.settled()
        await self._commands.settled()

    async def close(self) -> None:
        """Close the connections."""
        await self.settled()
        await self._reading.close()
        await self._writing.close()
        await self._client.aclose()
        await self._client.connection_pool.disconnect()

    async def _read(self, requests: list[list[str]]) -> list[list[bytes | None]]:
        with _wrapped():
            (found,) = await self._reading.ask(["MGET", *(name for names in requests for name in names)])
        answers = iter(found)
        return [list(islice(answers, len(names))) for names in requests]

    async def _write(self, requests: list[list[_Write]]) -> list[None]:
        with _wrapped():
            await self._writing.ask(
                *(("SET", name, sealed, "PX", ttl_ms) for part in requests for name, sealed, ttl_ms in part)
            )
        return [None] * len(requests)


@contextmanager
def _wrapped() -> Iterator[None]:
    """Errors of the server and the way to it become Unavailable."""
    try:
        yield
    except (ValkeyError, OSError) as error:
        raise Unavailable(f"Valkey does not answer the cache: {error}") from error


def _name(org_id: UUID, key: bytes) -> str:
    return f"neuroedge:{org_id}:cache:{key[16:].hex()}"


def _generation_name(org_id: UUID) -> str:
    return f"neuroedge:{org_id}:cache-generation"


def _generation(stored: bytes | None) -> bytes:
    return stored if stored is not None and len(stored) == len(NO_GENERATION) else NO_GENERATION


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _KEYS_AT_ONCE] for start in range(0, len(items), _KEYS_AT_ONCE))
