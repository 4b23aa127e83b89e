"""The listener over a connection that dies without a word."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import valkey.asyncio

from neuroedge.infra import datadir
from neuroedge.infra.accelerator.listener import Listener
from neuroedge.infra.embedded import EmbeddedServers
from neuroedge.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An embedded Valkey."""
    root: Path = tmp_path_factory.mktemp("listener")
    servers = EmbeddedServers(root, datadir.prepare(Settings(data_dir=root)), postgres=False, valkey=True)
    yield str(servers.start().valkey)
    servers.stop()


class Wire:
    """Forwards connections to Valkey; a cut one stays open and carries nothing, as when the network is gone."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._pumps: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection."""
        there_reader, there_writer = await asyncio.open_unix_connection(self._target)
        self._writers += [writer, there_writer]
        self._pumps += [
            asyncio.create_task(_pump(reader, there_writer)),
            asyncio.create_task(_pump(there_reader, writer)),
        ]

    def cut(self) -> None:
        """Carry nothing more on the connections there are."""
        for pump in self._pumps:
            pump.cancel()

    def close(self) -> None:
        """Close everything."""
        self.cut()
        for writer in self._writers:
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


@pytest.fixture
async def wire(address: str, tmp_path: Path) -> AsyncIterator[tuple[Wire, str]]:
    """A wire to the Valkey, and its address."""
    wire, path = Wire(address.removeprefix("unix://").split("?")[0]), str(tmp_path / "wire.sock")
    server = await asyncio.start_unix_server(wire.accept, path)
    yield wire, f"unix://{path}"
    server.close()
    wire.close()


async def test_a_connection_that_carries_nothing_is_replaced(address: str, wire: tuple[Wire, str]) -> None:
    """Silence alone is no reason: an idle connection answers; a dead one is dropped, and messages are heard again."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    connections: asyncio.Queue[None] = asyncio.Queue()
    cable, there = wire
    async with valkey.asyncio.Valkey.from_url(there) as client, valkey.asyncio.Valkey.from_url(address) as sender:
        listener = Listener(
            client,
            ["a", "b"],
            heard=lambda _, body: heard.put_nowait(body),
            connected=lambda: connections.put_nowait(None),
            silence_s=0.2,
        )
        running = asyncio.create_task(listener.run())
        async with asyncio.timeout(60):
            await connections.get()
            await asyncio.sleep(1)
            time.sleep(1)  # noqa: ASYNC251 - the process stands still, which says nothing of the connection
            await asyncio.sleep(1)
            assert connections.empty()
            cable.cut()
            await connections.get()
            await sender.publish("b", "hello")
            assert await heard.get() == b"hello"
        listener.stop()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
