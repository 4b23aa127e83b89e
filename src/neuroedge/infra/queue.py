"""The durable job queue: procrastinate over the application's own database pool."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import procrastinate
import psycopg_pool

from neuroedge.contract.errors import Unavailable
from neuroedge.contract.models import Priority
from neuroedge.infra.enduring_jobs import EnduringJobs

JOB_QUEUE = "recordings"
TASK_QUEUE = "tasks"
"""Has workers of its own: an hour's recording in the other queue does not keep a short task waiting."""
_RANK: Mapping[Priority, int] = {"low": -10, "normal": 0, "high": 10}


class JobQueue:
    """Enqueues in the caller's transaction: the job exists exactly when the change it belongs to does."""

    def __init__(self, pool: "psycopg_pool.AsyncConnectionPool[Any]") -> None:
        self._pool = pool
        self.app = procrastinate.App(connector=procrastinate.PsycopgConnector())
        self.app.job_manager = self._jobs = EnduringJobs(self.app.connector)

    async def open(self) -> None:
        """Use the application's pool; the queue has none of its own."""
        await self.app.connector.open_async(self._pool)

    async def defer(
        self,
        conn: Any,
        task: str,
        *,
        lock: str,
        args: Mapping[str, Any],
        queue: str = JOB_QUEUE,
        priority: Priority = "normal",
        run_at: datetime | None = None,
    ) -> int:
        """Add a job inside the transaction of `conn`, not to start before `run_at`; its id.

        Jobs of one `lock` never run at the same time; of those that may start, higher `priority` goes first.
        """
        options: Any = {"queue": queue, "lock": lock, "priority": _RANK[priority], "schedule_at": run_at}
        try:
            return await self.app.configure_task(task, connection=conn, **options).defer_async(**args)
        except procrastinate.exceptions.ConnectorException as error:
            raise Unavailable("the job could not be queued", retry_after_s=2) from error

    async def waiting(self, task: str, *, lock: str) -> list[Mapping[str, Any]]:
        """The arguments of jobs of this task and lock that have not begun."""
        try:
            jobs = await self.app.job_manager.list_jobs_async(task=task, lock=lock, status="todo")
        except procrastinate.exceptions.ConnectorException as error:
            raise Unavailable("the queue cannot be read", retry_after_s=2) from error
        return [job.task_kwargs for job in jobs]

    async def cancel(self, conn: Any, job_id: int) -> None:
        """Inside the transaction of `conn`, remove a job that waits, or have its worker cancel it; none is fine."""
        try:
            await self.app.job_manager.cancel_job_by_id_async(job_id, abort=True, delete_job=True, connection=conn)
        except procrastinate.exceptions.ConnectorException as error:
            raise Unavailable("the job could not be cancelled", retry_after_s=2) from error

    async def retry_stalled(self, *, stalled_s: float) -> int:
        """Give the jobs of workers that died back to the queue; how many."""
        jobs = await self._jobs.abandoned_jobs(stalled_s=stalled_s)
        for job in jobs:
            await self._jobs.retry_job(job)
        return len(jobs)

    async def forget_cut_off(self, *, queue: str, kept_h: int) -> None:
        """Delete what is left of jobs that were cancelled while their worker died."""
        await self.app.job_manager.delete_old_jobs(
            nb_hours=kept_h, queue=queue, include_failed=True, include_cancelled=True, include_aborted=True
        )
