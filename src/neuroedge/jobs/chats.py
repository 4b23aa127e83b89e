"""The jobs behind chats: read an attachment, make messages findable."""

from typing import Any
from uuid import UUID

import procrastinate
import structlog

from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal, Role
from neuroedge.contract.scope import call_scope
from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.chat.attachments import READ_TASK, Attachments
from neuroedge.services.chat.remembering import REMEMBER_TASK
from neuroedge.services.chat.search import MessageSearch

_REMEMBER_ATTEMPTS = 10


class SomeRetries(ResumeOrRetry):
    """Like ResumeOrRetry, but gives up: a message that cannot be found is still there to be read."""

    def get_retry_decision(
        self, *, exception: BaseException, job: procrastinate.jobs.Job
    ) -> procrastinate.RetryDecision | None:
        """When to run the job again; None: not."""
        if isinstance(exception, Exception) and job.attempts >= _REMEMBER_ATTEMPTS:
            return None
        return super().get_retry_decision(exception=exception, job=job)


def register(app: procrastinate.App, *, attachments: Attachments, search: MessageSearch, metrics: Metrics) -> None:
    """Add the jobs to the queue's application."""

    @app.task(name=READ_TASK, retry=ResumeOrRetry())
    async def read_chat_attachment(
        session_id: str, attachment_id: str, org_id: str, user_id: str, username: str, role: Role, request_id: str
    ) -> None:
        principal = _principal(org_id, user_id, username, role)
        with structlog.contextvars.bound_contextvars(request_id=request_id, attachment_id=attachment_id):
            outcome = "error"
            try:
                await attachments.process(principal, UUID(session_id), UUID(attachment_id), request_id=request_id)
                outcome = "ok"
            finally:
                metrics.jobs.labels(READ_TASK, outcome).inc()

    @app.task(name=REMEMBER_TASK, retry=SomeRetries(), pass_context=True)
    async def remember_chat_messages(
        context: procrastinate.JobContext,
        message_ids: list[str],
        org_id: str,
        user_id: str,
        username: str,
        role: Role,
    ) -> None:
        principal = _principal(org_id, user_id, username, role)
        outcome = "error"
        try:
            with call_scope(priority="low"):  # whoever waits for an answer goes first
                ids = [UUID(i) for i in message_ids]
                await search.remember(principal, ids, request_id=f"job-{context.job.id}")
            outcome = "ok"
        finally:
            metrics.jobs.labels(REMEMBER_TASK, outcome).inc()

    _: Any = (read_chat_attachment, remember_chat_messages)


def _principal(org_id: str, user_id: str, username: str, role: Role) -> Principal:
    return Principal(
        user_id=UUID(user_id),
        org_id=UUID(org_id),
        username=username,
        role=role,
        permissions=ROLE_PERMISSIONS[role],
    )
