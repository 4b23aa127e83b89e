"""The job that embeds an organisation's memories anew."""

from typing import Any
from uuid import UUID

import procrastinate
import structlog
from procrastinate.job_context import JobContext

from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.giving_up import orderer, run_or_give_up
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.reembedding import REBUILD_TASK, Reembedding


def register(app: procrastinate.App, *, reembedding: Reembedding, metrics: Metrics) -> None:
    """Add the job to the queue's application."""

    @app.task(name=REBUILD_TASK, retry=ResumeOrRetry(), pass_context=True)
    async def rebuild_index(context: JobContext, org_id: str, user_id: str, rebuild_id: str, request_id: str) -> None:
        principal, rebuild = orderer(org_id=org_id, user_id=user_id, role="admin"), UUID(rebuild_id)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await run_or_give_up(
                lambda: reembedding.run(principal, rebuild, request_id=request_id),
                lambda: reembedding.fail(principal, rebuild, error="it failed too often"),
                context=context,
                name=REBUILD_TASK,
                metrics=metrics,
            )

    _: Any = rebuild_index
