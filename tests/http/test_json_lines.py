"""Streamed JSON lines: an early error has its status, and a client that leaves ends the source."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from neuroedge.contract.errors import InvalidInput
from neuroedge.http.json_lines import JsonLines

pytestmark = pytest.mark.anyio
SCOPE: dict[str, Any] = {"type": "http", "asgi": {"spec_version": "2.4"}}


class Source:
    """Lines, and whether they were ended."""

    def __init__(self, lines: int) -> None:
        self.made = 0
        self.ended = False
        self._lines = lines

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The lines."""
        try:
            for n in range(self._lines):
                self.made += 1
                yield b"%d\n" % n
        finally:
            self.ended = True


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


@pytest.mark.parametrize("lines", [0, 1, 3])
async def test_all_lines_arrive_in_order(lines: int) -> None:
    """Also none."""
    source, sent = Source(lines), bytearray()

    async def send(message: Any) -> None:
        sent.extend(message.get("body", b""))

    await (await JsonLines.of(source.stream()))(SCOPE, _receive, send)
    assert bytes(sent) == b"".join(b"%d\n" % n for n in range(lines))
    assert source.ended


async def test_a_client_that_leaves_ends_the_source() -> None:
    """Nothing goes on for nobody."""
    source = Source(1000)

    async def send(message: Any) -> None:
        if message.get("body"):
            raise OSError("gone")

    with pytest.raises(ClientDisconnect):
        await (await JsonLines.of(source.stream()))(SCOPE, _receive, send)
    assert source.ended
    assert source.made < 10


async def test_an_error_before_the_first_line_is_raised_at_once() -> None:
    """Before any status was sent."""

    async def broken() -> AsyncGenerator[bytes, None]:
        raise InvalidInput("bad")
        yield b""

    with pytest.raises(InvalidInput):
        await JsonLines.of(broken())
