"""Names of recordings' speakers from the organisation's voices: of old recordings on request, and taken away again.

Whom a speaker is recognised as stands with the speaker; the name comes from the voice when it is read, so that it is
gone with it at once. Only memories carry a copy, which jobs keep up to date: after a voice was renamed or deleted, and
in the sweep for whatever a crash left.
"""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import structlog

from neuroedge.contract.errors import NeuroEdgeError, NotFound
from neuroedge.contract.principal import Principal
from neuroedge.infra.queue import TASK_QUEUE, JobQueue
from neuroedge.services.housekeeping import in_each, service_principal
from neuroedge.services.recording_progress import require
from neuroedge.services.recording_steps import identified, identify
from neuroedge.services.run_engine import EngineRunner
from neuroedge.stores import ledgers, recording_voices, recordings, voice_relabels, voices
from neuroedge.stores.postgres import Connection, Database
from neuroedge.stores.voice_relabels import Relabel

log = structlog.get_logger(__name__)

RELABEL_TASK: Final = "relabel_recordings"
RENAME_TASK: Final = "rename_voice"
MAX_STARTS: Final = 5
"""Starts without a recording finished before it is left out."""
_MEMORIES_AT_ONCE: Final = 100
"""Writers of memories wait for each other: short transactions let the others in."""
_SWEPT_AT_ONCE: Final = 200


class VoiceNaming:
    """Keeps the names of speakers what the voices say."""

    def __init__(self, *, db: Database, runner: EngineRunner, queue: JobQueue) -> None:
        self._db = db
        self._runner = runner
        self._queue = queue

    async def order(self, principal: Principal, recording_id: UUID | None, *, request_id: str) -> Relabel:
        """Have a recording's speakers recognised anew, or those of all finished ones. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            if recording_id is not None:
                await require(conn, recording_id)
            run = await voice_relabels.insert(
                conn, org_id=principal.org_id, user_id=principal.user_id, recording_id=recording_id
            )
            await ledgers.add_audit(
                conn,
                org_id=principal.org_id,
                user_id=principal.user_id,
                request_id=request_id,
                action="recordings.relabel",
                target=f"recording:{recording_id}" if recording_id else "recordings",
            )
            args = {
                "org_id": str(principal.org_id),
                "user_id": str(principal.user_id),
                "relabel_id": str(run.id),
                "request_id": request_id,
            }
            lock = f"relabel:{principal.org_id}"
            await self._queue.defer(conn, RELABEL_TASK, lock=lock, args=args, queue=TASK_QUEUE, priority="low")
        return run

    async def standing(self, principal: Principal, relabel_id: UUID) -> Relabel:
        """How far a run is. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            run = await voice_relabels.find(conn, relabel_id)
        if run is None:
            raise NotFound(f"no run {relabel_id}", hint="POST /v1/voices/relabel starts one")
        return run

    async def run(self, principal: Principal, relabel_id: UUID, *, request_id: str) -> None:
        """Do what is left of a run. Raises what a retry can mend."""
        async with self._db.tenant(principal) as conn:
            run = await voice_relabels.start(conn, relabel_id)
        poisoned = run is not None and run.starts > MAX_STARTS
        while run is not None:
            async with self._db.tenant(principal) as conn:
                recording_id = await voice_relabels.next_recording(conn, run)
                if recording_id is None:
                    await voice_relabels.finish(conn, relabel_id)
                    return
            labelled = None if poisoned else await self._relabelled(principal, recording_id, request_id=request_id)
            poisoned = False
            async with self._db.tenant(principal) as conn:
                run = await voice_relabels.advance(
                    conn, relabel_id, recording_id=recording_id, labelled=labelled or 0, skipped=labelled is None
                )

    async def fail(self, principal: Principal, relabel_id: UUID, *, code: str) -> None:
        """Give a run up; what it named stays."""
        async with self._db.tenant(principal) as conn:
            await voice_relabels.finish(conn, relabel_id, error_code=code)

    async def queue_renaming(self, conn: Connection, principal: Principal, voice_id: UUID) -> None:
        """In the transaction that changes or deletes a voice: have memories say what it is called now."""
        args = {"org_id": str(principal.org_id), "voice_id": str(voice_id)}
        await self._queue.defer(conn, RENAME_TASK, lock=f"voice:{voice_id}", args=args, queue=TASK_QUEUE)

    async def rename(self, org_id: UUID, voice_id: UUID) -> int:
        """Let the memories of the recordings of a voice say its name, or none; how many recordings."""
        service = service_principal(org_id)
        async with self._db.tenant(service) as conn:
            found = await recording_voices.of_voice(conn, voice_id)
        for recording_id in found:
            await self._settle(service, recording_id)
        return len(found)

    async def sweep(self) -> int:
        """Delete voices whose time is over, and take names of voices that are gone from recordings; how many."""
        async with self._db.unbound() as conn:
            stale = await voices.organisations_with_stale(conn)
        return await in_each(stale, self._sweep_of)

    async def _sweep_of(self, org_id: UUID) -> int:
        service, swept = service_principal(org_id), 0
        while gone := await self._delete_expired(service):
            swept += len(gone)
        while left := await self._of_gone_voices(service):
            for recording_id in left:
                await self._settle(service, recording_id)
                swept += 1
        return swept

    async def _delete_expired(self, service: Principal) -> list[UUID]:
        async with self._db.tenant(service) as conn:
            gone = await voices.delete_expired(conn, limit=_SWEPT_AT_ONCE)
            for voice_id in gone:
                await ledgers.add_audit(
                    conn,
                    org_id=service.org_id,
                    user_id=None,
                    request_id=f"sweep-{datetime.now(UTC):%Y%m%d}",
                    action="voice.expired",
                    target=f"voice:{voice_id}",
                )
        return gone

    async def _of_gone_voices(self, service: Principal) -> list[UUID]:
        async with self._db.tenant(service) as conn:
            return await recording_voices.of_gone_voices(conn, limit=_SWEPT_AT_ONCE)

    async def _relabelled(self, principal: Principal, recording_id: UUID, *, request_id: str) -> int | None:
        """How many of a recording's speakers have a name now; None when it cannot be heard any more."""
        async with self._db.tenant(principal) as conn:
            recording = await recordings.find(conn, recording_id)
            outputs = await recordings.steps(conn, recording_id)
        if recording is None or "diarize" not in outputs:
            return None

        async def engine(payload: dict[str, Any]) -> dict[str, Any]:
            answer = await self._runner.run("speaker", payload, principal=principal, request_id=request_id)
            return answer.model_dump(mode="json")

        try:
            output = await identify(recording, outputs["diarize"]["turns"], engine)
        except NeuroEdgeError as error:
            if error.retryable:
                raise
            log.warning("recording_not_relabelled", recording_id=str(recording_id), code=error.code)
            return None
        async with self._db.tenant(principal) as conn:
            if await recordings.find(conn, recording_id, lock=True) is None:
                return None
            labelled = await recording_voices.assign(conn, recording_id=recording_id, found=identified(output))
        await self._settle(principal, recording_id)
        return labelled

    async def _settle(self, principal: Principal, recording_id: UUID) -> None:
        """Let the memories of a recording say who its speakers are now. Again from the start when it was cut off."""
        after: UUID | None = None
        while True:
            # Every memory of the recording, whoever may see it.
            async with self._db.tenant(principal, sees_all=True) as conn:
                _, after = await recording_voices.rename(
                    conn, org_id=principal.org_id, recording_id=recording_id, after=after, limit=_MEMORIES_AT_ONCE
                )
                if after is None:
                    await recording_voices.forget_gone(conn, recording_id)
                    return
