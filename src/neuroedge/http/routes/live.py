"""Live transcription over a WebSocket; docs/live.md shows its use."""

import time
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from neuroedge.contract.errors import InvalidInput, NeuroEdgeError
from neuroedge.http.live_connection import (
    FIRST_MESSAGE_S,
    LiveConnection,
    Message,
    accepted,
    caller_of,
    deny,
    named,
    parsed,
)
from neuroedge.services.live import reports
from neuroedge.services.live.events import LiveEvent
from neuroedge.services.live.options import MAX_MESSAGE_BYTES, LiveOptions
from neuroedge.services.live.session import LiveSession

router = APIRouter(tags=["live"])
PATH = "/v1/audio/stream"
_ACK_EVERY_S = 1.0


class StartLive(LiveOptions):
    """First message of a new session."""

    type: Literal["start"]
    token: SecretStr | None = Field(
        default=None, max_length=8192, description="Access token or API key, where no header can be sent."
    )


class ResumeLive(BaseModel):
    """First message of a connection that goes on with a session."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["resume"]
    session_id: UUID = Field(description="Of the event session.")
    last_event: int = Field(default=0, ge=0, description="Number `n` of the last event that arrived.")
    token: SecretStr | None = Field(default=None, max_length=8192, description="As in start.")


class LiveCommand(BaseModel):
    """A later text message."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["stop", "flush", "clear"] = Field(
        description="stop: no more sound comes; end when all is told. flush: take what was said so far for finished. "
        "clear: forget the utterance that goes on."
    )


_FIRST: TypeAdapter[StartLive | ResumeLive] = TypeAdapter(
    Annotated[StartLive | ResumeLive, Field(discriminator="type")]
)
_COMMAND: TypeAdapter[LiveCommand] = TypeAdapter(LiveCommand)


@router.websocket(PATH)
async def stream(websocket: WebSocket) -> None:
    """Transcribe speech while it is spoken.

    Who calls: by `Authorization: Bearer …` (or x-api-key) in the handshake, which is refused with 401 when the token is
    not valid. A browser cannot send such headers; it gives the token as `token` of its first message, within 10 s. The
    token is never taken from the URL, which ends up in logs.

    The first message is `start` (StartLive) or `resume` (ResumeLive); then sound in binary messages of at most 1 MiB,
    and commands (LiveCommand). The server answers with JSON: session, speech_started, partial, speech_stopped, final,
    flushed, cleared, ack, error, closed. Close codes: 1000 after stop, 1012 when the server stops, 4409 when another
    connection took the session over, else 4000 + the status of the error.
    """
    principal = None
    if named(websocket):
        try:
            principal = await caller_of(websocket)
        except NeuroEdgeError as error:
            await deny(websocket, error)
            return
    connection = await accepted(websocket)
    try:
        first = _validated(_FIRST, parsed(await connection.receive(timeout_s=FIRST_MESSAGE_S)))
        if principal is None:
            token = first.token.get_secret_value() if first.token is not None else None
            principal = await caller_of(websocket, token)
        live = connection.platform.live
        if isinstance(first, ResumeLive):
            session, after = await live.resume(principal, first.session_id, connection.lost), first.last_event
        else:
            options = LiveOptions(**first.model_dump(exclude={"type", "token"}))
            session, after = await live.start(principal, options, connection.lost), 0
    except NeuroEdgeError as error:
        await connection.refuse(error, {"type": "error", "fatal": True, **reports.problem(error)})
        return
    except WebSocketDisconnect:
        return
    try:
        await connection.send(_greeting(connection, session, after, resumed=isinstance(first, ResumeLive)))
    except WebSocketDisconnect:
        live.let_go(session, connection.lost)
        return
    await connection.serve(session, after=after, written=_written, take=_Taking(connection, session))


class _Taking:
    """Handles what the client sends, and tells it about once a second how much has arrived."""

    def __init__(self, connection: LiveConnection, session: LiveSession) -> None:
        self._connection, self._session = connection, session
        self._told_at = time.monotonic()

    async def __call__(self, message: Message) -> None:
        session = self._session
        if isinstance(message, bytes):
            await session.feed(message)
            if time.monotonic() - self._told_at >= _ACK_EVERY_S:
                self._told_at = time.monotonic()
                await self._connection.send({"type": "ack", **_received(session)})
            return
        try:
            command = _validated(_COMMAND, parsed(message)).type
        except InvalidInput as error:
            await self._connection.send({"type": "error", "fatal": False, **reports.problem(error)})
            return
        match command:
            case "stop":
                await session.finish()
            case "flush":
                await session.flush()
            case "clear":
                await session.clear()


def _written(event: LiveEvent) -> list[dict[str, Any]]:
    return [{"type": event.type, "n": event.number, **event.data}]


def _received(session: LiveSession) -> dict[str, Any]:
    return {"received_bytes": session.received_bytes, "audio_s": round(session.audio_s, 3)}


def _greeting(connection: LiveConnection, session: LiveSession, after: int, *, resumed: bool) -> dict[str, Any]:
    limits = connection.platform.live.limits
    return {
        "type": "session",
        "session_id": str(session.id),
        "resumed": resumed,
        "events_lost": session.events.lost_until > after,
        "model": session.recogniser.model_id,
        **_received(session),
        "limits": {
            "max_audio_s": limits.max_audio_s,
            "max_message_bytes": MAX_MESSAGE_BYTES,
            "resume_s": limits.resume_s,
            "idle_s": limits.idle_s,
        },
    }


def _validated(kind: TypeAdapter[Any], value: dict[str, Any]) -> Any:
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        raise InvalidInput(
            "the message is not what this route takes",
            hint="docs/live.md shows the messages",
            errors=error.errors(include_url=False, include_input=False, include_context=False),
        ) from error
