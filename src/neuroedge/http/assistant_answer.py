"""The assistant's turns over HTTP: whole, or as server-sent events, in the words of whoever asks."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse

from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.http.auth import platform_of
from neuroedge.http.budget_header import tell_budget
from neuroedge.http.chat_schemas import MessageOut
from neuroedge.http.departure import unless_client_leaves
from neuroedge.http.problems import Problem, of_error
from neuroedge.services.chat.asking import Asked
from neuroedge.services.chat.state import Event
from neuroedge.stores.chat_messages import Message

_PING_S: Final = 15
_UNREAD_S: Final = 60
"""A client that takes nothing for so long is given up."""
Say = Callable[[Event], list[ServerSentEvent]]
"""The server-sent events of an event, none for one that the protocol does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """How a turn ended well."""

    message: Message
    answered: bool
    reason: str | None
    intent: str | None


async def whole(request: Request, asked: Asked) -> Answered:
    """The answer; the turn is cancelled when the client leaves. Raises what the turn failed with."""

    async def heard() -> Answered:
        async with aclosing(platform_of(request).assistant.events(asked)) as events:
            async for event in events:
                if event.name == "error":
                    raise event.data["error"]
                if event.name == "done":
                    return Answered(**{"answered": True, "reason": None, "intent": None, **event.data})
        raise NeuroEdgeError("the turn ended without an answer")

    answered = await unless_client_leaves(request, heard())
    await tell_budget(request, asked.principal)
    return answered


async def streamed(request: Request, asked: Asked, say: Say, *, headers: Mapping[str, str]) -> EventSourceResponse:
    """The events as they come; closing the connection cancels the turn."""
    events = platform_of(request).assistant.events(asked)
    await tell_budget(request, asked.principal)
    return EventSourceResponse(
        _said(events, say),
        ping=_PING_S,
        send_timeout=_UNREAD_S,
        headers={**headers, "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"},
    )


async def _said(events: AsyncGenerator[Event, None], say: Say) -> AsyncIterator[ServerSentEvent]:
    async with aclosing(events):
        async for event in events:
            for told in say(event):
                yield told


def canonical(request_id: str) -> Say:
    """Events as the canonical API says them."""

    def say(event: Event) -> list[ServerSentEvent]:
        return [ServerSentEvent(event=event.name, data=json.dumps(_data(event, request_id), ensure_ascii=False))]

    return say


def _data(event: Event, request_id: str) -> dict[str, Any]:
    data = dict(event.data)
    if isinstance(data.get("message"), Message):
        data["message"] = MessageOut.of(data["message"]).model_dump(mode="json")
    if event.name == "error":
        data["error"] = problem_of(request_id, data["error"])
    return data


def problem_of(request_id: str, error: NeuroEdgeError) -> dict[str, Any]:
    """An error as the canonical API shows it."""
    return Problem.model_validate_json(bytes(of_error(request_id, error).body)).model_dump(exclude_none=True)
