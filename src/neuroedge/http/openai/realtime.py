"""/v1/realtime?intent=transcription as OpenAI's clients know it: live transcription in their events.

Only transcription sessions are served, nothing answers. Sound is pcm16, 24 kHz unless the session says otherwise. The
settings may be changed until the first sound; later changes are refused. A session ends with its connection.
"""

import base64
import binascii
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from neuroedge.contract.errors import Conflict, InvalidInput, NeuroEdgeError, NotFound
from neuroedge.contract.models import SPEECH_TO_TEXT
from neuroedge.contract.principal import Principal
from neuroedge.http.live_connection import LiveConnection, Message, accepted, caller_of, deny, named, parsed
from neuroedge.http.openai.errors import error_body
from neuroedge.http.openai.realtime_schemas import RealtimeInput, updated
from neuroedge.services.live.events import LiveEvent
from neuroedge.services.live.session import LiveSession
from neuroedge.stores.ids import new_id

router = APIRouter(tags=["openai"])
PATH = "/v1/realtime"
_PROTOCOL: Final = "realtime"
_KEY: Final = "openai-insecure-api-key."
_IDLE_S: Final = 300.0


@router.websocket(PATH)
async def realtime(websocket: WebSocket) -> None:
    """A transcription session. Who calls: by the Authorization header; a browser names its key as the subprotocol
    `openai-insecure-api-key.<token>` beside `realtime`, as OpenAI has it.
    """
    offered = websocket.scope.get("subprotocols", [])
    try:
        if websocket.query_params.get("intent") != "transcription":
            raise InvalidInput("only transcription sessions are served", hint="connect with ?intent=transcription")
        key = next((name.removeprefix(_KEY) for name in offered if name.startswith(_KEY)), None)
        principal = await caller_of(websocket, None if named(websocket) else key)
    except NeuroEdgeError as error:
        await deny(websocket, error)
        return
    connection = await accepted(websocket, subprotocol=_PROTOCOL if _PROTOCOL in offered else None)
    await _Realtime(connection, principal).run()


class _Realtime:
    """One connection: first its settings, then its sound."""

    def __init__(self, connection: LiveConnection, principal: Principal) -> None:
        self._connection, self._principal = connection, principal
        self._settings = RealtimeInput()
        self._id = f"sess_{new_id().hex}"
        self._session: LiveSession | None = None
        self._items = _Items(manual=False)
        self._uncommitted = False

    async def run(self) -> None:
        """Until the client leaves, or an error that ends the session."""
        try:
            await self._tell("session.created", session=self._described())
            first = None
            while first is None:
                message = await self._connection.receive(timeout_s=_IDLE_S)
                if self._begins(message):
                    first = message
                else:
                    await self._take(message)
            self._items = _Items(manual=self._settings.turn_detection is None)
            self._session = await self._connection.platform.live.start(
                self._principal, self._settings.live_options(), self._connection.lost
            )
        except NeuroEdgeError as error:
            await self._connection.refuse(error, _event("error", **error_body(error)))
            return
        except WebSocketDisconnect:
            return
        session = self._session
        try:
            with suppress(NeuroEdgeError):  # the session's own events tell it
                await self._take(first)
            await self._connection.serve(session, after=0, written=self._items.written, take=self._take)
        except WebSocketDisconnect:
            pass
        finally:
            session.end("connection_lost")
            self._connection.platform.live.let_go(session, self._connection.lost, told_all=True)

    def _begins(self, message: Message) -> bool:
        try:
            return parsed(message).get("type") == "input_audio_buffer.append"
        except InvalidInput:
            return False

    async def _take(self, message: Message) -> None:
        """One client event; what is wrong with it is told, and the session goes on."""
        event_id = None
        try:
            event = parsed(message)
            given = event.get("event_id")
            event_id = given[:512] if isinstance(given, str) else None
            await self._obey(event)
        except (InvalidInput, NotFound, Conflict) as error:
            if self._session is not None and self._session.reason is not None:
                return
            body = error_body(error)["error"]
            await self._tell("error", error={**body, "event_id": event_id})

    async def _obey(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "session.update" | "transcription_session.update":
                await self._update(event)
            case "input_audio_buffer.append":
                data = _sound(event.get("audio"))
                assert self._session is not None
                self._uncommitted = True
                await self._session.feed(data)
            case "input_audio_buffer.commit":
                await self._commit()
            case "input_audio_buffer.clear":
                self._uncommitted = False
                if self._session is None:
                    await self._tell("input_audio_buffer.cleared")
                else:
                    await self._session.clear(untold=self._settings.turn_detection is None)
            case other:
                raise InvalidInput(f"{str(other)[:80]!r} is no event of a transcription session")

    async def _update(self, event: dict[str, Any]) -> None:
        if self._session is not None:
            raise Conflict("the session has begun", hint="change it before the first sound, or connect again")
        active = self._connection.platform.pool.status(SPEECH_TO_TEXT).id
        self._settings = updated(self._settings, event.get("session"), active_model=active)
        kind = str(event["type"])
        await self._tell(f"{kind}d", session=self._described())

    async def _commit(self) -> None:
        if self._session is None or not self._uncommitted:
            raise InvalidInput("the buffer is empty", hint="append sound before you commit")
        self._uncommitted = False
        await self._session.flush()

    def _described(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "transcription",
            "object": "realtime.transcription_session",
            "audio": {"input": {**self._settings.model_dump(), "noise_reduction": None}},
        }

    async def _tell(self, type_: str, **data: Any) -> None:
        await self._connection.send(_event(type_, **data))


class _Items:
    """Puts a live session's events into OpenAI's: an utterance is an item; with `manual`, what a commit ends is one."""

    def __init__(self, *, manual: bool) -> None:
        self._manual = manual
        self._ids: dict[int, str] = {}
        self._committed: set[str] = set()
        self._previous: str | None = None
        self._said: dict[str, str] = {}
        """Of each item that goes on, what deltas have told so far."""
        self._finals: list[str] = []
        self._seconds = 0.0

    def written(self, event: LiveEvent) -> Iterator[dict[str, Any]]:
        """The events that tell a client the same."""
        data = event.data
        match event.type:
            case "speech_started" if not self._manual:
                at_ms = round(data["at_s"] * 1000)
                yield _event(
                    "input_audio_buffer.speech_started", audio_start_ms=at_ms, item_id=self._item(data["utterance"])
                )
            case "speech_stopped" if not self._manual:
                at_ms, item = round(data["at_s"] * 1000), self._item(data["utterance"])
                yield _event("input_audio_buffer.speech_stopped", audio_end_ms=at_ms, item_id=item)
                yield from self._commit(item)
            case "partial":
                yield from self._delta(self._item(data["utterance"]), data["stable"])
            case "final":
                yield from self._final(data)
            case "flushed" if self._manual:
                item = self._item(0)
                yield from self._commit(item)
                yield self._completed(item, " ".join(self._finals), self._seconds)
                self._forget(0)
            case "cleared":
                self._forget(0 if self._manual else data["utterance"])
                yield _event("input_audio_buffer.cleared")
            case "error" if "utterance" in data and not data["fatal"]:
                error = {"type": "server_error", "code": data["code"], "message": data["detail"], "param": None}
                yield _event(
                    "conversation.item.input_audio_transcription.failed",
                    item_id=self._item(data["utterance"]),
                    content_index=0,
                    error=error,
                )
            case "error":
                kind = "server_error" if data["status"] >= 500 else "invalid_request_error"
                error = {"type": kind, "code": data["code"], "message": data["detail"], "param": None}
                yield _event("error", error={**error, "event_id": None})

    def _item(self, utterance: int) -> str:
        return self._ids.setdefault(0 if self._manual else utterance, f"item_{new_id().hex}")

    def _forget(self, utterance: int | None) -> None:
        if utterance is not None and (item := self._ids.pop(utterance, None)) is not None:
            self._said.pop(item, None)
        self._finals.clear()
        self._seconds = 0.0

    def _commit(self, item: str) -> Iterator[dict[str, Any]]:
        if item not in self._committed:
            yield _event("input_audio_buffer.committed", item_id=item, previous_item_id=self._previous)
            self._committed.add(item)
            self._previous = item

    def _delta(self, item: str, text: str) -> Iterator[dict[str, Any]]:
        """What `text` has more than was told."""
        whole = " ".join([*self._finals, text]) if self._manual else text
        said = self._said.get(item, "")
        if not whole.startswith(said):
            return  # corrected at the end: the transcript has it right, a delta can only add
        self._said[item] = whole
        if more := whole[len(said) :]:
            yield _event("conversation.item.input_audio_transcription.delta", item_id=item, content_index=0, delta=more)

    def _final(self, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        item, text, seconds = self._item(data["utterance"]), data["text"], data["end_s"] - data["start_s"]
        if self._manual:
            if text:
                yield from self._delta(item, text)
                self._finals.append(text)
            self._seconds += seconds
            return
        yield from self._commit(item)  # one that was too long and was cut has not stopped
        yield from self._delta(item, text)
        yield self._completed(item, text, seconds)
        self._forget(data["utterance"])

    def _completed(self, item: str, text: str, seconds: float) -> dict[str, Any]:
        self._committed.discard(item)
        return _event(
            "conversation.item.input_audio_transcription.completed",
            item_id=item,
            content_index=0,
            transcript=text,
            usage={"type": "duration", "seconds": round(max(0.0, seconds), 3)},
        )


def _event(type_: str, **data: Any) -> dict[str, Any]:
    return {"type": type_, "event_id": f"event_{new_id().hex}", **data}


def _sound(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidInput("audio is not valid base64", hint="send pcm16 samples in base64") from error
