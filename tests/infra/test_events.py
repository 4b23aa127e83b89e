"""Progress events over Valkey streams."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import valkey.asyncio

from neuroedge.contract.errors import Unavailable
from neuroedge.infra import datadir
from neuroedge.infra.embedded import EmbeddedServers
from neuroedge.infra.events import Events
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
async def events(address: str) -> AsyncIterator[Events]:
    """The events port over it."""
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
    seen = []
    async for event in events.follow(org, "t"):
        if event is None:
            break
        seen.append(event)
    assert [event.data["n"] for event in seen] == [0, 1, 2]
    async for event in events.follow(org, "t", after=seen[1].id):
        assert event is not None
        assert event.data["n"] == 2
        break


async def test_topics_and_tenants_are_apart(events: Events) -> None:
    """Another organisation's topic of the same name is another topic."""
    first, second = uuid4(), uuid4()
    await events.publish(first, "t", "n", {})
    async for event in events.follow(second, "t"):
        assert event is None
        break


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
                await asyncio.wait([task], timeout=2)
                assert task.cancelled()


async def test_without_valkey_publishing_is_lost_quietly_and_following_is_unavailable() -> None:
    """The work goes on; a listener gets a 503."""
    client = valkey.asyncio.Valkey(port=1)
    events = Events(client)
    await events.publish(uuid4(), "t", "n", {})
    with pytest.raises(Unavailable):
        await events.ping()
    with pytest.raises(Unavailable):
        async for _ in events.follow(uuid4(), "t"):
            pass
    await client.aclose()
