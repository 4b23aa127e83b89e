"""The jobs that export and erase."""

import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

import procrastinate
import structlog
from procrastinate.job_context import JobContext

from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.privacy import ERASE_TASK, EXPORT_TASK, Privacy

log = structlog.get_logger(__name__)
_MAX_ATTEMPTS = 8
"""Of an export. An erasure is tried until it is done: it is owed."""


def register(app: procrastinate.App, *, privacy: Privacy, tmp: Path, metrics: Metrics) -> None:
    """Add the jobs to the queue's application."""

    @app.task(name=ERASE_TASK, retry=ResumeOrRetry())
    async def erase_data(org_id: str, order_id: str, request_id: str) -> None:
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            outcome = "error"
            try:
                await privacy.run_erasure(UUID(org_id), UUID(order_id), request_id=request_id)
                outcome = "ok"
            finally:
                metrics.jobs.labels(ERASE_TASK, outcome).inc()

    @app.task(name=EXPORT_TASK, retry=ResumeOrRetry(), pass_context=True)
    async def export_data(context: JobContext, org_id: str, order_id: str, request_id: str) -> None:
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            if context.job.attempts >= _MAX_ATTEMPTS:
                await privacy.fail_export(UUID(org_id), UUID(order_id))
                metrics.jobs.labels(EXPORT_TASK, "dead").inc()
                log.error("export_failed", attempts=context.job.attempts)
                return
            outcome = "error"
            try:
                with tempfile.TemporaryDirectory(dir=tmp) as folder:
                    await privacy.run_export(UUID(org_id), UUID(order_id), folder=Path(folder))
                outcome = "ok"
            finally:
                metrics.jobs.labels(EXPORT_TASK, outcome).inc()

    _: Any = (erase_data, export_data)
