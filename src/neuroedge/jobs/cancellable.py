"""How a job runs whose row may be cancelled while it works."""

import asyncio
from collections.abc import Awaitable

from procrastinate.job_context import AbortReason, JobContext

from neuroedge.infra.telemetry import Metrics


async def run_cancellable(work: Awaitable[str], *, context: JobContext, name: str, metrics: Metrics) -> None:
    """Do the work, whose answer is the outcome that `metrics` counts under the job's `name`.

    A cancellation by a user ends the job; one by a worker that stops is raised, so that the job is resumed.
    """
    outcome = "error"
    try:
        outcome = await work
    except asyncio.CancelledError:
        outcome = "cancelled"
        if context.abort_reason() is not AbortReason.USER_REQUEST:
            raise
        # The row says cancelled already: the job is done, and not one to resume.
    finally:
        metrics.jobs.labels(name, outcome).inc()
