"""Clients are shared by address and key, bounded in number, and limited in what they read."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from neuroedge.runtimes.remote_llm import limited
from neuroedge.runtimes.remote_llm.connections import Address, Connections

pytestmark = pytest.mark.anyio


def address(key: str) -> Address:
    """A provider nobody asks."""
    return Address(wire="openai", base_url="http://127.0.0.1:9/v1", api_key=key)


async def test_one_client_for_each_address_and_key() -> None:
    """Also when two ask at once; different keys never share a connection."""
    connections = Connections()

    async def client(key: str) -> object:
        async with connections.client(address(key)) as client:
            await asyncio.sleep(0)
            return client.sdk

    first, second, other = await asyncio.gather(client("a"), client("a"), client("b"))
    assert first is second
    assert first is not other
    assert await client("a") is first
    await connections.close()


async def test_clients_nobody_uses_are_closed_beyond_the_limit() -> None:
    """The longest unused first; those in use stay."""
    connections = Connections(most=1)
    async with connections.client(address("a")) as a:
        async with connections.client(address("b")) as b:
            pass
        assert b.sdk.is_closed()
        assert not a.sdk.is_closed()
    async with connections.client(address("c")):
        pass
    assert a.sdk.is_closed()
    await connections.close()


def test_keys_are_not_shown() -> None:
    """An address may end up in a log line."""
    assert "sk-x" not in repr(address("sk-x"))


class Bytes(httpx2.AsyncByteStream):
    """Ten pieces of a kilobyte."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 1024


async def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it fills the memory."""
    monkeypatch.setattr(limited, "MOST_ANSWER_BYTES", 5000)
    response = httpx2.Response(200, stream=Bytes())
    await limited.limit(response)
    with pytest.raises(limited.Unreadable):
        await response.aread()


async def test_a_compressed_answer_is_not_unpacked() -> None:
    """A small answer could become a huge one."""
    with pytest.raises(limited.Unreadable):
        await limited.limit(httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=Bytes()))
