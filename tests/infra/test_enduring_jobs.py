"""A worker's dealings with a database that goes away and comes back."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import procrastinate
import pytest
from procrastinate import sql
from procrastinate.exceptions import ConnectorException
from procrastinate.testing import InMemoryConnector

from neuroedge.infra import enduring_jobs
from neuroedge.infra.enduring_jobs import EnduringJobs

pytestmark = pytest.mark.anyio
QUEUE = "recordings"


class Flaky(InMemoryConnector):
    """A database in memory that can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.away_for = ""
        self.refused = 0
        self.found_nothing = False
        """Whether the last look for a job found none."""

    def _check(self, query: Any = None) -> None:
        if self.away or (query is not None and query == sql.queries.get(self.away_for)):
            self.refused += 1
            raise ConnectorException

    async def execute_query_async(self, query: Any, **arguments: Any) -> None:
        """Run a statement."""
        self._check(query)
        await super().execute_query_async(query, **arguments)

    async def execute_query_one_async(self, query: Any, **arguments: Any) -> dict[str, Any]:
        """Run a statement that gives a row."""
        self._check(query)
        row = await super().execute_query_one_async(query, **arguments)
        if query == sql.queries["fetch_job"]:
            self.found_nothing = row["id"] is None
        return row

    async def listen_notify(self, on_notification: Any, channels: Any) -> None:
        """Listen until the connection is lost."""
        self._check()
        await super().listen_notify(on_notification, channels)
        while not self.away:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self._check()


class Platform:
    """A queue with a worker at work."""

    def __init__(self) -> None:
        self.database = Flaky()
        self.app = procrastinate.App(connector=self.database)
        self.app.job_manager = EnduringJobs(self.database)
        self.ran: list[int] = []
        self.during: list[asyncio.Event] = []

        @self.app.task(name="count", queue=QUEUE)
        async def count(n: int) -> None:
            self.ran.append(n)
            for event in self.during:
                await event.wait()

    def idle(self) -> bool:
        """Whether all jobs are done, and the worker has looked for more."""
        return self.database.found_nothing and all(j["status"] == "succeeded" for j in self.database.jobs.values())

    async def add(self, n: int) -> None:
        """Queue a job."""
        await self.app.configure_task("count", queue=QUEUE).defer_async(n=n)

    def work(self) -> "asyncio.Task[None]":
        """A worker that would look for jobs by itself only once an hour."""
        worker = self.app.run_worker_async(
            queues=[QUEUE],
            install_signal_handlers=False,
            fetch_job_polling_interval=3600,
            update_heartbeat_interval=0.01,
            shutdown_graceful_timeout=1,
        )
        return asyncio.create_task(worker)


@pytest.fixture
async def platform(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Platform]:
    """An open one."""
    monkeypatch.setattr(enduring_jobs, "_AGAIN_S", 0.01)
    platform = Platform()
    async with platform.app.open_async():
        yield platform


async def _until(wanted: Any) -> None:
    async with asyncio.timeout(60):
        while not wanted():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_heartbeat_and_listening_go_on_after_an_outage(platform: Platform) -> None:
    """The worker shows life again, and hears of a job at once though it would look for one in an hour only."""
    worker = platform.work()
    await platform.add(1)
    await _until(lambda: platform.ran == [1] and platform.idle())
    platform.database.away = True
    await _until(lambda: platform.database.refused > 3)
    platform.database.away = False
    beat = dict(platform.database.workers)
    await _until(lambda: platform.database.workers != beat)
    await _until(lambda: platform.database.notify_channels)
    await platform.add(2)
    await _until(lambda: platform.ran == [1, 2])
    assert not worker.done()
    worker.cancel()
    await asyncio.wait([worker])


async def test_a_worker_that_could_not_store_an_outcome_ends_and_lets_go_of_its_jobs(platform: Platform) -> None:
    """Else the job would belong to a living worker for ever, and nobody would take it over."""
    platform.during.append(asyncio.Event())
    worker = platform.work()
    await platform.add(1)
    await _until(lambda: platform.ran == [1])
    platform.database.away_for = "finish_job"
    platform.during[0].set()
    with pytest.raises(ConnectorException):
        await worker
    assert not platform.database.workers
    stalled = list(await platform.app.job_manager.get_stalled_jobs(seconds_since_heartbeat=60))
    assert [job.task_kwargs for job in stalled] == [{"n": 1}]


async def test_a_job_of_a_dead_worker_that_cannot_be_given_back_costs_no_living_one(platform: Platform) -> None:
    """It is tried again at the next round."""
    await platform.add(1)
    worker_id = await platform.app.job_manager.register_worker()
    job = await platform.app.job_manager.fetch_job(queues=[QUEUE], worker_id=worker_id)
    assert job is not None
    platform.database.away = True
    with pytest.raises(ConnectorException):
        await platform.app.job_manager.retry_job(job)
    platform.database.away = False
    assert await platform.app.job_manager.fetch_job(queues=[QUEUE], worker_id=worker_id) is None
