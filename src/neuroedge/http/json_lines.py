"""Answers of any length, a JSON object a line (application/x-ndjson), written as they come."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class JsonLines(StreamingResponse):
    """Streams lines, and ends their source when the client leaves before the last one."""

    media_type = "application/x-ndjson"

    def __init__(self, first: list[bytes], lines: AsyncGenerator[bytes, None]) -> None:
        super().__init__(_all(first, lines))
        self._lines = lines

    @classmethod
    async def of(cls, lines: AsyncGenerator[bytes, None]) -> "JsonLines":
        """The first line is made at once: what that raises is still an answer with a status of its own."""
        try:
            first = [await anext(lines)]
        except StopAsyncIteration:
            first = []
        return cls(first, lines)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        async with aclosing(self._lines):
            await super().__call__(scope, receive, send)


async def _all(first: list[bytes], lines: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    for line in first:
        yield line
    async for line in lines:
        yield line
