"""Usage rows: many in one commit, none lost, none twice, and no answer held back by a database that is away."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from neuroedge.contract.errors import InvalidInput, Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.infra.telemetry import Metrics
from neuroedge.services.usage import UsageLedger
from neuroedge.stores.ids import new_id
from neuroedge.stores.ledgers import UsageRow, UsageTable
from neuroedge.stores.postgres import Database
from tests.fakes import make_principal
from tests.stores.conftest import Migrated, new_principal

pytestmark = pytest.mark.anyio


def row(principal: Principal, **change: Any) -> UsageRow:
    """A call of the principal's."""
    facts: dict[str, Any] = {
        "id": new_id(),
        "org_id": principal.org_id,
        "user_id": principal.user_id,
        "request_id": "test",
        "engine": "noop",
        "outcome": "ok",
        "seconds": 0.25,
        "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "completion_tokens": 7,
    }
    return UsageRow(**{**facts, **change})


class FakeTable:
    """Keeps what is added; can hang, be away, or refuse rows of an engine named "refused"."""

    def __init__(self) -> None:
        self.commits: list[list[UsageRow]] = []
        self.asked = asyncio.Event()
        self.committed = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.away = False
        self.closed = False

    async def add(self, rows: Iterable[UsageRow]) -> None:
        """One commit."""
        kept = list(rows)
        self.asked.set()
        await self.open.wait()
        if self.away:
            raise Unavailable("away")
        if any(r.engine == "refused" for r in kept):
            raise InvalidInput("refused")
        self.commits.append(kept)
        if len(self.rows) >= 5:
            self.committed.set()

    async def close(self) -> None:
        """Nothing to give back."""
        self.closed = True

    @property
    def rows(self) -> list[UsageRow]:
        """All rows in the order they were committed."""
        return [r for commit in self.commits for r in commit]


@pytest.fixture
def table() -> FakeTable:
    """A table without a database."""
    return FakeTable()


@pytest.fixture
def metrics() -> Metrics:
    """Metrics of one ledger."""
    return Metrics()


@pytest.fixture
async def ledger(table: FakeTable, metrics: Metrics) -> AsyncIterator[UsageLedger]:
    """A ledger over the fake table."""
    made = UsageLedger(table=table, metrics=metrics, kept_rows=50, wait_s=60)  # type: ignore[arg-type]
    yield made
    table.away = False
    table.open.set()
    await made.close()


def dropped(metrics: Metrics) -> float | None:
    """Rows given up."""
    return metrics.registry.get_sample_value("neuroedge_usage_rows_total", {"outcome": "dropped"})


async def taken(metrics: Metrics, rows: int) -> None:
    """Let the tasks that were made run until they wait; the ledger then has so many rows."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert metrics.registry.get_sample_value("neuroedge_usage_rows_waiting") == rows


async def test_calls_that_end_during_a_commit_share_the_next(table: FakeTable, metrics: Metrics) -> None:
    """One commit for the first, one for the twenty that came while it ran; each call waits for its own."""
    ledger, caller = UsageLedger(table=table, metrics=metrics, wait_s=60), make_principal()  # type: ignore[arg-type]
    table.open.clear()
    first = asyncio.create_task(ledger.record(row(caller)))
    await table.asked.wait()
    others = [asyncio.create_task(ledger.record(row(caller))) for _ in range(20)]
    await taken(metrics, 21)
    assert not any(task.done() for task in (first, *others))
    table.open.set()
    await asyncio.gather(first, *others)
    assert [len(commit) for commit in table.commits] == [1, 20]
    await ledger.close()
    assert table.closed


async def test_while_the_database_is_away_answers_do_not_wait_and_rows_are_written_later(
    ledger: UsageLedger, table: FakeTable, metrics: Metrics
) -> None:
    """Kept in order, written when it is back; then callers wait for their rows again."""
    table.away, caller = True, make_principal()
    kept = [row(caller, seconds=n) for n in range(5)]
    for each in kept:
        await ledger.record(each)
    assert table.commits == []
    await taken(metrics, 5)
    table.away = False
    await table.committed.wait()
    await taken(metrics, 0)
    assert table.rows == kept
    table.open.clear()
    late = asyncio.create_task(ledger.record(row(caller)))
    await taken(metrics, 1)
    assert not late.done()
    table.open.set()
    await late
    assert len(table.rows) == 6


async def test_a_database_that_hangs_holds_nobody_longer_than_the_limit(table: FakeTable, metrics: Metrics) -> None:
    """The first calls are released, later ones do not wait at all, and no row is lost."""
    ledger = UsageLedger(table=table, metrics=metrics, wait_s=0.05)  # type: ignore[arg-type]
    table.open.clear()
    caller = make_principal()
    await asyncio.gather(*(ledger.record(row(caller)) for _ in range(3)))
    await ledger.record(row(caller))
    assert table.commits == []
    table.open.set()
    await ledger.close()
    assert len(table.rows) == 4


async def test_more_rows_than_are_kept_are_dropped_and_counted(
    ledger: UsageLedger, table: FakeTable, metrics: Metrics
) -> None:
    """Memory is bounded: the oldest stay, the newest go."""
    table.away, caller = True, make_principal()
    for n in range(60):
        await ledger.record(row(caller, seconds=n))
    assert dropped(metrics) == 10
    table.away = False
    await ledger.close()
    assert [r.seconds for r in table.rows] == list(range(50))


async def test_a_refused_row_takes_no_other_with_it(ledger: UsageLedger, table: FakeTable, metrics: Metrics) -> None:
    """Found by halving, dropped, counted; its caller is answered."""
    caller = make_principal()
    engines = ["a", "b", "refused", "c", "d"]
    await asyncio.gather(*(ledger.record(row(caller, engine=engine)) for engine in engines))
    assert sorted(r.engine for r in table.rows) == ["a", "b", "c", "d"]
    assert dropped(metrics) == 1


async def test_a_caller_that_leaves_is_counted_too(ledger: UsageLedger, table: FakeTable, metrics: Metrics) -> None:
    """Cancelling the wait cancels neither the row nor the commit others wait for."""
    table.open.clear()
    caller = make_principal()
    leaving, staying = (asyncio.create_task(ledger.record(row(caller))) for _ in range(2))
    await taken(metrics, 2)
    leaving.cancel()
    table.open.set()
    await staying
    assert leaving.cancelled()
    assert len(table.rows) == 2


async def test_what_cannot_be_written_at_shutdown_is_counted(
    table: FakeTable, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shutting down does not wait for ever."""
    monkeypatch.setattr("neuroedge.services.usage._LAST_FLUSH_S", 0.05)
    ledger = UsageLedger(table=table, metrics=metrics)  # type: ignore[arg-type]
    table.away = True
    await ledger.record(row(make_principal()))
    await ledger.close()
    assert dropped(metrics) == 1


@pytest.fixture
async def real(db: Database) -> AsyncIterator[UsageTable]:
    """The table in a database."""
    made = UsageTable(db, to_disk=True)
    yield made
    await made.close()


async def stored(db: Database, principal: Principal) -> list[dict[str, Any]]:
    """The organisation's rows."""
    async with db.tenant(principal) as conn:
        return await (await conn.execute("SELECT * FROM usage ORDER BY id")).fetchall()


async def test_rows_of_several_organisations_each_under_its_own(
    db: Database, real: UsageTable, metrics: Metrics
) -> None:
    """When a call's row is recorded, it stands in the database, with every field, for its organisation alone."""
    ledger = UsageLedger(table=real, metrics=metrics, wait_s=60)
    one, other = await new_principal(db), await new_principal(db)
    sent = row(one)
    await asyncio.gather(ledger.record(sent), ledger.record(row(other)), ledger.record(row(one)))
    found = await stored(db, one)
    assert len(found) == 2
    assert next(r for r in found if r["id"] == sent.id) == {
        name: getattr(sent, name) for name in UsageRow.__dataclass_fields__
    }
    assert len(await stored(db, other)) == 1
    await ledger.close()


async def test_a_row_sent_again_after_a_lost_answer_is_there_once(db: Database, real: UsageTable) -> None:
    """Ids are made before the first attempt."""
    caller = await new_principal(db)
    rows = [row(caller), row(caller)]
    await real.add(rows)
    await real.add([*rows, row(caller)])
    assert len(await stored(db, caller)) == 3


@pytest.mark.parametrize("change", [{"request_id": "zero \x00 byte"}, {"prompt_tokens": 2**40}, {"org_id": new_id()}])
async def test_what_the_database_refuses_does_not_stop_the_others(
    db: Database, real: UsageTable, metrics: Metrics, change: dict[str, Any]
) -> None:
    """A bad value, or an organisation that is gone."""
    ledger = UsageLedger(table=real, metrics=metrics, wait_s=60)
    caller = await new_principal(db)
    await asyncio.gather(ledger.record(row(caller)), ledger.record(row(caller, **change)), ledger.record(row(caller)))
    assert len(await stored(db, caller)) == 2
    assert dropped(metrics) == 1
    await ledger.close()


async def test_a_lost_connection_is_replaced(
    db: Database, real: UsageTable, metrics: Metrics, migrated: Migrated
) -> None:
    """PostgreSQL ended the session: the rows are written over the next one, once."""
    ledger = UsageLedger(table=real, metrics=metrics, wait_s=60)
    caller = await new_principal(db)
    await ledger.record(row(caller))
    with psycopg.connect(migrated.owner_url, autocommit=True) as owner:
        owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'neuroedge_app'")
    await ledger.record(row(caller))
    await ledger.close()
    assert len(await stored(db, caller)) == 2
    assert dropped(metrics) == 0


async def test_the_kept_connection_carries_no_organisation_back_into_the_pool(db: Database, real: UsageTable) -> None:
    """What a batch binds ends with its statement."""
    await real.add([row(await new_principal(db))])
    await real.close()
    for _ in range(4):
        async with db.pool.connection() as conn:
            bound = await (await conn.execute("SELECT current_setting('app.current_org_id', true) AS org")).fetchone()
            assert bound is not None
            assert not bound["org"]
            assert await (await conn.execute("SELECT 1 FROM usage")).fetchone() is None
