"""Progress of a recording: published by its steps, followed by whoever may read it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from neuroedge.contract.errors import NotFound, Overloaded, of_code
from neuroedge.contract.principal import Principal
from neuroedge.infra.events import Events
from neuroedge.stores import recordings
from neuroedge.stores.postgres import Connection, Database
from neuroedge.stores.recordings import Recording

MAX_LISTENERS = 20
"""Streams one user may hold open in one process; each costs a connection to Valkey."""
_CHECK_EVERY = 10
"""Silent seconds after which the row is asked whether the end was missed."""
END = ("done", "failed", "deleted")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingEvent:
    """A progress event; `id` is what a listener resumes after. Name "ping" only keeps the connection alive."""

    id: str | None
    name: str
    data: dict[str, Any]


class RecordingProgress:
    """Publishes to and follows one recording's topic."""

    def __init__(self, *, db: Database, events: Events) -> None:
        self._db = db
        self._events = events
        self._listeners: Counter[UUID] = Counter()

    async def publish(self, principal: Principal, recording_id: UUID, name: str, data: dict[str, Any]) -> None:
        """Tell listeners; losing an event never fails the work."""
        await self._events.publish(principal.org_id, _topic(recording_id), name, data)

    async def forget(self, principal: Principal, recording_id: UUID) -> None:
        """Drop a deleted recording's events, after telling those who listen."""
        await self.publish(principal, recording_id, "deleted", {})
        await self._events.forget(principal.org_id, _topic(recording_id))

    async def follow(
        self, principal: Principal, recording_id: UUID, *, after: str | None = None
    ) -> AsyncIterator[RecordingEvent]:
        """Progress until the end, first what already happened. Raises NotFound, Overloaded before the first event."""
        if self._listeners[principal.user_id] >= MAX_LISTENERS:
            raise Overloaded(f"{MAX_LISTENERS} streams are open already", hint="close some", retry_after_s=5)
        async with self._db.tenant(principal) as conn:
            await require(conn, recording_id)
        return self._follow(principal, recording_id, after or "0")

    async def wait(self, principal: Principal, recording_id: UUID, *, timeout_s: float) -> None:
        """Return once it is processed. Raises its failure as the error it was, TimeoutError, NotFound when deleted."""
        async with asyncio.timeout(timeout_s):
            async for event in await self.follow(principal, recording_id):
                if event.name == "failed":
                    raise of_code(event.data["code"], event.data["detail"], hint=event.data.get("hint"))
                if event.name == "deleted":
                    raise not_found(recording_id)

    async def _follow(self, principal: Principal, recording_id: UUID, after: str) -> AsyncIterator[RecordingEvent]:
        self._listeners[principal.user_id] += 1
        silent = 0
        try:
            async for event in self._events.follow(principal.org_id, _topic(recording_id), after=after):
                # The stream is only a messenger: when it is silent, the row tells whether the end was missed.
                if event is not None:
                    silent = 0
                    passed = RecordingEvent(id=event.id, name=event.name, data=event.data)
                elif (silent := silent + 1) % _CHECK_EVERY == 1:
                    passed = await self._from_row(principal, recording_id)
                else:
                    passed = RecordingEvent(id=None, name="ping", data={})
                yield passed
                if passed.name in END:
                    return
        finally:
            self._listeners[principal.user_id] -= 1
            if self._listeners[principal.user_id] <= 0:
                del self._listeners[principal.user_id]

    async def _from_row(self, principal: Principal, recording_id: UUID) -> RecordingEvent:
        async with self._db.tenant(principal) as conn:
            recording = await recordings.find(conn, recording_id)
        if recording is None:
            return RecordingEvent(id=None, name="deleted", data={})
        if recording.status in END:
            return RecordingEvent(id=None, name=recording.status, data=failure(recording))
        return RecordingEvent(id=None, name="ping", data={})


def failure(recording: Recording) -> dict[str, Any]:
    """The failure of a recording as an event carries it; empty when there is none."""
    if recording.status != "failed":
        return {}
    return {"code": recording.error_code, "detail": recording.error_detail, "hint": recording.error_hint}


def summary(step: str, output: dict[str, Any]) -> dict[str, Any]:
    """The few facts of a finished step that its event carries."""
    match step:
        case "analyse":
            keys = ("duration_s", "loudness_lufs", "snr_db", "speech_s", "codec", "source_rate_hz", "source_channels")
            return {key: output.get(key) for key in keys}
        case "transcribe":
            words = sum(len(segment["words"]) for segment in output["segments"])
            return {"language": output["language"], "words": words, "text": output["text"][:2000]}
        case "diarize":
            return {"num_speakers": output["num_speakers"], "turns": len(output["turns"])}
        case "emotion":
            return {"segments": len(output["segments"])}
        case _:
            return output


async def require(conn: Connection, recording_id: UUID) -> Recording:
    """The recording of the transaction's organisation. Raises NotFound."""
    recording = await recordings.find(conn, recording_id)
    if recording is None:
        raise not_found(recording_id)
    return recording


def not_found(recording_id: UUID) -> NotFound:
    """The same for an id that never existed and for another tenant's."""
    return NotFound(f"no recording {recording_id}", hint="GET /v1/recordings lists yours")


def _topic(recording_id: UUID) -> str:
    return f"recording:{recording_id}"
