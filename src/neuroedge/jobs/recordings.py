"""The job that processes a recording."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import procrastinate
import structlog
from procrastinate.jobs import Job
from procrastinate.retry import BaseRetryStrategy, RetryDecision

from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal, Role
from neuroedge.infra.telemetry import Metrics
from neuroedge.services.recordings import PROCESS_TASK, Recordings

MAX_ERRORS = 3


class ResumeOrRetry(BaseRetryStrategy):
    """A job cut off by a shutdown goes back at once; one that failed waits longer each time, up to three failures."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """When to run the job again; None: not."""
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision(retry_at=datetime.now(UTC))
        if job.attempts + 1 >= MAX_ERRORS:
            return None
        return RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=2 ** (job.attempts + 1)))


def register(app: procrastinate.App, *, recordings: Recordings, metrics: Metrics) -> None:
    """Add the task to the queue's application."""

    @app.task(name=PROCESS_TASK, pass_context=True, retry=ResumeOrRetry())
    async def process(
        context: procrastinate.JobContext,
        recording_id: str,
        org_id: str,
        user_id: str,
        username: str,
        role: Role,
        request_id: str,
    ) -> None:
        principal = Principal(
            user_id=UUID(user_id),
            org_id=UUID(org_id),
            username=username,
            role=role,
            permissions=ROLE_PERMISSIONS[role],
        )
        with structlog.contextvars.bound_contextvars(request_id=request_id, recording_id=recording_id):
            outcome = "error"
            try:
                await recordings.process(
                    principal,
                    UUID(recording_id),
                    request_id=request_id,
                    last_attempt=context.job.attempts + 1 >= MAX_ERRORS,
                )
                outcome = "ok"
            finally:
                metrics.jobs.labels(PROCESS_TASK, outcome).inc()

    _: Any = process
