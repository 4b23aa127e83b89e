"""The jobs that read memories, or the passages of one document, into an organisation's graph."""

from typing import Any
from uuid import UUID

import procrastinate
import structlog
from procrastinate.job_context import JobContext

from neuroedge.contract.scope import call_scope
from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.knowledge import EXTRACT_DOCUMENT_TASK, EXTRACT_TASK, Knowledge

log = structlog.get_logger(__name__)
_MAX_ATTEMPTS = 8
"""What was read stays; a new order goes on from there."""


def register(app: procrastinate.App, *, knowledge: Knowledge, metrics: Metrics) -> None:
    """Add the job to the queue's application."""

    async def read(
        task: str, attempts: int, org_id: str, user_id: str, request_id: str, document_id: UUID | None = None
    ) -> None:
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            if attempts >= _MAX_ATTEMPTS:
                metrics.jobs.labels(task, "dead").inc()
                log.error("knowledge_not_extracted", attempts=attempts)
                return
            outcome = "error"
            try:
                principal = await knowledge.caller(UUID(org_id), UUID(user_id))
                if principal is not None:
                    with call_scope(priority="low"):  # whoever waits for an answer goes first
                        count = await knowledge.run(principal, request_id=request_id, document_id=document_id)
                    log.info("knowledge_extracted", memories=count)
                outcome = "ok"
            finally:
                metrics.jobs.labels(task, outcome).inc()

    @app.task(name=EXTRACT_TASK, retry=ResumeOrRetry(), pass_context=True)
    async def extract_knowledge(context: JobContext, org_id: str, user_id: str, request_id: str) -> None:
        await read(EXTRACT_TASK, context.job.attempts, org_id, user_id, request_id)

    @app.task(name=EXTRACT_DOCUMENT_TASK, retry=ResumeOrRetry(), pass_context=True)
    async def extract_knowledge_of_document(
        context: JobContext, org_id: str, user_id: str, request_id: str, document_id: str
    ) -> None:
        await read(EXTRACT_DOCUMENT_TASK, context.job.attempts, org_id, user_id, request_id, UUID(document_id))

    _: Any = (extract_knowledge, extract_knowledge_of_document)
