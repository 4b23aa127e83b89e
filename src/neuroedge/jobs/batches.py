"""The job behind bulk jobs: work on one."""

import asyncio
from typing import Any
from uuid import UUID

import procrastinate
import structlog
from procrastinate.job_context import AbortReason, JobContext

from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.batch_run import BatchRuns
from neuroedge.services.batches import RUN_BATCH


def register(app: procrastinate.App, *, runs: BatchRuns, metrics: Metrics) -> None:
    """Add the job to the queue's application."""

    @app.task(name=RUN_BATCH, retry=ResumeOrRetry(), pass_context=True)
    async def run_batch(context: JobContext, batch_id: str, org_id: str) -> None:
        assert context.job.id is not None
        with structlog.contextvars.bound_contextvars(batch_id=batch_id):
            outcome = "error"
            try:
                outcome = await runs.run(UUID(org_id), UUID(batch_id), job_id=context.job.id)
            except asyncio.CancelledError:
                outcome = "cancelled"
                if context.abort_reason() is not AbortReason.USER_REQUEST:
                    raise
                # The row says cancelled already: the job is done, and not one to resume.
            finally:
                metrics.jobs.labels(RUN_BATCH, outcome).inc()

    _: Any = run_batch
