"""Recordings: taken in, processed step by step as a durable job, remembered, followed, deleted.

The steps are engines; each finished step's output is stored before the next begins, so that a job whose worker died
goes on where it stopped. The last step stores speakers, segments, memories and "done" in one transaction.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from neuroedge.contract.errors import InvalidInput, MediaTooShort, NeuroEdgeError, NotFound
from neuroedge.contract.principal import Principal
from neuroedge.infra.events import Events
from neuroedge.infra.media import decode, encode_wav
from neuroedge.infra.queue import JobQueue
from neuroedge.infra.telemetry import Metrics
from neuroedge.services.recording_steps import STEPS, RecordingGone, Steps
from neuroedge.services.run_engine import EngineRunner
from neuroedge.settings import Settings
from neuroedge.stores import ledgers, recordings
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database
from neuroedge.stores.recordings import Recording, Segment, Speaker, Status

log = structlog.get_logger(__name__)

PROCESS_TASK = "process_recording"
MAX_ATTEMPTS = 5
"""Starts of one job, crashes of its worker included, before it is given up."""
MIN_AUDIO_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file received whole, on disk."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingEvent:
    """A progress event; `id` is what a listener resumes after. Name "ping" only keeps the connection alive."""

    id: str | None
    name: str
    data: dict[str, Any]


class Recordings:
    """Recordings of the caller's organisation."""

    def __init__(
        self,
        *,
        db: Database,
        runner: EngineRunner,
        queue: JobQueue,
        events: Events,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._db = db
        self._runner = runner
        self._queue = queue
        self._events = events
        self._metrics = metrics
        self._settings = settings

    async def add(
        self,
        upload: Upload,
        *,
        principal: Principal,
        request_id: str,
        title: str | None = None,
        context: str | None = None,
        language: str | None = None,
    ) -> Recording:
        """Check and keep an upload, and queue its processing. Raises what decoding raises; then nothing is kept."""
        audio = await asyncio.to_thread(decode, upload.path, max_duration_s=self._settings.max_audio_s)
        if audio.duration_s < MIN_AUDIO_S:
            raise MediaTooShort(
                f"{audio.duration_s:.2f} s of audio is too short to hold speech",
                hint=f"send at least {MIN_AUDIO_S} s",
            )
        recording = _new_recording(upload, principal, title=title, context=context, language=language)
        blobs = self._runner.contexts.blobs(principal)
        folder = blob_folder(recording.id)
        try:
            await blobs.put(f"{folder}/audio.wav", await asyncio.to_thread(encode_wav, audio.samples))
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
            await asyncio.shield(blobs.delete_prefix(folder))
            raise
        await self._publish(principal, recording.id, "queued", {})
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
            recording = await _require(conn, recording_id)
            steps = await recordings.steps(conn, recording_id)
            speakers = await recordings.speakers(conn, recording_id)
            segments = await recordings.segments(conn, recording_id)
        transcript = steps.get("transcribe") or {}
        return RecordingDetail(
            recording=recording,
            analysis=steps.get("analyse"),
            text=transcript.get("text", ""),
            language=transcript.get("language"),
            speakers=speakers,
            segments=segments,
        )

    async def delete(self, principal: Principal, recording_id: UUID, *, request_id: str) -> None:
        """Delete a recording with everything derived from it. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            if not await recordings.delete(conn, recording_id):
                raise _not_found(recording_id)
            await self._audit(conn, principal, request_id, "recording.deleted", recording_id)
        # After the commit: a crash here leaves objects no row names, never a row without its objects.
        await self._runner.contexts.blobs(principal).delete_prefix(blob_folder(recording_id))
        await self._events.forget(principal.org_id, _topic(recording_id))

    async def follow(
        self, principal: Principal, recording_id: UUID, *, after: str | None = None
    ) -> AsyncIterator[RecordingEvent]:
        """Progress until the end, first what already happened. Raises NotFound before the first event."""
        async with self._db.tenant(principal) as conn:
            await _require(conn, recording_id)
        return self._follow(principal, recording_id, after or "0")

    async def _follow(self, principal: Principal, recording_id: UUID, after: str) -> AsyncIterator[RecordingEvent]:
        async for event in self._events.follow(principal.org_id, _topic(recording_id), after=after):
            if event is not None:
                yield RecordingEvent(id=event.id, name=event.name, data=event.data)
                if event.name in ("done", "failed"):
                    return
                continue
            # The stream is only a messenger: when it is silent, the row tells whether the end was missed.
            async with self._db.tenant(principal) as conn:
                recording = await recordings.find(conn, recording_id)
            if recording is None:
                yield RecordingEvent(id=None, name="deleted", data={})
                return
            if recording.status in ("done", "failed"):
                yield RecordingEvent(id=None, name=recording.status, data=failure(recording))
                return
            yield RecordingEvent(id=None, name="ping", data={})

    async def wait(self, principal: Principal, recording_id: UUID, *, timeout_s: float) -> RecordingDetail:
        """The recording once processed. Raises its failure as the error it was, DeadlineExceeded from the caller's
        timeout, NotFound when it is deleted meanwhile."""
        async with asyncio.timeout(timeout_s):
            async for event in await self.follow(principal, recording_id):
                if event.name == "failed":
                    raise InvalidInput(str(event.data.get("detail")), hint=event.data.get("hint"))
        return await self.get(principal, recording_id)

    async def feel(self, upload: Upload, *, principal: Principal, request_id: str) -> dict[str, Any]:
        """Emotions of a file's words and measures of its sound; nothing of it is kept."""
        audio = await asyncio.to_thread(decode, upload.path, max_duration_s=self._settings.max_audio_s)
        blobs, folder = self._runner.contexts.blobs(principal), f"scratch/{new_id()}"
        source = {"blob": f"{folder}/audio.wav"}

        async def engine(name: str, payload: dict[str, Any]) -> dict[str, Any]:
            answer = await self._runner.run(name, payload, principal=principal, request_id=request_id)
            return answer.model_dump(mode="json")

        try:
            await blobs.put(source["blob"], await asyncio.to_thread(encode_wav, audio.samples))
            measured = await engine("audio", {"audio": source})
            heard = await engine("transcription", {"audio": source})
            spoken = [{"text": s["text"], "start_s": s["start_s"], "end_s": s["end_s"]} for s in heard["segments"]]
            felt = await engine("emotion", {"segments": spoken, "audio": source}) if spoken else {"emotions": []}
        finally:
            await asyncio.shield(blobs.delete_prefix(folder))
        metrics = {name: value for name, value in measured.items() if isinstance(value, int | float)}
        return {"emotions": felt["emotions"], "audio_metrics": metrics}

    async def process(self, principal: Principal, recording_id: UUID, *, request_id: str, last_attempt: bool) -> None:
        """Run the steps that are not finished. What can be retried is raised; what can't is stored as the failure."""
        async with self._db.tenant(principal) as conn:
            recording = await recordings.find(conn, recording_id, lock=True)
            if recording is None or recording.status in ("done", "failed"):
                return
            await recordings.start_attempt(conn, recording_id)
            outputs = await recordings.steps(conn, recording_id)
        if recording.attempts >= MAX_ATTEMPTS:
            await self._fail(principal, recording_id, "gave_up", "processing was interrupted too often", None)
            return
        try:
            await self._run_steps(principal, recording, outputs, request_id)
        except RecordingGone:
            return
        except NeuroEdgeError as error:
            if error.retryable and not last_attempt:
                raise
            await self._fail(principal, recording_id, error.code, error.detail, error.hint)
        except Exception:
            if not last_attempt:
                raise
            log.exception("recording_failed", recording_id=str(recording_id))
            await self._fail(principal, recording_id, "internal", f"processing failed (request {request_id})", None)

    async def _run_steps(
        self, principal: Principal, recording: Recording, outputs: dict[str, Any], request_id: str
    ) -> None:
        steps = Steps(db=self._db, runner=self._runner, principal=principal, request_id=request_id)
        for number, step in enumerate(STEPS):
            if step in outputs:
                continue
            async with self._db.tenant(principal) as conn:
                await recordings.set_step(conn, recording.id, step)

            async def progress(stage: str, fraction: float, step: str = step, number: int = number, **_: Any) -> None:
                overall = (number + max(0.0, min(1.0, fraction))) / len(STEPS)
                data = {"step": step, "fraction": round(fraction, 3), "overall": round(overall, 3)}
                await self._publish(principal, recording.id, "progress", data)

            await progress(step, 0.0)
            started = time.perf_counter()
            output = await steps.run(step, recording, outputs, progress)
            seconds = time.perf_counter() - started
            self._metrics.step_seconds.labels(step).observe(seconds)
            async with self._db.tenant(principal) as conn:
                if await recordings.find(conn, recording.id, lock=True) is None:
                    raise RecordingGone(f"recording {recording.id} was deleted")
                if step == STEPS[-1]:
                    await steps.store(conn, recording, outputs, output)
                    await recordings.finish(conn, recording.id)
                    output = {"memories": len(output["embeddings"])}
                await recordings.save_step(
                    conn,
                    org_id=principal.org_id,
                    recording_id=recording.id,
                    step=step,
                    output=output,
                    seconds=seconds,
                )
            outputs[step] = output
            await self._publish(
                principal, recording.id, "step", {"step": step, "seconds": round(seconds, 3), **summary(step, output)}
            )
        await self._publish(principal, recording.id, "done", {})

    async def _fail(self, principal: Principal, recording_id: UUID, code: str, detail: str, hint: str | None) -> None:
        async with self._db.tenant(principal) as conn:
            await recordings.fail(conn, recording_id, code=code, detail=detail, hint=hint)
        await self._publish(principal, recording_id, "failed", {"code": code, "detail": detail, "hint": hint})

    async def _publish(self, principal: Principal, recording_id: UUID, name: str, data: dict[str, Any]) -> None:
        await self._events.publish(principal.org_id, _topic(recording_id), name, data)

    async def _audit(
        self, conn: Connection, principal: Principal, request_id: str, action: str, recording_id: UUID
    ) -> None:
        await ledgers.add_audit(
            conn,
            org_id=principal.org_id,
            user_id=principal.user_id,
            request_id=request_id,
            action=action,
            target=f"recording:{recording_id}",
        )


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


def _topic(recording_id: UUID) -> str:
    return f"recording:{recording_id}"


def _not_found(recording_id: UUID) -> NotFound:
    return NotFound(f"no recording {recording_id}", hint="GET /v1/recordings lists yours")


async def _require(conn: Connection, recording_id: UUID) -> Recording:
    recording = await recordings.find(conn, recording_id)
    if recording is None:
        raise _not_found(recording_id)
    return recording


def _new_recording(
    upload: Upload, principal: Principal, *, title: str | None, context: str | None, language: str | None
) -> Recording:
    from datetime import UTC, datetime

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
    )
