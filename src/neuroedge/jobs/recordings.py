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
from neuroedge.contract.scope import call_scope
from neuroedge.infra.telemetry import Metrics
from neuroedge.services.recording_process import RecordingProcess
from neuroedge.services.recordings import DELETE_TASK, PROCESS_TASK, Recordings

_LONGEST_WAIT_S = 60


class ResumeOrRetry(BaseRetryStrategy):
    """A job cut off by a shutdown goes back at once; one that failed waits longer each time.

    It ends by itself: processing stores the failure, and returns, when errors or interruptions were too many.
    """

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """When to run the job again; None: not."""
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision(retry_at=datetime.now(UTC))
        wait_s = min(_LONGEST_WAIT_S, 2 ** (job.attempts + 1))
        return RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=wait_s))


def register(app: procrastinate.App, *, process: RecordingProcess, recordings: Recordings, metrics: Metrics) -> None:
    """Add the tasks to the queue's application."""

    @app.task(name=DELETE_TASK, retry=ResumeOrRetry())
    async def delete_blobs(recording_id: str, org_id: str) -> None:
        await recordings.delete_blobs(UUID(org_id), UUID(recording_id))

    @app.task(name=PROCESS_TASK, retry=ResumeOrRetry())
    async def process_recording(
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
                with call_scope(priority="low"):  # whoever waits for an answer goes first
                    await process.run(principal, UUID(recording_id), request_id=request_id)
                outcome = "ok"
            finally:
                metrics.jobs.labels(PROCESS_TASK, outcome).inc()

    _: Any = (delete_blobs, process_recording)
