"""Recordings: taken in, listed, read, deleted. Their processing is `recording_process`, a durable job."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from neuroedge.contract.errors import MediaTooShort
from neuroedge.contract.principal import Principal
from neuroedge.infra.decode_slots import DecodeSlots
from neuroedge.infra.media import AudioFacts, decode_to_wav
from neuroedge.infra.queue import JobQueue
from neuroedge.services.audit import audited
from neuroedge.services.housekeeping import forget_blobs, service_principal
from neuroedge.services.orphans import sweep_orphans
from neuroedge.services.recording_progress import RecordingProgress, not_found, require
from neuroedge.services.recording_steps import felt
from neuroedge.services.run_engine import EngineRunner
from neuroedge.settings import Settings
from neuroedge.stores import recordings, switches
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database
from neuroedge.stores.recordings import Recording, Segment, Speaker, Status

log = structlog.get_logger(__name__)

PROCESS_TASK = "process_recording"
DELETE_TASK = "delete_recording_blobs"
MIN_AUDIO_S = 0.25
MAX_HOT_WORDS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file received whole, on disk, alone in a folder that goes with the request."""

    path: Path
    filename: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingDetail:
    """A recording with all that was found in it."""

    recording: Recording
    analysis: dict[str, Any] | None
    text: str
    language: str | None
    speakers: list[Speaker]
    segments: list[Segment]
    turns: list[dict[str, Any]]
    """Who spoke when: speaker, start_s, end_s, confidence."""
    overlaps: list[dict[str, Any]]
    """Where more than one may speak: speakers, start_s, end_s."""
    steps: dict[str, float]
    """Seconds each finished step took."""


class Recordings:
    """Recordings of the caller's organisation."""

    def __init__(
        self,
        *,
        db: Database,
        runner: EngineRunner,
        queue: JobQueue,
        progress: RecordingProgress,
        settings: Settings,
    ) -> None:
        self._db = db
        self._runner = runner
        self._queue = queue
        self._progress = progress
        self._settings = settings
        self._decoding = DecodeSlots()

    async def add(
        self,
        upload: Upload,
        *,
        principal: Principal,
        request_id: str,
        title: str | None = None,
        context: str | None = None,
        language: str | None = None,
        hot_words: Sequence[str] = (),
    ) -> Recording:
        """Check and keep an upload, and queue its processing. Raises what decoding raises; then nothing is kept.

        The recogniser is told of `hot_words`, and of the organisation's glossary as it is now; of 50 terms in all.
        """
        wav, _ = await self._decoded(upload)
        async with self._db.tenant(principal) as conn:
            glossary = await switches.glossary(conn, org_id=principal.org_id)
        terms = list(dict.fromkeys([*hot_words, *glossary]))[:MAX_HOT_WORDS]
        recording = _new_recording(upload, principal, title=title, context=context, language=language, hot_words=terms)
        blobs = self._runner.contexts.blobs(principal)
        folder = blob_folder(recording.id)
        try:
            await blobs.put(f"{folder}/audio.wav", wav)
            await blobs.put(f"{folder}/original", upload.path)
            async with self._db.tenant(principal) as conn:
                await recordings.insert(conn, org_id=principal.org_id, recording=recording)
                await self._audit(conn, principal, request_id, "recording.created", recording.id)
                await self._queue.defer(
                    conn,
                    PROCESS_TASK,
                    lock=f"recording:{recording.id}",
                    args=job_arguments(principal, recording.id, request_id),
                )
        except BaseException:
            await asyncio.shield(forget_blobs(blobs, folder))
            raise
        await self._progress.publish(principal, recording.id, "queued", {})
        return recording

    async def list(
        self, principal: Principal, *, limit: int, before: UUID | None = None, status: Status | None = None
    ) -> list[Recording]:
        """Newest first."""
        async with self._db.tenant(principal) as conn:
            return await recordings.recent(conn, limit=limit, before=before, status=status)

    async def get(self, principal: Principal, recording_id: UUID) -> RecordingDetail:
        """One recording with its segments. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            recording = await require(conn, recording_id)
            steps = await recordings.steps(conn, recording_id)
            speakers = await recordings.speakers(conn, recording_id)
            segments = await recordings.segments(conn, recording_id)
            seconds = await recordings.step_seconds(conn, recording_id)
        transcript = steps.get("transcribe") or {}
        return RecordingDetail(
            recording=recording,
            analysis=steps.get("analyse"),
            text=transcript.get("text", ""),
            language=transcript.get("language"),
            speakers=speakers,
            segments=segments,
            turns=_named(steps.get("diarize", {}).get("turns", []), speakers),
            overlaps=_named(steps.get("diarize", {}).get("overlaps", []), speakers),
            steps=seconds,
        )

    async def delete(self, principal: Principal, recording_id: UUID, *, request_id: str) -> None:
        """Delete a recording with everything derived from it. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            if not await recordings.delete(conn, recording_id):
                raise not_found(recording_id)
            await self._audit(conn, principal, request_id, "recording.deleted", recording_id)
            # Deleted here at once, and by the job for certain: it outlives a crash or a blob store that is away.
            await self._queue.defer(
                conn,
                DELETE_TASK,
                lock=f"recording:{recording_id}",
                args={"recording_id": str(recording_id), "org_id": str(principal.org_id)},
            )
        await forget_blobs(self._runner.contexts.blobs(principal), blob_folder(recording_id))
        await self._progress.forget(principal, recording_id)

    async def delete_blobs(self, org_id: UUID, recording_id: UUID) -> None:
        """Delete a recording's objects; none is fine. Raises Unavailable when the blob store is away."""
        await self._runner.contexts.blobs(service_principal(org_id)).delete_prefix(blob_folder(recording_id))

    async def seal_plain(self) -> None:
        """Seal what any organisation stored before objects were sealed."""
        for org_id in await self._runner.contexts.organisations():
            count = await self._runner.contexts.blobs(service_principal(org_id)).seal_plain()
            log.info("blobs_sealed", org_id=str(org_id), count=count)

    async def sweep(self) -> int:
        """Delete objects that a crash left without a row, in every organisation; how many folders."""
        contexts = self._runner.contexts

        async def nothing_is_kept(_: Connection, __: Sequence[UUID]) -> set[UUID]:
            return set()

        swept = await sweep_orphans(self._db, contexts, "recordings", exist=recordings.exist)
        return swept + await sweep_orphans(self._db, contexts, "scratch", exist=nothing_is_kept)

    async def hear(
        self,
        upload: Upload,
        *,
        principal: Principal,
        request_id: str,
        language: str | None = None,
        hot_words: Sequence[str] = (),
    ) -> dict[str, Any]:
        """The transcription engine's answer on a file; nothing of it is kept."""
        blobs, folder = self._runner.contexts.blobs(principal), f"scratch/{new_id()}"
        payload = {
            "audio": {"blob": f"{folder}/original"},
            "language": language,
            "hot_words": [*hot_words],
        }
        try:
            await blobs.put(f"{folder}/original", upload.path)
            answer = await self._runner.run("transcription", payload, principal=principal, request_id=request_id)
        finally:
            await asyncio.shield(forget_blobs(blobs, folder))
        return answer.model_dump(mode="json")

    async def feel(self, upload: Upload, *, principal: Principal, request_id: str) -> dict[str, Any]:
        """Emotions of a file's words and measures of its sound; nothing of it is kept."""
        wav, _ = await self._decoded(upload)
        blobs, folder = self._runner.contexts.blobs(principal), f"scratch/{new_id()}"
        source = {"blob": f"{folder}/audio.wav"}

        async def engine(name: str, payload: dict[str, Any]) -> dict[str, Any]:
            answer = await self._runner.run(name, payload, principal=principal, request_id=request_id)
            return answer.model_dump(mode="json")

        try:
            await blobs.put(source["blob"], wav)
            measured = await engine("audio", {"audio": source})
            heard = await engine("transcription", {"audio": source})
            spoken = [{"text": s["text"], "start_s": s["start_s"], "end_s": s["end_s"]} for s in heard["segments"]]
            found = await felt(spoken, {"audio": source}, lambda payload: engine("emotion", payload))
        finally:
            await asyncio.shield(forget_blobs(blobs, folder))
        metrics = {
            name: value
            for name, value in measured.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        return {"emotions": found["emotions"], "audio_metrics": metrics}

    async def _decoded(self, upload: Upload) -> tuple[Path, AudioFacts]:
        """The upload as 16 kHz mono WAV beside it. Raises what decoding raises, Overloaded when too many wait."""
        wav = upload.path.with_name("audio.wav")
        facts = await self._decoding.run(decode_to_wav, upload.path, wav, max_duration_s=self._settings.max_audio_s)
        if facts.duration_s < MIN_AUDIO_S:
            raise MediaTooShort(
                f"{facts.duration_s:.2f} s of audio is too short to hold speech",
                hint=f"send at least {MIN_AUDIO_S} s",
            )
        return wav, facts

    async def _audit(
        self, conn: Connection, principal: Principal, request_id: str, action: str, recording_id: UUID
    ) -> None:
        await audited(conn, principal, request_id=request_id, action=action, target=f"recording:{recording_id}")


def _named(stretches: list[dict[str, Any]], speakers: list[Speaker]) -> list[dict[str, Any]]:
    """With the names of recognised people in place of the labels."""
    names = {speaker.label: speaker.name or speaker.label for speaker in speakers}
    return [
        {
            **stretch,
            **({"speaker": names.get(stretch["speaker"], stretch["speaker"])} if "speaker" in stretch else {}),
            **({"speakers": [names.get(s, s) for s in stretch["speakers"]]} if "speakers" in stretch else {}),
        }
        for stretch in stretches
    ]


def job_arguments(principal: Principal, recording_id: UUID, request_id: str) -> dict[str, Any]:
    """What the queue keeps: ids and the caller's rights, never content."""
    return {
        "recording_id": str(recording_id),
        "org_id": str(principal.org_id),
        "user_id": str(principal.user_id),
        "username": principal.username,
        "role": principal.role,
        "request_id": request_id,
    }


def blob_folder(recording_id: UUID) -> str:
    """Where a recording's objects lie."""
    return f"recordings/{recording_id}"


def _new_recording(
    upload: Upload,
    principal: Principal,
    *,
    title: str | None,
    context: str | None,
    language: str | None,
    hot_words: list[str],
) -> Recording:
    return Recording(
        id=new_id(),
        user_id=principal.user_id,
        title=title or Path(upload.filename).stem or "recording",
        context=context,
        filename=upload.filename,
        language=language,
        bytes=upload.bytes,
        status="queued",
        step=None,
        attempts=0,
        error_code=None,
        error_detail=None,
        error_hint=None,
        created_at=datetime.now(UTC),
        finished_at=None,
        hot_words=hot_words,
    )
