"""Events over Valkey streams: late listeners see what they missed, lost connections resume by event id.

Topics belong to an organisation; channels, on which the processes of an installation talk to each other, to nobody.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
import valkey.asyncio
from valkey.exceptions import TimeoutError as ValkeyTimeoutError
from valkey.exceptions import ValkeyError

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.stream_reader import BLOCK_MS, StreamReader
from neuroedge.infra.valkey_commands import ValkeyCommands

log = structlog.get_logger(__name__)

_KEPT_EVENTS = 1000
_KEPT_S = 24 * 3600
_RETRY_S = 1.0
_PATIENCE = 5
"""Seconds after which a follower whose stream was not read yet is told of silence all the same."""
_ANSWER_S = 2.0
_PAUSE_S = 5.0
"""After a server that hangs, events are lost without waiting for it: work must not slow down for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of a topic; `id` orders them and is what a listener resumes after."""

    id: str
    name: str
    data: dict[str, Any]


class Events:
    """Publishes to and follows topics of one organisation each."""

    def __init__(self, client: "valkey.asyncio.Valkey") -> None:
        self._client = client
        self._commands = ValkeyCommands(timeout_s=_ANSWER_S + BLOCK_MS / 1000)
        self._reader = StreamReader(client, timeout_s=_ANSWER_S + BLOCK_MS / 1000)
        self._away_until = 0.0

    async def settled(self) -> None:
        """End the reading, and wait for commands whose callers have left; before the client is closed."""
        await self._reader.close()
        await self._commands.settled()

    async def ping(self) -> None:
        """Raise Unavailable unless the server answers."""
        try:
            await self._commands.run(self._client.ping())
        except (ValkeyError, OSError) as error:
            raise Unavailable(
                "Valkey does not answer", hint="check REDIS_URL and the server", retry_after_s=2
            ) from error

    async def publish(self, org_id: UUID, topic: str, name: str, data: dict[str, Any]) -> None:
        """Append an event. Losing one never fails the work it tells of: what is true stands in the database."""
        await self._append(_key(org_id, topic), topic, name, data)

    async def broadcast(self, channel: str, name: str, data: dict[str, Any]) -> None:
        """Tell every process that listens, this one too; those that Valkey cannot reach miss it."""
        await self._append(_channel_key(channel), channel, name, data)

    async def listen(self, channel: str) -> AsyncIterator[Event]:
        """What is broadcast from now on, for ever: while Valkey is away it waits, then goes on where it was."""
        key, last = _channel_key(channel), None
        while True:
            try:
                last = last or await self._newest(key)
                batches = await self._commands.run(self._client.xread({key: last}, block=BLOCK_MS, count=100))
            except (ValkeyError, OSError) as error:
                log.warning("channel_lost", channel=channel, error=str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            for event in _events(batches):
                last = event.id
                yield event

    async def follow(self, org_id: UUID, topic: str, *, after: str = "0") -> AsyncIterator[Event | None]:
        """Events after an id, from the beginning by default; None about every second without one, or without Valkey:
        what is true stands in the database, and the listener goes on where it was when Valkey is back."""
        follower, silent = self._reader.join(_key(org_id, topic), after), 0
        try:
            while True:
                entry = None
                with suppress(TimeoutError):
                    async with asyncio.timeout(BLOCK_MS / 1000):
                        entry = await follower.entries.get()
                if entry is not None:
                    silent = 0
                    yield _event(*entry)
                    continue
                silent += 1
                # Else a busy machine has just not come to read what there is.
                if (follower.caught_up or silent >= _PATIENCE) and follower.entries.empty():
                    yield None
        finally:
            self._reader.leave(follower)

    async def forget(self, org_id: UUID, topic: str) -> None:
        """Delete a topic's events; those of an unreachable server run out by themselves."""
        try:
            await self._commands.run(self._client.delete(_key(org_id, topic)))
        except (ValkeyError, OSError) as error:
            log.warning("events_not_deleted", topic=topic, error=str(error))

    async def forget_all(self, org_id: UUID) -> int:
        """Delete the events of every topic of an organisation; how many topics had any. Raises Unavailable."""
        cursor, found, pattern = 0, 0, _key(org_id, "*")
        try:
            while True:
                cursor, names = await self._commands.run(self._client.scan(cursor, match=pattern, count=1000))
                if names:
                    await self._commands.run(self._client.unlink(*names))
                    found += len(names)
                if cursor == 0:
                    return found
        except (ValkeyError, OSError) as error:
            raise Unavailable("events could not be deleted", retry_after_s=2) from error

    async def _append(self, key: str, topic: str, name: str, data: dict[str, Any]) -> None:
        if time.monotonic() < self._away_until:
            log.warning("event_lost", topic=topic, name=name, error="Valkey hung a moment ago")
            return
        event = {"name": name, "data": json.dumps(data)}
        try:
            await self._commands.run(self._client.xadd(key, event, maxlen=_KEPT_EVENTS, approximate=True))
            await self._commands.run(self._client.expire(key, _KEPT_S))
        except (ValkeyError, OSError) as error:
            if isinstance(error, ValkeyTimeoutError):
                self._away_until = time.monotonic() + _PAUSE_S
            log.warning("event_lost", topic=topic, name=name, error=str(error))

    async def _newest(self, key: str) -> str:
        """Id to read after so as to miss nothing that comes; "$" would be a new now with every read."""
        newest = await self._commands.run(self._client.xrevrange(key, count=1))
        return str(newest[0][0].decode()) if newest else "0-0"


def _events(batches: list[Any]) -> Iterator[Event]:
    for _, entries in batches:
        for event_id, fields in entries:
            yield _event(event_id.decode(), fields)


def _event(event_id: str, fields: dict[bytes, bytes]) -> Event:
    return Event(id=event_id, name=fields[b"name"].decode(), data=json.loads(fields[b"data"]))


def _key(org_id: UUID, topic: str) -> str:
    return f"neuroedge:{org_id}:events:{topic}"


def _channel_key(channel: str) -> str:
    return f"neuroedge:channel:{channel}"
