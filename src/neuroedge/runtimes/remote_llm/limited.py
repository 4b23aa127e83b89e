"""A limit on what a provider can make this process read; imports the SDKs' HTTP library, so it is imported late."""

from collections.abc import AsyncIterator
from typing import Final

import httpx2

MOST_ANSWER_BYTES: Final = 64 * 1024 * 1024


class Unreadable(Exception):
    """An answer that is not read any further."""


async def limit(response: httpx2.Response) -> None:
    """An event hook: neither an endless answer nor a compressed one fills the memory. Raises Unreadable."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Unreadable("the answer is compressed although it was not to be")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Limited(response.stream)


class _Limited(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > MOST_ANSWER_BYTES:
                raise Unreadable(f"the answer is longer than {MOST_ANSWER_BYTES} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
