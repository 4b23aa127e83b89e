"""The jobs behind voices: name the speakers of old recordings, follow a voice that was renamed or deleted."""

from typing import Any
from uuid import UUID

import procrastinate
import structlog
from procrastinate.job_context import JobContext

from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal
from neuroedge.contract.scope import call_scope
from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.voice_naming import RELABEL_TASK, RENAME_TASK, VoiceNaming

log = structlog.get_logger(__name__)
_MAX_ATTEMPTS = 20
"""Cut off or failed so often, it is given up; what was named stays, and a new order names the rest."""


def register(app: procrastinate.App, *, naming: VoiceNaming, metrics: Metrics) -> None:
    """Add the jobs to the queue's application."""

    @app.task(name=RENAME_TASK, retry=ResumeOrRetry())
    async def rename_voice(org_id: str, voice_id: str) -> None:
        await naming.rename(UUID(org_id), UUID(voice_id))

    @app.task(name=RELABEL_TASK, retry=ResumeOrRetry(), pass_context=True)
    async def relabel_recordings(
        context: JobContext, org_id: str, user_id: str, relabel_id: str, request_id: str
    ) -> None:
        # What was ordered concerns the organisation, and goes on when its member has left.
        principal = Principal(
            user_id=UUID(user_id),
            org_id=UUID(org_id),
            username="",
            role="member",
            permissions=ROLE_PERMISSIONS["member"],
        )
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            if context.job.attempts >= _MAX_ATTEMPTS:
                metrics.jobs.labels(RELABEL_TASK, "dead").inc()
                log.error("recordings_not_relabelled", attempts=context.job.attempts)
                await naming.fail(principal, UUID(relabel_id), code="interrupted_too_often")
                return
            outcome = "error"
            try:
                with call_scope(priority="low"):  # whoever waits for an answer goes first
                    await naming.run(principal, UUID(relabel_id), request_id=request_id)
                outcome = "ok"
            finally:
                metrics.jobs.labels(RELABEL_TASK, outcome).inc()

    _: Any = (rename_voice, relabel_recordings)
