"""Streamed answers on their way to the socket: what is told when, whatever the model's side still does."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from structlog.testing import capture_logs

from neuroedge.contract.chat import ChatDelta
from neuroedge.contract.errors import NeuroEdgeError, Unavailable
from neuroedge.http.chat_answer import Answer, EventStream
from neuroedge.http.openai.chat_completions import Completion

pytestmark = pytest.mark.anyio
LAST = ChatDelta(finish_reason="stop", prompt_tokens=1, completion_tokens=2)


class Socket:
    """A client that reads everything and stays."""

    def __init__(self) -> None:
        self.body = b""
        self.closed = False
        self.told_whole = asyncio.Event()

    async def receive(self) -> Any:
        """Nothing more comes from it."""
        await asyncio.Event().wait()

    async def send(self, message: Any) -> None:
        """Keep what is sent."""
        assert not self.closed
        self.body += message.get("body", b"")
        if b"[DONE]" in self.body:
            self.told_whole.set()
        self.closed = message["type"] == "http.response.body" and not message["more_body"]


async def _ended() -> None:
    pass


def _stream(first: ChatDelta, deltas: AsyncGenerator[ChatDelta, None]) -> EventStream:
    return EventStream(
        first, deltas, answer=Answer("m"), voice=Completion(include_usage=True), headers={}, ended=_ended
    )


async def test_the_end_of_an_answer_does_not_wait_for_the_ledger() -> None:
    """The last event is there while the call is still being written down; the body ends after that."""
    written = asyncio.Event()

    async def deltas() -> AsyncGenerator[ChatDelta, None]:
        yield LAST
        await written.wait()

    socket = Socket()
    answering = asyncio.create_task(
        _stream(ChatDelta(text="hello", model="up/a"), deltas())({}, socket.receive, socket.send)
    )
    async with asyncio.timeout(60):
        await socket.told_whole.wait()
    assert not socket.closed
    written.set()
    await answering
    assert socket.closed
    assert socket.body.count(b"[DONE]") == 1
    assert b'"finish_reason":"stop"' in socket.body
    assert b'"completion_tokens":2' in socket.body


async def test_an_answer_of_one_piece_is_told_whole() -> None:
    """The first piece may be the last."""

    async def none() -> AsyncGenerator[ChatDelta, None]:
        return
        yield

    socket = Socket()
    await _stream(ChatDelta(text="hello", finish_reason="length"), none())({}, socket.receive, socket.send)
    assert socket.closed
    told = socket.body.decode()
    assert told.index('"role"') < told.index("hello") < told.index('"finish_reason":"length"') < told.index("[DONE]")


@pytest.mark.parametrize("error", [Unavailable("the ledger is away"), RuntimeError("a defect")])
async def test_what_fails_after_the_end_is_logged_and_not_told(error: Exception) -> None:
    """The client has its whole answer: an error after [DONE] would be none of its business."""

    async def deltas() -> AsyncGenerator[ChatDelta, None]:
        yield LAST
        raise error

    socket = Socket()
    with capture_logs() as logged:
        await _stream(ChatDelta(text="hello"), deltas())({}, socket.receive, socket.send)
    assert socket.closed
    assert socket.body.endswith(b"data: [DONE]\n\n")
    assert [entry["event"] for entry in logged] == [
        "stream_broken" if isinstance(error, NeuroEdgeError) else "stream_crashed"
    ]


async def test_an_answer_that_breaks_off_says_so() -> None:
    """What fails before the last piece is the last event, and there is no [DONE]."""

    async def deltas() -> AsyncGenerator[ChatDelta, None]:
        yield ChatDelta(text=" world")
        raise Unavailable("the provider is gone")

    socket = Socket()
    await _stream(ChatDelta(text="hello"), deltas())({}, socket.receive, socket.send)
    assert socket.closed
    assert b"the provider is gone" in socket.body
    assert b"[DONE]" not in socket.body
