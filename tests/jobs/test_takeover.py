"""Jobs of workers that show no life are taken over, on procrastinate's queue in memory."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import procrastinate
import pytest
from procrastinate.testing import InMemoryConnector

from neuroedge.infra.enduring_jobs import EnduringJobs
from neuroedge.infra.queue import JOB_QUEUE, JobQueue

pytestmark = pytest.mark.anyio


class Process:
    """What a process of the installation has of the queue."""

    def __init__(self, database: InMemoryConnector) -> None:
        pool: Any = None
        self.database = database
        self.queue = JobQueue(pool)
        self.queue.app = procrastinate.App(connector=database)
        self.queue.app.job_manager = self.queue._jobs = EnduringJobs(database)
        self.begun: list[asyncio.Event] = []
        self.may_end = asyncio.Event()

        @self.queue.app.task(name="wait", queue=JOB_QUEUE)
        async def wait() -> None:
            self.begun.append(asyncio.Event())
            await self.may_end.wait()

    def work(self) -> "asyncio.Task[None]":
        """A worker that shows no sign of life of its own accord."""
        worker = self.queue.app.run_worker_async(
            queues=[JOB_QUEUE],
            concurrency=2,
            install_signal_handlers=False,
            fetch_job_polling_interval=0.01,
            update_heartbeat_interval=3600,
        )
        return asyncio.create_task(worker)


async def until(wanted: Any) -> None:
    """Wait for something to be so."""
    async with asyncio.timeout(60):
        while not wanted():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_process_that_stood_still_goes_on_with_its_own_jobs() -> None:
    """Late heartbeats of its own workers are no sign of death to itself; to another process they are."""
    database = InMemoryConnector()
    here, elsewhere = Process(database), Process(database)
    async with here.queue.app.open_async():
        await here.queue.app.configure_task("wait", queue=JOB_QUEUE).defer_async()
        worker = here.work()
        await until(lambda: here.begun)
        database.workers = dict.fromkeys(database.workers, datetime.now(UTC) - timedelta(hours=1))
        assert await here.queue.retry_stalled(stalled_s=5) == 0
        assert database.jobs[1]["status"] == "doing"
        assert await elsewhere.queue.retry_stalled(stalled_s=5) == 1
        await until(lambda: len(here.begun) == 2)
        here.may_end.set()
        worker.cancel()
        await asyncio.wait([worker])


async def test_a_worker_that_begins_does_not_bury_the_other_one_of_its_process() -> None:
    """It forgets workers without a sign of life, whose jobs then belong to nobody."""
    database = InMemoryConnector()
    here = Process(database)
    async with here.queue.app.open_async():
        await here.queue.app.configure_task("wait", queue=JOB_QUEUE).defer_async()
        workers = [here.work()]
        await until(lambda: here.begun)
        (first,) = database.workers
        database.workers = dict.fromkeys(database.workers, datetime.now(UTC) - timedelta(hours=1))
        workers.append(here.work())
        await until(lambda: len(database.workers) == 2 or first not in database.workers)
        assert await here.queue.retry_stalled(stalled_s=5) == 0
        assert first in database.workers
        here.may_end.set()
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)


async def test_jobs_of_a_worker_that_ended_are_taken_over_by_its_own_process() -> None:
    """As by any other."""
    database = InMemoryConnector()
    here = Process(database)
    async with here.queue.app.open_async():
        await here.queue.app.configure_task("wait", queue=JOB_QUEUE).defer_async()
        manager = here.queue._jobs
        worker_id = await manager.register_worker()
        assert await manager.fetch_job(queues=[JOB_QUEUE], worker_id=worker_id) is not None
        database.workers[worker_id] = datetime.now(UTC) - timedelta(hours=1)
        assert await here.queue.retry_stalled(stalled_s=5) == 0
        await manager.unregister_worker(worker_id)
        assert await here.queue.retry_stalled(stalled_s=5) == 1
        assert database.jobs[1]["status"] == "todo"
