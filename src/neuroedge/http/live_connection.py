"""A WebSocket over a live session: events out, sound and commands in; whichever protocol they are written in."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from fastapi import WebSocket, WebSocketDisconnect
from pydantic_core import from_json, to_json

from neuroedge.contract.errors import DeadlineExceeded, InvalidInput, NeuroEdgeError
from neuroedge.contract.principal import Principal
from neuroedge.http.auth import platform_of, request_id_of, socket_caller
from neuroedge.http.problems import of_error
from neuroedge.services.live.events import LiveEvent
from neuroedge.services.live.session import LiveSession

FIRST_MESSAGE_S: Final = 10.0
_SEND_S: Final = 30.0
"""A client that reads nothing for so long is taken for gone; its session waits for it to come back."""
_WHY_GONE_S: Final = 1.0
"""How long the close code of a connection that is gone may take to be read."""
_CODES: Final = {"stopped": 1000, "shutdown": 1012, "connection_lost": 1001}
_LEFT: Final = (1000, 1001)
"""Who closes like this does not come back."""
_OWN_CODES: Final = 4000
"""Close codes of errors: this and the status HTTP would have (RFC 6455, 7.4.2 leaves them to applications)."""
_TAKEN_OVER: Final = 4409

Message = str | bytes


class LiveConnection:
    """One accepted WebSocket."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self.platform = platform_of(websocket)
        self.lost = asyncio.Event()
        """Set when another connection takes the session over."""

    async def send(self, message: dict[str, Any]) -> None:
        """One JSON message. Raises WebSocketDisconnect when the client is gone or reads nothing any more."""
        try:
            async with asyncio.timeout(_SEND_S):
                await self._websocket.send_text(to_json(message).decode())
        except (TimeoutError, RuntimeError) as error:
            raise WebSocketDisconnect(1006) from error

    async def receive(self, *, timeout_s: float) -> Message:
        """The next message. Raises WebSocketDisconnect, and DeadlineExceeded when none comes."""
        try:
            async with asyncio.timeout(timeout_s):
                message = await self._websocket.receive()
        except TimeoutError as error:
            raise DeadlineExceeded(f"nothing came for {timeout_s:g} s", hint="send sound, or stop") from error
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1005)
        data, text = message.get("bytes"), message.get("text")
        return data if data is not None else str(text or "")

    async def close(self, code: int) -> None:
        """Close it, if it is still open."""
        with suppress(RuntimeError, WebSocketDisconnect):
            await self._websocket.close(code)

    async def refuse(self, error: NeuroEdgeError, message: dict[str, Any]) -> None:
        """Tell an error that ends the connection."""
        with suppress(WebSocketDisconnect):
            await self.send(message)
        await self.close(_OWN_CODES + error.status)

    async def serve(
        self,
        session: LiveSession,
        *,
        after: int,
        written: Callable[[LiveEvent], Iterable[dict[str, Any]]],
        take: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Pass events on and messages in until the session ends, the client leaves or another connection takes over.

        `written` puts an event into the protocol's words; `take` handles a message and raises what is the client's
        fault only where the session cannot go on.
        """
        live = self.platform.live
        telling = asyncio.create_task(self._tell(session, after, written))
        hearing = asyncio.create_task(self._hear(session, take))
        taken = asyncio.create_task(self.lost.wait())
        try:
            await asyncio.wait([telling, hearing, taken], return_when=asyncio.FIRST_COMPLETED)
            if hearing.done() and session.reason is not None:
                await asyncio.wait([telling])  # what ended it is still to be told
        finally:
            for task in (telling, hearing, taken):
                task.cancel()
            results = await asyncio.gather(telling, hearing, taken, return_exceptions=True)
            if await self._close_code(results[0], results[1]) in _LEFT and live.held(session, self.lost):
                session.end(session.ending or "left")
            live.let_go(session, self.lost, told_all=results[0] is None)
        if self.lost.is_set():
            await self.close(_TAKEN_OVER)
        elif session.reason is not None:
            await self.close(_OWN_CODES + session.status if session.status else _CODES.get(session.reason, 1000))
        for result in results[:2]:
            if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
                raise result

    async def _close_code(self, telling: object, hearing: object) -> int | None:
        """How the client closed the connection, by how the two tasks ended; None when it is open, or nobody knows."""
        if isinstance(hearing, WebSocketDisconnect):
            return hearing.code
        if not isinstance(telling, WebSocketDisconnect):
            return None
        # A text found it gone; why it is gone waits behind what was sent before, which nobody takes any more.
        with suppress(TimeoutError, DeadlineExceeded, RuntimeError):
            async with asyncio.timeout(_WHY_GONE_S):
                try:
                    while True:
                        await self.receive(timeout_s=_WHY_GONE_S)
                except WebSocketDisconnect as gone:
                    return gone.code
        return None

    async def _tell(
        self, session: LiveSession, after: int, written: Callable[[LiveEvent], Iterable[dict[str, Any]]]
    ) -> None:
        while True:
            for event in await session.events.wait(after):
                after = event.number
                for message in written(event):
                    await self.send(message)
                if event.type == "closed":
                    return

    async def _hear(self, session: LiveSession, take: Callable[[Message], Awaitable[None]]) -> None:
        live = self.platform.live
        while session.reason is None and live.held(session, self.lost):
            try:
                message = await self.receive(timeout_s=live.limits.idle_s)
                if live.held(session, self.lost):
                    await take(message)
            except NeuroEdgeError as error:
                session.fail(error)


async def accepted(websocket: WebSocket, *, subprotocol: str | None = None) -> LiveConnection:
    """The connection, open."""
    await websocket.accept(subprotocol=subprotocol)
    return LiveConnection(websocket)


async def deny(websocket: WebSocket, error: NeuroEdgeError) -> None:
    """Answer the handshake with the error, as any request."""
    await websocket.send_denial_response(of_error(request_id_of(websocket), error))


def named(websocket: WebSocket) -> bool:
    """Whether the handshake's headers name a caller, rightly or not."""
    return "principal" in websocket.scope or "caller_error" in websocket.scope


async def caller_of(websocket: WebSocket, token: str | None = None) -> Principal:
    """Who opened the connection; see http/auth.py."""
    return await socket_caller(websocket, token)


def parsed(text: Message) -> dict[str, Any]:
    """A JSON object. Raises InvalidInput."""
    try:
        value = from_json(text)
    except ValueError as error:
        raise InvalidInput("the message is no JSON", hint="send one JSON object a text message") from error
    if not isinstance(value, dict):
        raise InvalidInput("the message is no JSON object", hint='send {"type": …}')
    return value
