"""The durable job queue: procrastinate over the application's own database pool."""

from collections.abc import Mapping
from typing import Any

import procrastinate
import psycopg_pool

from neuroedge.contract.errors import Unavailable

JOB_QUEUE = "recordings"


class JobQueue:
    """Enqueues in the caller's transaction: the job exists exactly when the change it belongs to does."""

    def __init__(self, pool: "psycopg_pool.AsyncConnectionPool[Any]") -> None:
        self._pool = pool
        self.app = procrastinate.App(connector=procrastinate.PsycopgConnector())

    async def open(self) -> None:
        """Use the application's pool; the queue has none of its own."""
        await self.app.connector.open_async(self._pool)

    async def defer(self, conn: Any, task: str, *, lock: str, args: Mapping[str, Any]) -> None:
        """Add a job inside the transaction of `conn`; jobs of one `lock` never run at the same time."""
        try:
            await self.app.configure_task(task, queue=JOB_QUEUE, lock=lock, connection=conn).defer_async(**args)
        except procrastinate.exceptions.ConnectorException as error:
            raise Unavailable("the job could not be queued", retry_after_s=2) from error

    async def retry_stalled(self, *, stalled_s: float) -> int:
        """Give the jobs of workers that died back to the queue; how many."""
        jobs = list(await self.app.job_manager.get_stalled_jobs(seconds_since_heartbeat=stalled_s))
        for job in jobs:
            await self.app.job_manager.retry_job(job)
        return len(jobs)
