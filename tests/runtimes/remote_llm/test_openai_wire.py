"""Server-sent events as providers cut them, and answers that are none."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from neuroedge.runtimes.remote_llm import openai_wire
from neuroedge.runtimes.remote_llm.openai_wire import RefusedError, chunks

pytestmark = pytest.mark.anyio


class Cut(httpx2.AsyncByteStream):
    """A body in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.pieces:
            yield self.pieces.pop(0)

    async def aclose(self) -> None:
        """Noted."""
        self.closed = True


async def read(*pieces: bytes) -> list[dict[str, object]]:
    """All chunks of a body."""
    body = Cut(*pieces)
    found = [chunk async for chunk in chunks(httpx2.Response(200, stream=body))]
    assert body.closed
    return found


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"a": 1}\n\ndata: {"b": "\xc3\xa4\xe2\x80\xa8"}\n\ndata: [DONE]\n\n',
        b'data:{"a":1}\r\n\r\ndata:{"b":"\xc3\xa4\xe2\x80\xa8"}\r\n\r\ndata:[DONE]\r\n\r\n',
        b': hello\n\nevent: x\nid: 7\ndata: {"a":\ndata: 1}\nretry: 1\n\ndata: {"b": "\xc3\xa4\xe2\x80\xa8"}\n\n',
    ],
    ids=["lines", "crlf", "comments, fields and data in two lines"],
)
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_events_are_read_however_they_are_cut(body: bytes, size: int) -> None:
    """In the middle of a line, of its end and of a character; a line separator within a text ends no line."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert await read(*pieces) == [{"a": 1}, {"b": "ä\u2028"}]


async def test_what_follows_the_end_is_read_and_passed_over() -> None:
    """So that the connection can be used again."""
    body = Cut(b"data: [DONE]\n\n", b'data: {"late": 1}\n\n', b"more")
    assert [chunk async for chunk in chunks(httpx2.Response(200, stream=body))] == []
    assert body.pieces == []


async def test_an_event_that_is_cut_off_is_none() -> None:
    """Half a chunk would be taken for a whole one."""
    assert await read(b'data: {"a": 1}\n\ndata: {"b": 2}') == [{"a": 1}]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'data: {"error": {"message": "no", "code": "rate_limit_exceeded"}}\n\n', RefusedError),
        (b"data: nonsense\n\n", ValueError),
        (b"data: [1]\n\n", TypeError),
        (b"data: \xff\xfe\n\n", ValueError),
    ],
)
async def test_what_is_no_chunk_is_an_error_and_closes_the_answer(body: bytes, error: type[Exception]) -> None:
    """The error's own words are kept for errors.py."""
    stream = Cut(body)
    with pytest.raises(error):
        [chunk async for chunk in chunks(httpx2.Response(200, stream=stream))]
    assert stream.closed


async def test_an_event_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it fills the memory."""
    monkeypatch.setattr(openai_wire, "_MOST_EVENT_BYTES", 1000)
    with pytest.raises(ValueError, match="without an end"):
        await read(*[b"data: " + b"x" * 100] * 20)
