"""Progress of a recording: published by its steps, followed by whoever may read it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from neuroedge.contract.errors import NotFound, of_code
from neuroedge.contract.principal import Principal
from neuroedge.infra.events import Events
from neuroedge.services.progress import PING, Following, ProgressEvent
from neuroedge.stores import recordings
from neuroedge.stores.postgres import Connection, Database
from neuroedge.stores.recordings import Recording

END = ("done", "failed", "deleted")


class RecordingProgress:
    """Publishes to and follows one recording's topic."""

    def __init__(self, *, db: Database, events: Events) -> None:
        self._db = db
        self._events = events
        self._following = Following(events, ends=END)

    async def publish(self, principal: Principal, recording_id: UUID, name: str, data: dict[str, Any]) -> None:
        """Tell listeners; losing an event never fails the work."""
        await self._events.publish(principal.org_id, _topic(recording_id), name, data)

    async def forget(self, principal: Principal, recording_id: UUID) -> None:
        """Drop a deleted recording's events, after telling those who listen."""
        await self.publish(principal, recording_id, "deleted", {})
        await self._events.forget(principal.org_id, _topic(recording_id))

    async def follow(
        self, principal: Principal, recording_id: UUID, *, after: str | None = None
    ) -> AsyncIterator[ProgressEvent]:
        """Progress until the end, first what already happened. Raises NotFound, Overloaded before the first event."""
        self._following.admit(principal)
        async with self._db.tenant(principal) as conn:
            await require(conn, recording_id)
        return self._following.follow(
            principal, _topic(recording_id), after=after or "0", look=lambda: self._from_row(principal, recording_id)
        )

    async def wait(self, principal: Principal, recording_id: UUID, *, timeout_s: float) -> None:
        """Return once it is processed. Raises its failure as the error it was, TimeoutError, NotFound when deleted."""
        async with asyncio.timeout(timeout_s):
            async for event in await self.follow(principal, recording_id):
                if event.name == "failed":
                    raise of_code(event.data["code"], event.data["detail"], hint=event.data.get("hint"))
                if event.name == "deleted":
                    raise not_found(recording_id)

    async def _from_row(self, principal: Principal, recording_id: UUID) -> ProgressEvent:
        async with self._db.tenant(principal) as conn:
            recording = await recordings.find(conn, recording_id)
        if recording is None:
            return ProgressEvent(id=None, name="deleted", data={})
        if recording.status in END:
            return ProgressEvent(id=None, name=recording.status, data=failure(recording))
        return PING


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
        case "identify":
            return {"identified": len(output["speakers"]), "voices": output["compared"]}
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
