"""The job that rotates an organisation's content key."""

from typing import Any
from uuid import UUID

import procrastinate
import structlog

from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.keys import ROTATE_TASK, KeyCare


def register(app: procrastinate.App, *, keys: KeyCare, metrics: Metrics) -> None:
    """Add the job to the queue's application."""

    @app.task(name=ROTATE_TASK, retry=ResumeOrRetry())
    async def rotate_keys(org_id: str, request_id: str) -> None:
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            outcome = "error"
            try:
                await keys.run(UUID(org_id), request_id=request_id)
                outcome = "ok"
            finally:
                metrics.jobs.labels(ROTATE_TASK, outcome).inc()

    _: Any = rotate_keys
