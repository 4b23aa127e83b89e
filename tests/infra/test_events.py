"""Progress events over Valkey streams."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import valkey.asyncio
import valkey.exceptions

from neuroedge.contract.errors import Unavailable
from neuroedge.infra import datadir
from neuroedge.infra import events as events_module
from neuroedge.infra.embedded import EmbeddedServers
from neuroedge.infra.events import Event, Events
from neuroedge.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An embedded Valkey."""
    root: Path = tmp_path_factory.mktemp("events")
    servers = EmbeddedServers(root, datadir.prepare(Settings(data_dir=root)), postgres=False, valkey=True)
    yield str(servers.start().valkey)
    servers.stop()


@pytest.fixture
async def events(address: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Events]:
    """The events port over it, for which this Valkey never hangs."""
    monkeypatch.setattr(events_module, "_ANSWER_S", 60.0)
    client = valkey.asyncio.Valkey.from_url(address)
    port = Events(client)
    yield port
    await port.settled()
    await client.aclose()


async def test_a_late_listener_sees_everything_and_resumes_by_id(events: Events) -> None:
    """Events keep their order; after an id only the later ones come."""
    org = uuid4()
    for n in range(3):
        await events.publish(org, "t", "n", {"n": n})
    seen: list[Event] = []
    async for event in events.follow(org, "t"):
        if event is not None:
            seen.append(event)
        elif seen:
            break
    assert [event.data["n"] for event in seen] == [0, 1, 2]
    async for event in events.follow(org, "t", after=seen[1].id):
        if event is not None:
            assert event.data["n"] == 2
            break


async def test_topics_and_tenants_are_apart(events: Events) -> None:
    """Another organisation's topic of the same name is another topic."""
    first, second = uuid4(), uuid4()
    await events.publish(first, "t", "n", {})
    async for event in events.follow(second, "t"):
        assert event is None
        break


async def test_many_listeners_share_a_connection_and_each_hears_its_own(events: Events) -> None:
    """At once, whenever they come; a slow one holds up nobody and misses nothing."""
    org, heard = uuid4(), dict[int, list[int]]()

    async def hear(number: int, wait_s: float = 0.0) -> None:
        heard[number] = []
        async for event in events.follow(org, f"t{number % 20}"):
            if event is not None:
                heard[number].append(event.data["n"])
                await asyncio.sleep(wait_s)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(hear(number)) for number in range(100)]
        tasks.append(group.create_task(hear(120, wait_s=0.005)))
        before = await _connections(events)
        for n in range(300):
            await events.publish(org, "t0", "n", {"n": n})
            if n == 150:
                tasks.append(group.create_task(hear(140)))
        await _until(lambda: all(heard[i] == list(range(300)) for i in (0, 20, 80, 120, 140)))
        assert before < 20
        assert heard[1] == []
        for task in tasks:
            task.cancel()


async def _connections(events: Events) -> int:
    return len(await events._client.client_list())


async def test_every_listener_of_a_channel_gets_what_is_broadcast_from_then_on(events: Events) -> None:
    """In order, also what comes between two reads; nothing of before."""
    channel = uuid4().hex
    await events.broadcast(channel, "before", {})
    seen: list[list[int]] = [[], []]

    async def hear(heard: list[int]) -> None:
        async for event in events.listen(channel):
            assert event.name == "n"
            heard.append(event.data["n"])
            await asyncio.sleep(0.01)
            if len(heard) == 30:
                return

    listening = _listening(events)
    listeners = [asyncio.create_task(hear(heard)) for heard in seen]
    await _until(lambda: len(listening) == 2)
    for n in range(30):
        await events.broadcast(channel, "n", {"n": n})
        await asyncio.sleep(0.005 * (n % 3))
    await asyncio.wait_for(asyncio.gather(*listeners), 60)
    assert seen == [list(range(30))] * 2


async def test_a_listener_outlives_an_outage_and_misses_nothing_that_valkey_kept(events: Events) -> None:
    """Reads that fail are tried again from where it was."""
    channel, heard = uuid4().hex, []

    async def hear() -> None:
        async for event in events.listen(channel):
            heard.append(event.data["n"])

    read, away, refused = events._client.xread, asyncio.Event(), 0

    async def xread(*given: Any, **options: Any) -> Any:
        nonlocal refused
        if away.is_set():
            refused += 1
            raise valkey.exceptions.ConnectionError("away")
        return await read(*given, **options)

    events._client.xread = xread  # type: ignore[method-assign]
    listening = _listening(events)
    listener = asyncio.create_task(hear())
    await _until(lambda: bool(listening))
    await events.broadcast(channel, "n", {"n": 1})
    await _until(lambda: heard == [1])
    away.set()
    await _until(lambda: refused > 0)
    await events.broadcast(channel, "n", {"n": 2})
    await _until(lambda: refused > 1)
    assert heard == [1]
    away.clear()
    await _until(lambda: heard == [1, 2])
    listener.cancel()
    await asyncio.wait([listener])


async def test_without_valkey_broadcasts_are_lost_quietly_and_listeners_wait() -> None:
    """The work goes on."""
    client = valkey.asyncio.Valkey(port=1)
    events = Events(client)
    await events.broadcast("c", "n", {})
    listener = asyncio.create_task(anext(events.listen("c")))
    await asyncio.sleep(0.1)
    assert not listener.done()
    listener.cancel()
    await asyncio.wait([listener])
    await client.aclose()


def _listening(events: Events) -> list[str]:
    """Gets an item whenever a listener of a channel has found out from where on it hears everything."""
    found, newest = list[str](), events._newest

    async def noted(key: str) -> str:
        found.append(await newest(key))
        return found[-1]

    events._newest = noted  # type: ignore[method-assign]
    return found


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_cancelling_a_publisher_is_never_swallowed(events: Events) -> None:
    """A cancelled task ends cancelled, whenever the cancellation strikes."""
    org = uuid4()
    for cycles in range(8):
        for _ in range(20):
            task = asyncio.create_task(events.publish(org, "t", "n", {}))
            for _ in range(cycles):
                await asyncio.sleep(0)
            if not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=60)
                assert task.cancelled()


async def test_without_valkey_events_are_lost_quietly_and_a_listener_waits() -> None:
    """The work goes on; a listener hears nothing, and is told so that it can ask the database."""
    client = valkey.asyncio.Valkey(port=1)
    events = Events(client)
    await events.publish(uuid4(), "t", "n", {})
    with pytest.raises(Unavailable):
        await events.ping()
    async for event in events.follow(uuid4(), "t"):
        assert event is None
        break
    await client.aclose()


async def test_a_valkey_that_hangs_costs_the_work_one_wait() -> None:
    """It takes connections and never answers: the first event waits for seconds, those soon after it do not."""

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    client = valkey.asyncio.Valkey(port=server.sockets[0].getsockname()[1], socket_timeout=4)
    events = Events(client)
    async with asyncio.timeout(60):
        await events.publish(uuid4(), "t", "n", {})
    async with asyncio.timeout(60):  # each would wait for 3 s
        for _ in range(100):
            await events.publish(uuid4(), "t", "n", {})
    await events.settled()
    await client.aclose()
    server.close()
    await server.wait_closed()
