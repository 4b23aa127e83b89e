"""The job that embeds memories anew, on procrastinate's queue in memory."""

from typing import Any
from uuid import UUID, uuid4

import procrastinate
import pytest
from procrastinate.testing import InMemoryConnector

from neuroedge.contract.errors import Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.contract.scope import priority
from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.reembedding import register
from neuroedge.services.reembedding import REBUILD_TASK

pytestmark = pytest.mark.anyio
ORG, USER, REBUILD = uuid4(), uuid4(), uuid4()


class Rebuilding:
    """A service that fails as often as told."""

    def __init__(self, *, fails: int = 0) -> None:
        self.fails = fails
        self.runs: list[tuple[UUID, UUID, str, str]] = []
        self.given_up: list[tuple[UUID, str]] = []

    async def run(self, principal: Principal, rebuild_id: UUID, *, request_id: str) -> None:
        """Fail, or succeed."""
        self.runs.append((principal.org_id, rebuild_id, request_id, priority()))
        if len(self.runs) <= self.fails:
            raise Unavailable("the model is away")

    async def fail(self, principal: Principal, rebuild_id: UUID, *, error: str) -> None:
        """Given up."""
        self.given_up.append((rebuild_id, error))


async def _work(service: Rebuilding) -> str:
    """How the one job ended."""
    app = procrastinate.App(connector=InMemoryConnector())
    register(app, reembedding=service, metrics=Metrics())  # type: ignore[arg-type]
    async with app.open_async():
        await app.configure_task(REBUILD_TASK).defer_async(
            org_id=str(ORG), user_id=str(USER), rebuild_id=str(REBUILD), request_id="r-1"
        )
        connector: Any = app.connector
        while connector.jobs[1]["status"] == "todo":
            connector.jobs[1]["scheduled_at"] = None
            await app.run_worker_async(wait=False, install_signal_handlers=False, listen_notify=False)
        return str(connector.jobs[1]["status"])


async def test_the_job_works_behind_whoever_waits() -> None:
    """With the request's id, at low priority; what fails is tried again."""
    service = Rebuilding(fails=2)
    assert await _work(service) == "succeeded"
    assert service.runs == [(ORG, REBUILD, "r-1", "low")] * 3
    assert service.given_up == []


async def test_what_fails_for_ever_is_given_up() -> None:
    """And noted, so that another rebuild can be ordered."""
    service = Rebuilding(fails=1000)
    assert await _work(service) == "succeeded"
    assert service.given_up == [(REBUILD, "it failed too often")]
