"""The job behind federated rounds: look whether one is due, and move it on."""

from typing import Any
from uuid import UUID

import procrastinate
import structlog
from procrastinate.job_context import JobContext

from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.federated_rounds import ADVANCE_TASK, FederatedRounds

log = structlog.get_logger(__name__)
_MAX_ATTEMPTS = 20
"""Cut off or failed so often, the round is given up; the model stays as it is."""


def register(app: procrastinate.App, *, rounds: FederatedRounds, metrics: Metrics) -> None:
    """Add the job to the queue's application."""

    @app.task(name=ADVANCE_TASK, retry=ResumeOrRetry(), pass_context=True)
    async def advance_federated_round(context: JobContext, org_id: str, round_id: str) -> None:
        if context.job.attempts >= _MAX_ATTEMPTS:
            metrics.jobs.labels(ADVANCE_TASK, "dead").inc()
            log.error("federated_round_given_up", round_id=round_id, attempts=context.job.attempts)
            await rounds.fail(UUID(org_id), UUID(round_id), code="interrupted_too_often")
            return
        outcome = "error"
        try:
            await rounds.advance(UUID(org_id), UUID(round_id))
            outcome = "ok"
        finally:
            metrics.jobs.labels(ADVANCE_TASK, outcome).inc()

    _: Any = advance_federated_round
