"""A worker that is told to stop ends, whatever the database does meanwhile."""

import asyncio
from typing import Any

import procrastinate
import pytest
from procrastinate.exceptions import ConnectorException
from procrastinate.testing import InMemoryConnector

from neuroedge.infra.enduring_jobs import EnduringJobs
from neuroedge.infra.queue import JOB_QUEUE, JobQueue
from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.worker import work
from neuroedge.settings import Settings

pytestmark = pytest.mark.anyio
AWAY_S = 0.05
"""How long each statement waits for a database that is away."""


class Outage(InMemoryConnector):
    """A database in memory that can go away."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.missed = asyncio.Event()
        """Somebody waits for it in vain."""

    async def _check(self) -> None:
        if self.away:
            self.missed.set()
            await asyncio.sleep(AWAY_S)
            raise ConnectorException

    async def execute_query_async(self, query: Any, **arguments: Any) -> None:
        """Run a statement."""
        await self._check()
        await super().execute_query_async(query, **arguments)

    async def execute_query_one_async(self, query: Any, **arguments: Any) -> dict[str, Any]:
        """Run a statement that gives a row."""
        await self._check()
        return await super().execute_query_one_async(query, **arguments)

    async def execute_query_all_async(self, query: Any, **arguments: Any) -> list[dict[str, Any]]:
        """Run a statement that gives rows."""
        await self._check()
        return await super().execute_query_all_async(query, **arguments)


class Platform:
    """A queue, and its worker until it is told to stop."""

    def __init__(self) -> None:
        pool: Any = None
        self.database = Outage()
        self.queue = JobQueue(pool)
        self.queue.app = procrastinate.App(connector=self.database)
        self.queue.app.job_manager = self.queue._jobs = EnduringJobs(self.database)
        self.begun = asyncio.Event()
        self.told = asyncio.Event()

        @self.queue.app.task(name="wait", queue=JOB_QUEUE)
        async def wait() -> None:
            self.begun.set()
            await asyncio.Event().wait()

    async def work(self) -> None:
        """Run jobs until told to stop."""
        await work(self.queue, sweeps={}, settings=Settings(), metrics=Metrics(), until=self.told)


@pytest.mark.parametrize("comes_back", [False, True])
async def test_told_to_stop_while_the_database_is_away(*, comes_back: bool) -> None:
    """That it cannot say goodbye to it does not keep it, and when it is back it begins no more jobs."""
    platform = Platform()
    async with platform.queue.app.open_async():
        working = asyncio.create_task(platform.work())
        await platform.queue.app.configure_task("wait", queue=JOB_QUEUE).defer_async()
        await asyncio.wait_for(platform.begun.wait(), 60)
        platform.database.away = True
        platform.told.set()
        await asyncio.wait_for(platform.database.missed.wait(), 60)
        if comes_back:
            await asyncio.sleep(2 * AWAY_S)
            platform.database.away = False
        await asyncio.wait_for(working, 60)
