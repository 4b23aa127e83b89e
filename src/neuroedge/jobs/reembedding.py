"""The job that embeds an organisation's memories anew."""

from typing import Any
from uuid import UUID

import procrastinate
import structlog
from procrastinate.job_context import JobContext

from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal
from neuroedge.contract.scope import call_scope
from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.reembedding import REBUILD_TASK, Reembedding

log = structlog.get_logger(__name__)
_MAX_ATTEMPTS = 20
"""Cut off or failed so often, it is given up; what was embedded stays, and a new order goes on from there."""


def register(app: procrastinate.App, *, reembedding: Reembedding, metrics: Metrics) -> None:
    """Add the job to the queue's application."""

    @app.task(name=REBUILD_TASK, retry=ResumeOrRetry(), pass_context=True)
    async def rebuild_index(context: JobContext, org_id: str, user_id: str, rebuild_id: str, request_id: str) -> None:
        # What was ordered concerns the whole organisation, and goes on when its member has left.
        principal = Principal(
            user_id=UUID(user_id),
            org_id=UUID(org_id),
            username="",
            role="admin",
            permissions=ROLE_PERMISSIONS["admin"],
        )
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            if context.job.attempts >= _MAX_ATTEMPTS:
                metrics.jobs.labels(REBUILD_TASK, "dead").inc()
                log.error("index_not_rebuilt", attempts=context.job.attempts)
                await reembedding.fail(principal, UUID(rebuild_id), error="it failed too often")
                return
            outcome = "error"
            try:
                with call_scope(priority="low"):  # whoever waits for an answer goes first
                    await reembedding.run(principal, UUID(rebuild_id), request_id=request_id)
                outcome = "ok"
            finally:
                metrics.jobs.labels(REBUILD_TASK, outcome).inc()

    _: Any = rebuild_index
