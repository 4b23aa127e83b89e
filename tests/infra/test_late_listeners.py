"""Listeners that come when all is over, on a machine that is busy: they are told what they missed, before silence."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from valkey.exceptions import ConnectionError as ValkeyConnectionError

from neuroedge.infra import events as events_module
from neuroedge.infra import stream_reader
from neuroedge.infra.events import Event, Events

pytestmark = pytest.mark.anyio
ENTRY = (b"1-0", {b"name": b"n", b"data": b'{"n": 1}'})


class SlowValkey:
    """Answers a read when it is told to."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.away = False
        self.reads: list[int | None] = []

    def client(self) -> "SlowValkey":
        """A connection of its own."""
        return self

    async def client_id(self) -> int:
        """Of that connection."""
        return 1

    async def aclose(self) -> None:
        """Nothing to close."""

    async def xread(self, after: dict[str, str], *, block: int | None, count: int) -> list[Any]:
        """The one entry of each stream, to who has not read it."""
        self.reads.append(block)
        await self.may_answer.wait()
        if self.away:
            raise ValkeyConnectionError("away")
        if block is not None:
            await asyncio.sleep(block / 1000)
        return [(key.encode(), [ENTRY]) for key, last in after.items() if last == "0-0"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence begins soon."""
    for module in (events_module, stream_reader):
        monkeypatch.setattr(module, "BLOCK_MS", 20)


async def _next(heard: Any) -> Event | None:
    event: Event | None = await anext(heard)
    return event


async def test_nothing_is_called_silence_before_the_stream_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the read takes many times as long as silence may: who asks the row meanwhile would miss all events."""
    monkeypatch.setattr(events_module, "_PATIENCE", 10_000)
    valkey: Any = SlowValkey()
    events = Events(valkey)
    heard = events.follow(uuid4(), "t")
    first = asyncio.create_task(_next(heard))
    await asyncio.wait([first], timeout=0.3)
    assert not first.done()
    valkey.may_answer.set()
    event = await first
    assert event is not None
    assert event.data == {"n": 1}
    assert await anext(heard) is None
    assert valkey.reads[0] is None
    await events.settled()


async def test_a_listener_without_valkey_is_told_of_silence() -> None:
    """What is true stands in the database."""
    valkey: Any = SlowValkey()
    valkey.away = True
    valkey.may_answer.set()
    events = Events(valkey)
    async with asyncio.timeout(30):
        assert await anext(events.follow(uuid4(), "t")) is None
    await events.settled()


async def test_a_read_that_never_ends_is_silence_after_all() -> None:
    """What is true stands in the database; the client that follows hears that it is still there."""
    valkey: Any = SlowValkey()
    events = Events(valkey)
    async with asyncio.timeout(30):
        assert await anext(events.follow(uuid4(), "t")) is None
    valkey.may_answer.set()
    await events.settled()


async def test_who_comes_while_the_last_reader_ends_is_read_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader before waits for a read without an answer, and gives it up; not the reads of the next one."""
    monkeypatch.setattr(events_module, "_ANSWER_S", 0.3)
    monkeypatch.setattr(stream_reader, "_RETRY_S", 0.01)
    valkey: Any = SlowValkey()
    events = Events(valkey)
    before = events.follow(uuid4(), "before")
    assert await anext(before) is None
    await before.aclose()
    async with asyncio.timeout(30):
        while events._reader._task is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    # Its read has failed, and is waited for a last time.
    after = events.follow(uuid4(), "after")
    assert await anext(after) is None
    await asyncio.sleep(0.5)  # the last time is over
    valkey.may_answer.set()
    async with asyncio.timeout(30):
        while await anext(after) is None:
            pass
    await events.settled()
