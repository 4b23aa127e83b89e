"""Tasks in the database: every tenant its own, every row's numbers consistent, every outcome stored once."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from neuroedge.contract.principal import Principal
from neuroedge.stores import tasks
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from neuroedge.stores.tasks import NewTask, Task
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio


async def _add(db: Database, caller: Principal, **change: Any) -> UUID:
    """A stored task."""
    values: dict[str, Any] = {
        "id": new_id(),
        "user_id": caller.user_id,
        "request_id": "r",
        "engine": "trial",
        "payload": b"{}",
        "priority": "normal",
        "max_attempts": 3,
        "timeout_s": None,
        "idempotency_key": None,
        "fingerprint": b"f",
        "run_at": None,
    }
    task = NewTask(**{**values, **change})
    async with db.tenant(caller) as conn:
        assert await tasks.insert(conn, org_id=caller.org_id, task=task)
    return task.id


async def _get(db: Database, caller: Principal, task_id: UUID) -> Task:
    async with db.tenant(caller) as conn:
        task = await tasks.find(conn, task_id)
    assert task is not None
    return task


async def _start(db: Database, caller: Principal, task_id: UUID) -> int:
    async with db.tenant(caller) as conn:
        return await tasks.start(conn, task_id, interrupted=0)


async def test_a_tenants_sql_reaches_its_own_tasks_only(db: Database) -> None:
    """SELECT, UPDATE and DELETE that name no tenant, and the one who is bound to none."""
    first, second = await new_principal(db), await new_principal(db)
    mine, theirs = await _add(db, first), await _add(db, second)
    async with db.tenant(first) as conn:
        assert [task.id for task in await tasks.recent(conn, limit=10)] == [mine]
        assert await tasks.find(conn, theirs) is None
        assert await tasks.payload(conn, theirs) == b"{}"
        assert (await conn.execute("UPDATE tasks SET stage = 'x'")).rowcount == 1
        assert (await conn.execute("DELETE FROM tasks WHERE id = %s", [theirs])).rowcount == 0
    async with db.unbound() as conn:
        assert await tasks.recent(conn, limit=10) == []
    assert (await _get(db, second, theirs)).stage is None


async def test_a_task_cannot_be_put_into_another_organisation(db: Database) -> None:
    """Neither by inserting it there nor by moving it."""
    first, second = await new_principal(db), await new_principal(db)
    mine = await _add(db, first)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with db.tenant(first) as conn:
            await conn.execute("UPDATE tasks SET org_id = %s WHERE id = %s", [second.org_id, mine])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with db.tenant(first) as conn:
            await conn.execute(
                "INSERT INTO tasks (org_id, id, user_id, request_id, engine, payload, priority, max_attempts,"
                " fingerprint, state, next_run_at) SELECT %s, %s, user_id, request_id, engine, payload, priority,"
                " max_attempts, fingerprint, state, next_run_at FROM tasks",
                [second.org_id, new_id()],
            )


async def test_the_sweep_learns_which_organisations_but_not_what(db: Database) -> None:
    """The function that looks across tenants gives ids of organisations with old tasks, and nothing else."""
    old, fresh = await new_principal(db), await new_principal(db)
    for caller in (old, fresh):
        task_id = await _add(db, caller)
        async with db.tenant(caller) as conn:
            await tasks.cancel(conn, task_id)
    async with db.tenant(old) as conn:
        await conn.execute("UPDATE tasks SET finished_at = finished_at - interval '10 days'")
    week_ago = datetime.now(UTC) - timedelta(days=7)
    async with db.unbound() as conn:
        found = await tasks.organisations_before(conn, week_ago)
    assert old.org_id in found
    assert fresh.org_id not in found
    async with db.tenant(fresh) as conn:
        assert await tasks.delete_before(conn, week_ago, limit=10) == []


async def test_a_waiting_task_is_scheduled_until_it_is_due(db: Database) -> None:
    """Two states for readers, one in the table: nothing has to happen when the time comes."""
    caller = await new_principal(db)
    due = await _add(db, caller)
    later = await _add(db, caller, run_at=datetime.now(UTC) + timedelta(hours=1))
    assert (await _get(db, caller, due)).state == "queued"
    assert (await _get(db, caller, later)).state == "scheduled"
    async with db.tenant(caller) as conn:
        assert [t.id for t in await tasks.recent(conn, limit=10, state="queued")] == [due]
        assert [t.id for t in await tasks.recent(conn, limit=10, state="scheduled", engine="trial")] == [later]
        assert await tasks.recent(conn, limit=10, state="scheduled", engine="other") == []
        await conn.execute("UPDATE tasks SET next_run_at = now() - interval '1 second' WHERE id = %s", [later])
        assert [t.id for t in await tasks.recent(conn, limit=10, state="queued")] == [later, due]
        assert [t.id for t in await tasks.recent(conn, limit=10, state="queued", before=later)] == [due]


async def test_only_the_last_starts_outcome_counts(db: Database) -> None:
    """Whatever an outdated run brings, and in whatever way it ends, changes no row."""
    caller = await new_principal(db)
    task_id = await _add(db, caller)
    old = await _start(db, caller, task_id)
    new = await _start(db, caller, task_id)
    failure: dict[str, Any] = {"code": "c", "detail": "d", "hint": None}
    async with db.tenant(caller) as conn:
        assert not await tasks.succeed(conn, task_id, attempt=old, data=b"1")
        assert not await tasks.give_back(conn, task_id, attempt=old)
        assert not await tasks.end(conn, task_id, attempt=old, state="dead", **failure)
        assert not await tasks.wait_again(conn, task_id, attempt=old, run_at=datetime.now(UTC), **failure)
        await tasks.set_progress(conn, task_id, attempt=old, stage="old", fraction=0.5)
        assert await tasks.succeed(conn, task_id, attempt=new, data=b"2")
        assert not await tasks.succeed(conn, task_id, attempt=new, data=b"3")
        assert await tasks.result(conn, task_id) == tasks.Result(data=b"2", blob=None)
    done = await _get(db, caller, task_id)
    assert (done.state, done.attempts, done.errors, done.stage) == ("succeeded", 2, 0, None)


async def test_an_idempotency_key_is_a_users_own(db: Database) -> None:
    """The second task of a key is not stored; that of another organisation is."""
    first, second = await new_principal(db), await new_principal(db)
    made = await _add(db, first, idempotency_key="k")
    await _add(db, second, idempotency_key="k")
    with pytest.raises(AssertionError):
        await _add(db, first, idempotency_key="k")
    async with db.tenant(first) as conn:
        found = await tasks.find_by_key(conn, first.user_id, "k")
        assert found is not None
        assert found.id == made
        assert await tasks.find_by_key(conn, second.user_id, "k") is None


async def test_counting_stops_at_the_limit(db: Database) -> None:
    """Finished tasks do not count."""
    caller = await new_principal(db)
    made = [await _add(db, caller) for _ in range(4)]
    async with db.tenant(caller) as conn:
        await tasks.cancel(conn, made[0])
        assert await tasks.count_unfinished(conn, limit=10) == 3
        assert await tasks.count_unfinished(conn, limit=2) == 2


async def test_lists_and_counts_use_an_index(db: Database) -> None:
    """No list reads, or sorts, a tenant's whole history."""
    caller = await new_principal(db)
    async with db.tenant(caller) as conn:
        await conn.execute("SET LOCAL enable_seqscan = off")
        for where in ("state = 'dead'", "engine = 'chat'", "true"):
            rows = await (
                await conn.execute(f"EXPLAIN SELECT id FROM tasks WHERE {where} ORDER BY id DESC LIMIT 50")
            ).fetchall()
            plan = "\n".join(row["QUERY PLAN"] for row in rows)
            assert "Index" in plan, plan
            assert "Sort" not in plan, plan
