"""The jobs behind tasks: run one, delete the result of one."""

from typing import Any
from uuid import UUID

import procrastinate
import structlog
from procrastinate.job_context import JobContext

from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.cancellable import run_cancellable
from neuroedge.jobs.recordings import ResumeOrRetry
from neuroedge.services.task_run import TaskRuns
from neuroedge.services.tasks import DELETE_RESULT_TASK, RUN_TASK, Tasks


def register(app: procrastinate.App, *, runs: TaskRuns, tasks: Tasks, metrics: Metrics) -> None:
    """Add the jobs to the queue's application."""

    @app.task(name=DELETE_RESULT_TASK, retry=ResumeOrRetry())
    async def delete_task_result(task_id: str, org_id: str) -> None:
        await tasks.delete_result(UUID(org_id), UUID(task_id))

    @app.task(name=RUN_TASK, retry=ResumeOrRetry(), pass_context=True)
    async def run_task(context: JobContext, task_id: str, org_id: str) -> None:
        assert context.job.id is not None
        with structlog.contextvars.bound_contextvars(task_id=task_id):
            work = runs.run(UUID(org_id), UUID(task_id), job_id=context.job.id)
            await run_cancellable(work, context=context, name=RUN_TASK, metrics=metrics)

    _: Any = (delete_task_result, run_task)
