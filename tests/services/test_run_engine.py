"""What a caller is told when an engine does not end in time: asked too much, or a machine with too much to do."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from neuroedge.contract import scope
from neuroedge.contract.engine import Engine, EngineInput, EngineOutput
from neuroedge.contract.errors import DeadlineExceeded, NeuroEdgeError, Overloaded
from neuroedge.infra.breaker import Breakers
from neuroedge.infra.telemetry import Metrics
from neuroedge.services.engines import Registry
from neuroedge.services.run_engine import EngineRunner
from neuroedge.services.usage import UsageLedger
from neuroedge.stores.ledgers import UsageTable
from neuroedge.stores.postgres import Database
from tests.fakes import make_context
from tests.services.test_files import contexts_over
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio


class Input(EngineInput):
    """Nothing."""


class Output(EngineOutput):
    """Never given."""


class Slow(Engine[Input, Output]):
    """Does not end by itself."""

    name = "slow"
    title = "Does not end by itself"
    method = "sleep"
    example = Input()
    timeout_s = 0.5

    async def run(self, payload: Input, ctx: Any) -> Output:
        """Sleep."""
        await asyncio.sleep(600)
        raise AssertionError("the deadline did not end it")


@pytest.fixture
async def usage(db: Database) -> AsyncIterator[UsageLedger]:
    """Rows of the calls."""
    ledger = UsageLedger(table=UsageTable(db, to_disk=False), metrics=Metrics(), wait_s=60)
    yield ledger
    await ledger.close()


@pytest.mark.parametrize(
    ("overload", "asked_s", "told"),
    [
        (1.0, None, DeadlineExceeded),
        (1.4, None, DeadlineExceeded),
        (1.5, None, Overloaded),
        (9.0, 0.1, DeadlineExceeded),
    ],
)
async def test_who_did_not_choose_the_limit_is_told_that_the_machine_is_busy(
    db: Database, usage: UsageLedger, tmp_path: Path, overload: float, asked_s: float | None, told: type[NeuroEdgeError]
) -> None:
    """429 with when to come back where there is half as much again to do as there are cores; else 408."""
    runner = EngineRunner(
        contexts=contexts_over(db, tmp_path),
        usage=usage,
        breakers=Breakers(),
        metrics=Metrics(),
        overload=lambda: overload,
    )
    runner.use(Registry([Slow(probe=make_context())]))
    caller = await new_principal(db)
    with scope.call_scope(timeout_s=asked_s or 600.0), pytest.raises(NeuroEdgeError) as caught:
        await runner.run("slow", {}, principal=caller, request_id="r")
    assert type(caught.value) is told
    assert "slow did not answer within 0" in caught.value.detail
    assert (caught.value.retry_after_s is not None) == (told is Overloaded)
