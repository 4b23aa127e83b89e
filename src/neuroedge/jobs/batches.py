"""The job behind bulk jobs: work on one."""

from typing import Any
from uuid import UUID

import procrastinate
import structlog
from procrastinate.job_context import JobContext

from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.cancellable import run_cancellable
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.batch_run import BatchRuns
from neuroedge.services.batches import RUN_BATCH


def register(app: procrastinate.App, *, runs: BatchRuns, metrics: Metrics) -> None:
    """Add the job to the queue's application."""

    @app.task(name=RUN_BATCH, retry=ResumeOrRetry(), pass_context=True)
    async def run_batch(context: JobContext, batch_id: str, org_id: str) -> None:
        assert context.job.id is not None
        with structlog.contextvars.bound_contextvars(batch_id=batch_id):
            work = runs.run(UUID(org_id), UUID(batch_id), job_id=context.job.id)
            await run_cancellable(work, context=context, name=RUN_BATCH, metrics=metrics)

    _: Any = run_batch
