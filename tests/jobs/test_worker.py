"""A worker that is told to stop ends, whatever the database does meanwhile."""

import asyncio

import pytest

from neuroedge.infra.queue import JOB_QUEUE
from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.worker import work
from neuroedge.settings import Settings
from tests.infra.test_enduring_jobs import Flaky
from tests.jobs.test_takeover import Process, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("comes_back", [False, True])
async def test_told_to_stop_while_the_database_is_away(*, comes_back: bool) -> None:
    """That it cannot say goodbye to it does not keep it, and when it is back it begins no more jobs."""
    database = Flaky()
    here = Process(database)
    async with here.queue.app.open_async():
        working = asyncio.create_task(work(here.queue, sweeps={}, settings=Settings(), metrics=Metrics()))
        await here.queue.app.configure_task("wait", queue=JOB_QUEUE).defer_async()
        await until(lambda: here.begun)
        database.away = True
        working.cancel()
        await until(lambda: database.refused)
        if comes_back:
            await asyncio.sleep(0.1)
            database.away = False
        await asyncio.wait([working], timeout=60)
        assert working.done()
