"""procrastinate's job manager, as a worker needs it that outlives an outage of the database.

procrastinate (3.10) stops a worker when its heartbeat or its listening fails, but only as long as there are periodic
tasks; without one the worker goes on without heartbeat, its jobs are taken for those of a dead one, and it hears of
nothing new. Here both are mended where they break. What can't be mended is to have lost the answer to "this job is
yours" or "this job is finished": the job would stay with a living worker for ever. Then the worker has to end, which
frees its jobs, and another one to begin (jobs/worker.py).
"""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import structlog
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager, NotificationCallback

log = structlog.get_logger(__name__)
_AGAIN_S = 1.0


class EnduringJobs(JobManager):
    """Heartbeats and listening survive; a lost outcome of a job ends its queue's worker at its next look for jobs."""

    def __init__(self, connector: Any) -> None:
        super().__init__(connector)
        self._lost: dict[str, ConnectorException] = {}
        self._here: set[int] = set()
        """Workers of this process: they live as long as it does, however late their heartbeats are."""

    async def register_worker(self) -> int:
        """The id of a worker that begins."""
        worker_id = await super().register_worker()
        self._here.add(worker_id)
        return worker_id

    async def unregister_worker(self, worker_id: int) -> None:
        """A worker ends; its jobs are given back now, or, if the database is away, once its heartbeat is old."""
        self._here.discard(worker_id)
        await super().unregister_worker(worker_id)

    async def prune_stalled_workers(self, seconds_since_heartbeat: float) -> list[int]:
        """Forget workers that show no life, as each worker does when it begins; those of this process live."""
        for worker_id in list(self._here):
            await self.update_heartbeat(worker_id)
        return await super().prune_stalled_workers(seconds_since_heartbeat)

    async def abandoned_jobs(self, *, stalled_s: float) -> list[Job]:
        """Jobs of workers that show no life. A process that stood still has not died: it goes on with its own."""
        stalled = await self.get_stalled_jobs(seconds_since_heartbeat=stalled_s)
        return [job for job in stalled if job.worker_id not in self._here]

    async def update_heartbeat(self, worker_id: int) -> None:
        """Show life; a beat missed is made up for by the next."""
        try:
            await super().update_heartbeat(worker_id)
        except ConnectorException as error:
            log.warning("heartbeat_missed", worker_id=worker_id, error=str(error.__cause__ or error))

    async def listen_for_jobs(
        self, *, on_notification: NotificationCallback, queues: Iterable[str] | None = None
    ) -> None:
        """Listen until cancelled; after a loss, on a new connection."""
        while True:
            try:
                return await super().listen_for_jobs(on_notification=on_notification, queues=queues)
            except ConnectorException as error:
                log.warning("listener_lost", error=str(error.__cause__ or error))
            await asyncio.sleep(_AGAIN_S)

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        """The next job. Raises ConnectorException, which ends the worker, also when an outcome was lost before."""
        queues = list(queues or ())
        for queue in queues:
            if (error := self._lost.pop(queue, None)) is not None:
                raise error
        return await super().fetch_job(queues=queues or None, worker_id=worker_id)

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:
        """Store that a job ended."""
        try:
            await super().finish_job(job=job, status=status, delete_job=delete_job)
        except ConnectorException as error:
            self._lost[job.queue] = error
            raise

    async def retry_job(
        self,
        job: Job,
        retry_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        lock: str | None = None,
    ) -> None:
        """Store that a job shall run again."""
        try:
            await super().retry_job(job, retry_at, priority, queue, lock)
        except ConnectorException as error:
            if retry_at is not None:  # by its worker; without a time, somebody else gives back a dead worker's job
                self._lost[job.queue] = error
            raise
