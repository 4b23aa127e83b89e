"""The durable job of a recording: its steps in order, each stored when finished; what fails for good is stored too."""

import time
from typing import Any
from uuid import UUID

import structlog

from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.contract.principal import Principal
from neuroedge.infra.telemetry import Metrics
from neuroedge.services.recording_progress import RecordingProgress, summary
from neuroedge.services.recording_steps import STEPS, RecordingGone, Steps
from neuroedge.services.run_engine import EngineRunner
from neuroedge.stores import recordings
from neuroedge.stores.postgres import Database
from neuroedge.stores.recordings import Recording

log = structlog.get_logger(__name__)

MAX_STARTS = 5
"""Starts without a step finished, crashes of the worker included, before a recording is given up."""
MAX_ERRORS = 3


class RecordingProcess:
    """Runs what is not finished yet."""

    def __init__(self, *, db: Database, runner: EngineRunner, progress: RecordingProgress, metrics: Metrics) -> None:
        self._db = db
        self._runner = runner
        self._progress = progress
        self._metrics = metrics

    async def run(self, principal: Principal, recording_id: UUID, *, request_id: str) -> None:
        """Run the steps that are not finished. Raises what a retry can mend; stores as failure what it can't."""
        async with self._db.tenant(principal) as conn:
            recording = await recordings.find(conn, recording_id, lock=True)
            if recording is None or recording.status in ("done", "failed"):
                return
            await recordings.start_attempt(conn, recording_id)
            outputs = await recordings.steps(conn, recording_id)
        if recording.attempts >= MAX_STARTS:
            await self._fail(principal, recording_id, NeuroEdgeError("processing was interrupted too often"))
            return
        try:
            await self._run_steps(principal, recording, outputs, request_id)
        except RecordingGone:
            return
        except NeuroEdgeError as error:
            if not error.retryable or await self._was_last(principal, recording_id):
                await self._fail(principal, recording_id, error)
                return
            raise
        except Exception:
            if await self._was_last(principal, recording_id):
                log.exception("recording_failed", recording_id=str(recording_id))
                await self._fail(principal, recording_id, NeuroEdgeError(f"processing failed (request {request_id})"))
                return
            raise

    async def _run_steps(
        self, principal: Principal, recording: Recording, outputs: dict[str, Any], request_id: str
    ) -> None:
        steps = Steps(runner=self._runner, principal=principal, request_id=request_id)
        for number, step in enumerate(STEPS):
            if step in outputs:
                continue
            async with self._db.tenant(principal) as conn:
                await recordings.set_step(conn, recording.id, step)

            async def progress(stage: str, fraction: float, step: str = step, number: int = number, **_: Any) -> None:
                overall = (number + max(0.0, min(1.0, fraction))) / len(STEPS)
                data = {"step": step, "fraction": round(fraction, 3), "overall": round(overall, 3)}
                await self._progress.publish(principal, recording.id, "progress", data)

            await progress(step, 0.0)
            if step == STEPS[-1]:
                self._db.forget(principal.org_id)  # what is known of it may be older than a switch of the model
            started = time.perf_counter()
            output = await steps.run(step, recording, outputs, progress)
            seconds = time.perf_counter() - started
            self._metrics.step_seconds.labels(step).observe(seconds)
            outputs[step] = await self._store(principal, recording, steps, step, outputs, output, seconds)
            told = {"step": step, "seconds": round(seconds, 3), **summary(step, outputs[step])}
            if duration_s := outputs["analyse"].get("duration_s"):
                told["rtf"] = round(seconds / duration_s, 4)
                self._metrics.step_rtf.labels(step).observe(seconds / duration_s)
            await self._progress.publish(principal, recording.id, "step", told)
        await self._progress.publish(principal, recording.id, "done", {})

    async def _store(
        self,
        principal: Principal,
        recording: Recording,
        steps: Steps,
        step: str,
        outputs: dict[str, Any],
        output: dict[str, Any],
        seconds: float,
    ) -> dict[str, Any]:
        """Keep a step's output; with the last one all of the result, in the same transaction."""
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
        return output

    async def _was_last(self, principal: Principal, recording_id: UUID) -> bool:
        """Count an error, apart from interruptions; whether it was the last that is retried."""
        async with self._db.tenant(principal) as conn:
            return await recordings.count_error(conn, recording_id) >= MAX_ERRORS

    async def _fail(self, principal: Principal, recording_id: UUID, error: NeuroEdgeError) -> None:
        async with self._db.tenant(principal) as conn:
            await recordings.fail(conn, recording_id, code=error.code, detail=error.detail, hint=error.hint)
        data = {"code": error.code, "detail": error.detail, "hint": error.hint}
        await self._progress.publish(principal, recording_id, "failed", data)
