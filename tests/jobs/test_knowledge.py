"""The jobs that read memories, on procrastinate's queue in memory."""

from typing import Any
from uuid import UUID, uuid4

import procrastinate
import pytest
from procrastinate.testing import InMemoryConnector

from neuroedge.contract.errors import Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.contract.scope import priority
from neuroedge.infra.telemetry import Metrics
from neuroedge.jobs.knowledge import register
from neuroedge.services.knowledge import EXTRACT_DOCUMENT_TASK, EXTRACT_TASK
from tests.fakes import make_principal

pytestmark = pytest.mark.anyio


class Reading:
    """A service that knows one member and reads as the test says."""

    def __init__(self, member: Principal | None, *, fails: int = 0) -> None:
        self.member = member
        self.fails = fails
        self.runs: list[tuple[Principal, str, str]] = []
        self.documents: list[UUID | None] = []

    async def caller(self, org_id: UUID, user_id: UUID) -> Principal | None:
        """The member, if any."""
        return self.member

    async def run(self, principal: Principal, *, request_id: str, document_id: UUID | None = None) -> int:
        """Fail as often as told, then succeed."""
        self.runs.append((principal, request_id, priority()))
        self.documents.append(document_id)
        if len(self.runs) <= self.fails:
            raise Unavailable("the model is away")
        return 3


async def _work(service: Reading, task: str = EXTRACT_TASK, **more: str) -> tuple[dict[str, Any], Metrics]:
    """The one job after every run that was due at once, and the metrics."""
    app, metrics = procrastinate.App(connector=InMemoryConnector()), Metrics()
    register(app, knowledge=service, metrics=metrics)  # type: ignore[arg-type]
    async with app.open_async():
        args = {"org_id": str(uuid4()), "user_id": str(uuid4()), "request_id": "r-1", **more}
        await app.configure_task(task).defer_async(**args)
        connector = app.connector
        assert isinstance(connector, InMemoryConnector)
        while connector.jobs[1]["status"] == "todo":
            connector.jobs[1]["scheduled_at"] = None
            await app.run_worker_async(wait=False, install_signal_handlers=False, listen_notify=False)
        return connector.jobs[1], metrics


async def test_the_job_reads_for_its_member_behind_whoever_waits() -> None:
    """With the request's id, at low priority."""
    member = make_principal()
    service = Reading(member)
    job, metrics = await _work(service)
    assert (job["status"], service.runs) == ("succeeded", [(member, "r-1", "low")])
    assert service.documents == [None]
    assert metrics.registry.get_sample_value("neuroedge_jobs_total", {"task": EXTRACT_TASK, "outcome": "ok"}) == 1


async def test_the_job_of_a_document_reads_that_document() -> None:
    """And nothing else."""
    service, document_id = Reading(make_principal()), uuid4()
    job, metrics = await _work(service, EXTRACT_DOCUMENT_TASK, document_id=str(document_id))
    assert (job["status"], service.documents) == ("succeeded", [document_id])
    labels = {"task": EXTRACT_DOCUMENT_TASK, "outcome": "ok"}
    assert metrics.registry.get_sample_value("neuroedge_jobs_total", labels) == 1


async def test_who_left_the_organisation_gets_nothing_read() -> None:
    """The order was made by rights that are gone."""
    service = Reading(None)
    job, _ = await _work(service)
    assert (job["status"], service.runs) == ("succeeded", [])


async def test_a_run_that_fails_is_made_again_but_not_for_ever() -> None:
    """A memory that breaks the reading must not keep a worker busy for good."""
    service = Reading(make_principal(), fails=2)
    job, _ = await _work(service)
    assert (job["status"], len(service.runs)) == ("succeeded", 3)
    service = Reading(make_principal(), fails=1000)
    job, metrics = await _work(service)
    assert (job["status"], len(service.runs)) == ("succeeded", 8)
    assert metrics.registry.get_sample_value("neuroedge_jobs_total", {"task": EXTRACT_TASK, "outcome": "dead"}) == 1
