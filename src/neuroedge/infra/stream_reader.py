"""Reads many Valkey streams over one connection, for everybody in this process who follows one.

A blocked XREAD for each listener would cost a connection each. Here one task reads the streams of all listeners at
once; a listener that comes wakes it by CLIENT UNBLOCK, so that its stream is read from at once too.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from contextvars import Context
from dataclasses import dataclass, field
from typing import Final

import structlog
import valkey.asyncio
from valkey.exceptions import ValkeyError

from neuroedge.infra.valkey_commands import ValkeyCommands

log = structlog.get_logger(__name__)

BLOCK_MS: Final = 1000
_RETRY_S: Final = 1.0
_WAKE_AGAIN_S: Final = 0.02
_AT_ONCE: Final = 100
"""Entries of a stream in one read, and about as many wait for a listener that is slow."""
Entry = tuple[str, dict[bytes, bytes]]


@dataclass(slots=True, eq=False)
class Follower:
    """Who follows one stream, after the entry `last`."""

    key: str
    last: tuple[int, int]
    entries: asyncio.Queue[Entry] = field(default_factory=asyncio.Queue)
    read: bool = False
    """Whether its stream has been read from since it came."""
    caught_up: bool = False
    """Whether it was given all that its stream held when it came, as far as Valkey answers."""

    @property
    def wants_more(self) -> bool:
        """Whether it has taken what it was given."""
        return self.entries.qsize() < _AT_ONCE

    def give(self, entry: Entry) -> None:
        """Hand an entry over, once."""
        if (number := _number(entry[0])) > self.last:
            self.last = number
            self.entries.put_nowait(entry)


class StreamReader:
    """One reading task for all followers; it runs while there is one."""

    def __init__(self, client: "valkey.asyncio.Valkey", *, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._commands = ValkeyCommands(timeout_s=timeout_s)
        self._followers: dict[str, list[Follower]] = {}
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connection: int | None = None
        """Valkey's id of the connection that reads."""

    def join(self, key: str, after: str) -> Follower:
        """Follow a stream after an entry."""
        follower = Follower(key, _number(after))
        self._followers.setdefault(key, []).append(follower)
        if self._task is None or self._task.done():
            self._task = self._begun(self._read())
        else:
            self._begun(self._wake(follower))
        return follower

    def leave(self, follower: Follower) -> None:
        """Follow no longer."""
        others = self._followers[follower.key]
        others.remove(follower)
        if not others:
            del self._followers[follower.key]

    async def close(self) -> None:
        """End the reading."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._commands.settled()

    def _begun(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, context=Context())  # not within the deadline of whoever came first
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _read(self) -> None:
        connection = self._client.client()
        commands = ValkeyCommands(timeout_s=self._timeout_s)  # its own: the next reader's must not end with them
        try:
            while self._followers:
                try:
                    if self._connection is None:
                        self._connection = await commands.run(connection.client_id())
                    await self._read_once(connection, commands)
                except (ValkeyError, OSError) as error:
                    self._connection = None
                    log.warning("listeners_wait", topics=len(self._followers), error=str(error))
                    for follower in (each for followers in self._followers.values() for each in followers):
                        follower.caught_up = True
                    await asyncio.sleep(_RETRY_S)
            self._task = None  # who comes from here on begins another
        finally:
            self._connection = None
            await commands.settled()
            await connection.aclose()

    async def _read_once(self, connection: "valkey.asyncio.Valkey", commands: ValkeyCommands) -> None:
        asked = {key: list(_waiting(followers)) for key, followers in self._followers.items()}
        asked = {key: followers for key, followers in asked.items() if followers}
        if not asked:
            await asyncio.sleep(_WAKE_AGAIN_S)
            return
        after = {key: _text(min(each.last for each in followers)) for key, followers in asked.items()}
        reading = [each for followers in asked.values() for each in followers]
        for follower in reading:
            follower.read = True
        # Who is new is told at once that there is nothing yet.
        block = BLOCK_MS if all(follower.caught_up for follower in reading) else None
        batches = await commands.run(connection.xread(after, block=block, count=_AT_ONCE))
        given = {key.decode(): entries for key, entries in batches or ()}
        for key, followers in asked.items():
            entries = given.get(key, ())
            for follower in followers:
                for entry_id, fields in entries:
                    follower.give((entry_id.decode(), fields))
                follower.caught_up = follower.caught_up or len(entries) < _AT_ONCE

    async def _wake(self, follower: Follower) -> None:
        """Until its stream is read from: the reader may have been about to block just when it was woken."""
        while not follower.read:
            if self._connection is not None:
                try:
                    await self._commands.run(self._client.client_unblock(self._connection))
                except (ValkeyError, OSError):
                    return
            await asyncio.sleep(_WAKE_AGAIN_S)


def _waiting(followers: list[Follower]) -> Iterator[Follower]:
    return (follower for follower in followers if follower.wants_more)


def _number(entry_id: str) -> tuple[int, int]:
    milliseconds, _, place = entry_id.partition("-")
    return int(milliseconds), int(place or 0)


def _text(number: tuple[int, int]) -> str:
    return f"{number[0]}-{number[1]}"
