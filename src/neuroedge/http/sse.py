"""Progress as server-sent events."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Header, Request
from sse_starlette import EventSourceResponse

from neuroedge.services.progress import ProgressEvent

LastEventId = Annotated[str | None, Header(pattern=r"^\d{1,19}-\d{1,19}$")]
_PING_S = 15


def answer(followed: AsyncIterator[ProgressEvent], request: Request) -> EventSourceResponse:
    """The stream; it ends when the server stops, and the client reconnects with its last id."""
    return EventSourceResponse(_stream(followed, request.app.state), ping=_PING_S)


async def _stream(followed: AsyncIterator[ProgressEvent], state: Any) -> AsyncIterator[dict[str, Any]]:
    async for event in followed:
        if getattr(state, "stopping", False):
            return
        if event.name != "ping":
            message: dict[str, Any] = {"event": event.name, "data": json.dumps(event.data)}
            yield {**message, "id": event.id} if event.id else message
