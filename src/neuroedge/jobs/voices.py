"""The jobs behind voices: name the speakers of old recordings, follow a voice that was renamed or deleted."""

from typing import Any
from uuid import UUID

import procrastinate
import structlog
from procrastinate.job_context import JobContext

from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.giving_up import orderer, run_or_give_up
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.voice_naming import RELABEL_TASK, RENAME_TASK, VoiceNaming


def register(app: procrastinate.App, *, naming: VoiceNaming, metrics: Metrics) -> None:
    """Add the jobs to the queue's application."""

    @app.task(name=RENAME_TASK, retry=ResumeOrRetry())
    async def rename_voice(org_id: str, voice_id: str) -> None:
        await naming.rename(UUID(org_id), UUID(voice_id))

    @app.task(name=RELABEL_TASK, retry=ResumeOrRetry(), pass_context=True)
    async def relabel_recordings(
        context: JobContext, org_id: str, user_id: str, relabel_id: str, request_id: str
    ) -> None:
        principal, relabel = orderer(org_id=org_id, user_id=user_id, role="member"), UUID(relabel_id)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await run_or_give_up(
                lambda: naming.run(principal, relabel, request_id=request_id),
                lambda: naming.fail(principal, relabel, code="interrupted_too_often"),
                context=context,
                name=RELABEL_TASK,
                metrics=metrics,
            )

    _: Any = (rename_voice, relabel_recordings)
