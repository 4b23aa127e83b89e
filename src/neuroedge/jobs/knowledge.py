"""The job that reads memories into an organisation's graph."""

from typing import Any
from uuid import UUID

import procrastinate
import structlog
from procrastinate.job_context import JobContext

from neuroedge.contract.scope import call_scope
from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.knowledge import EXTRACT_TASK, Knowledge

log = structlog.get_logger(__name__)
_MAX_ATTEMPTS = 8
"""What was read stays; a new order goes on from there."""


def register(app: procrastinate.App, *, knowledge: Knowledge, metrics: Metrics) -> None:
    """Add the job to the queue's application."""

    @app.task(name=EXTRACT_TASK, retry=ResumeOrRetry(), pass_context=True)
    async def extract_knowledge(context: JobContext, org_id: str, user_id: str, request_id: str) -> None:
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            if context.job.attempts >= _MAX_ATTEMPTS:
                metrics.jobs.labels(EXTRACT_TASK, "dead").inc()
                log.error("knowledge_not_extracted", attempts=context.job.attempts)
                return
            outcome = "error"
            try:
                principal = await knowledge.caller(UUID(org_id), UUID(user_id))
                if principal is not None:
                    with call_scope(priority="low"):  # whoever waits for an answer goes first
                        count = await knowledge.run(principal, request_id=request_id)
                    log.info("knowledge_extracted", memories=count)
                outcome = "ok"
            finally:
                metrics.jobs.labels(EXTRACT_TASK, outcome).inc()

    _: Any = extract_knowledge
