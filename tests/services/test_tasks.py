"""Tasks over a real database and queue with an engine under the test's control."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from neuroedge.contract.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NeuroEdgeError,
    NotFound,
    Overloaded,
    TooLarge,
    Unavailable,
)
from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal
from neuroedge.contract.scope import priority
from neuroedge.infra.queue import JobQueue
from neuroedge.services import task_run
from neuroedge.services.task_progress import TaskProgress
from neuroedge.services.task_run import MAX_INTERRUPTIONS, TaskRuns
from neuroedge.services.tasks import Order, Tasks
from neuroedge.stores import tasks as rows
from neuroedge.stores.postgres import Database
from neuroedge.stores.tasks import Task
from tests.services.echo_engine import NOW, Away, Runner, StoppedClock, Stream, echoed
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio


class Bench:
    """Services over the test's database."""

    def __init__(self, db: Database, queue: JobQueue) -> None:
        self.db = db
        self.runner: Any = Runner()
        self.stream: Any = Stream()
        self.clock = StoppedClock()
        self.queue = queue
        progress = TaskProgress(db=db, events=self.stream)
        common: dict[str, Any] = {
            "runner": self.runner,
            "queue": queue,
            "progress": progress,
            "clock": self.clock,
        }
        self.tasks = Tasks(db=db, keep_days=7, max_unfinished=50, **common)
        self.runs = TaskRuns(db=db, retry_wait_s=2.0, **common)

    async def submit(self, caller: Principal, text: str = "hello", **more: Any) -> Task:
        """A task of the echo engine."""
        order = Order(**{"engine": "echo", "payload": {"text": text}, **more})
        return await self.tasks.submit(order, principal=caller, request_id="r")

    async def run(self, caller: Principal, task_id: UUID) -> str:
        """Run the task as the job that may."""
        task = await self.tasks.get(caller, task_id)
        assert task.job_id is not None
        return await self.runs.run(caller.org_id, task_id, job_id=task.job_id)

    async def jobs(self, task_id: UUID) -> list[Any]:
        """The queue's jobs for a task."""
        found = await self.queue.app.job_manager.list_jobs_async(lock=f"task:{task_id}")
        return [(job.task_name, job.status, job.scheduled_at) for job in found]


@pytest.fixture
async def bench(db: Database) -> Bench:
    """Everything a task needs but a worker."""
    queue = JobQueue(db.pool)
    await queue.open()
    return Bench(db, queue)


@pytest.fixture
async def caller(db: Database) -> Principal:
    """The owner of a fresh organisation."""
    return await new_principal(db)


def _raising(error: BaseException) -> Callable[..., Awaitable[str]]:
    async def act(payload: Any, **_: Any) -> str:
        raise error

    return act


async def test_a_job_that_was_replaced_does_not_start_the_task(bench: Bench, caller: Principal) -> None:
    """After a retry only the new job runs; after the end none does."""
    task = await bench.submit(caller)
    assert task.job_id is not None
    await bench.tasks.cancel(caller, task.id, request_id="r")
    assert await bench.jobs(task.id) == []
    await bench.tasks.retry(caller, task.id, request_id="r")
    assert await bench.runs.run(caller.org_id, task.id, job_id=task.job_id) == "skipped"
    assert await bench.run(caller, task.id) == "succeeded"
    assert await bench.run(caller, task.id) == "skipped"
    assert len(bench.runner.callers) == 1


async def test_another_organisations_id_starts_nothing(bench: Bench, caller: Principal, db: Database) -> None:
    """A job that named the wrong tenant would find no row."""
    task = await bench.submit(caller)
    other = await new_principal(db)
    assert task.job_id is not None
    assert await bench.runs.run(other.org_id, task.id, job_id=task.job_id) == "skipped"


async def test_a_task_runs_with_the_rights_its_user_has_then(bench: Bench, caller: Principal, db: Database) -> None:
    """Not those of the day it was made; a user who left runs nothing any more."""
    first, second = await bench.submit(caller), await bench.submit(caller)
    async with db.tenant(caller) as conn:
        await conn.execute("UPDATE memberships SET role = 'viewer'")
    await bench.run(caller, first.id)
    assert bench.runner.callers[0].role == "viewer"
    assert bench.runner.callers[0].permissions == ROLE_PERMISSIONS["viewer"]
    async with db.tenant(caller) as conn:
        await conn.execute("DELETE FROM memberships")
    assert await bench.run(caller, second.id) == "skipped"
    failed = await bench.tasks.get(caller, second.id)
    assert (failed.state, failed.error_code, failed.attempts) == ("failed", "forbidden", 0)
    assert len(bench.runner.callers) == 1


async def test_who_may_not_run_an_engine_may_not_queue_it(bench: Bench, caller: Principal) -> None:
    """Refused at once, for a new task and for another's that is to run anew."""
    viewer = _as(caller, "viewer")
    with pytest.raises(Forbidden):
        await bench.submit(viewer)
    member = _as(caller, "member")
    with pytest.raises(Forbidden):
        await bench.submit(member, engine="guarded")
    guarded = await bench.submit(caller, engine="guarded")
    await bench.tasks.cancel(caller, guarded.id, request_id="r")
    with pytest.raises(Forbidden):
        await bench.tasks.retry(member, guarded.id, request_id="r")


async def test_the_run_has_the_tasks_priority(bench: Bench, caller: Principal) -> None:
    """Models and devices are shared by it."""
    seen = []

    async def act(payload: Any, **_: Any) -> str:
        seen.append(priority())
        return ""

    bench.runner.act = act
    for wanted in ("low", "high"):
        task = await bench.submit(caller, priority=wanted)
        await bench.run(caller, task.id)
    assert seen == ["low", "high"]
    assert priority() == "normal"


async def test_a_run_that_was_taken_over_cannot_spoil_the_new_ones_outcome(bench: Bench, caller: Principal) -> None:
    """A worker thought dead wakes up and brings its result after all: dropped, its blob too."""
    task = await bench.submit(caller)
    asleep, go_on = asyncio.Event(), asyncio.Event()

    async def sleepy(payload: Any, **_: Any) -> str:
        asleep.set()
        await go_on.wait()
        return "old " * 500_000

    bench.runner.act = sleepy
    old = asyncio.create_task(bench.run(caller, task.id))
    await asleep.wait()
    bench.runner.act = echoed
    assert await bench.run(caller, task.id) == "succeeded"
    go_on.set()
    assert await old == "outdated"
    done, data = await bench.tasks.result(caller, task.id)
    assert (done.attempts, done.interrupted) == (2, 1)
    assert json.loads(data)["text"] == "hello"
    assert bench.runner.objects.objects == {}
    assert bench.stream.names == ["queued", "started", "started", "succeeded"]


@pytest.mark.parametrize("late", ["answers", "fails", "stops"])
async def test_a_cancelled_task_stays_cancelled(bench: Bench, caller: Principal, late: str) -> None:
    """Whatever its run still brings, also after the task was queued anew."""
    task = await bench.submit(caller)
    asleep, go_on = asyncio.Event(), asyncio.Event()

    async def sleepy(payload: Any, **_: Any) -> str:
        asleep.set()
        await go_on.wait()
        if late == "fails":
            raise Unavailable("away")
        return "late"

    bench.runner.act = sleepy
    old = asyncio.create_task(bench.run(caller, task.id))
    await asleep.wait()
    await bench.tasks.cancel(caller, task.id, request_id="r")
    await bench.tasks.retry(caller, task.id, request_id="r")
    if late == "stops":
        old.cancel()
    go_on.set()
    with suppress(asyncio.CancelledError):
        assert await old == "outdated"
    waiting = await bench.tasks.get(caller, task.id)
    assert (waiting.state, waiting.interrupted, waiting.errors) == ("queued", 0, 0)


async def test_a_task_that_is_cut_off_too_often_is_given_up(bench: Bench, caller: Principal) -> None:
    """It may be what brings the workers down; the reason is stored, and running it anew is the caller's choice."""
    task = await bench.submit(caller)
    bench.runner.act = _raising(asyncio.CancelledError())
    for cut_off in range(1, MAX_INTERRUPTIONS + 1):
        with pytest.raises(asyncio.CancelledError):
            await bench.run(caller, task.id)
        assert (await bench.tasks.get(caller, task.id)).interrupted == cut_off
    assert await bench.run(caller, task.id) == "skipped"
    dead = await bench.tasks.get(caller, task.id)
    assert (dead.state, dead.error_code, dead.attempts) == ("dead", "interrupted", MAX_INTERRUPTIONS)
    assert str(MAX_INTERRUPTIONS) in (dead.error_detail or "")
    with pytest.raises(NeuroEdgeError) as caught:
        await bench.tasks.result(caller, task.id)
    assert caught.value.code == "interrupted"
    bench.runner.act = echoed
    assert (await bench.tasks.retry(caller, task.id, request_id="r")).interrupted == 0
    assert await bench.run(caller, task.id) == "succeeded"


async def test_a_crash_that_said_nothing_is_counted_at_the_next_start(bench: Bench, caller: Principal) -> None:
    """A row still running when its job comes again was cut off by kill -9."""
    task = await bench.submit(caller)
    async with bench.db.tenant(caller) as conn:
        await rows.start(conn, task.id, interrupted=MAX_INTERRUPTIONS - 2)
    assert await bench.run(caller, task.id) == "succeeded"
    assert (await bench.tasks.get(caller, task.id)).interrupted == MAX_INTERRUPTIONS - 1


async def test_waits_double_and_vary_and_heed_what_the_error_says(bench: Bench, caller: Principal) -> None:
    """2, 4, 8 … seconds, of each up to half less by chance, five minutes at most; Retry-After is a lower bound."""
    bench.runner.act = _raising(Unavailable("away"))
    task = await bench.submit(caller, max_attempts=10)
    for nth in range(9):
        assert await bench.run(caller, task.id) == "retrying"
        waiting = await bench.tasks.get(caller, task.id)
        assert waiting.next_run_at is not None
        wait_s = (waiting.next_run_at - NOW).total_seconds()
        longest_s = min(300.0, 2.0 * 2**nth)
        assert longest_s / 2 <= wait_s <= longest_s
        assert ("run_task", "todo", waiting.next_run_at) in await bench.jobs(task.id)
    assert await bench.run(caller, task.id) == "dead"
    bench.runner.act = _raising(Overloaded("full", retry_after_s=77))
    other = await bench.submit(caller)
    await bench.run(caller, other.id)
    waiting = await bench.tasks.get(caller, other.id)
    assert waiting.next_run_at == NOW + timedelta(seconds=77)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unavailable("x"), "retrying"),
        (NeuroEdgeError("x"), "retrying"),
        (ZeroDivisionError(), "retrying"),
        (TimeoutError(), "retrying"),
        (InvalidInput("x"), "failed"),
        (NotFound("x"), "failed"),
        (Forbidden("x"), "failed"),
        (TooLarge("x"), "failed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
async def test_only_what_may_pass_is_tried_again(
    bench: Bench, caller: Principal, error: Exception, outcome: str
) -> None:
    """A caller's mistake is the same the next time."""
    bench.runner.act = _raising(error)
    task = await bench.submit(caller)
    assert await bench.run(caller, task.id) == outcome


async def test_an_errors_text_that_no_database_can_hold_is_stored_without_it(bench: Bench, caller: Principal) -> None:
    """Zero characters and half characters, in text of any length."""
    bench.runner.act = _raising(NotFound("a\x00b\ud800" + "c" * 10_000, hint="\x00"))
    task = await bench.submit(caller)
    assert await bench.run(caller, task.id) == "failed"
    failed = await bench.tasks.get(caller, task.id)
    assert (failed.error_detail or "").startswith("ab?ccc")
    assert len(failed.error_detail or "") == 4000
    assert failed.error_hint == ""


async def test_a_result_nobody_could_keep_is_an_error(
    bench: Bench, caller: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a worker out of memory."""
    monkeypatch.setattr(task_run, "MAX_RESULT_BYTES", 1000)
    task = await bench.submit(caller, text="x" * 2000)
    assert await bench.run(caller, task.id) == "failed"
    assert (await bench.tasks.get(caller, task.id)).error_code == "too_large"


async def test_a_large_result_lies_in_the_blob_store(bench: Bench, caller: Principal) -> None:
    """Read back from there; a blob that is gone is told."""
    text = "x" * 600_000
    bench.runner.act = lambda payload, **_: asyncio.sleep(0, text * 2)
    task = await bench.submit(caller)
    assert await bench.run(caller, task.id) == "succeeded"
    assert list(bench.runner.objects.objects) == [f"tasks/{task.id}/1/result.json"]
    _, data = await bench.tasks.result(caller, task.id)
    assert json.loads(data)["text"] == text * 2
    bench.runner.objects.objects.clear()
    with pytest.raises(NotFound):
        await bench.tasks.result(caller, task.id)


async def test_an_outcome_survives_a_database_that_is_away_for_a_moment(bench: Bench, caller: Principal) -> None:
    """The work is not done again because its result could not be written at once."""
    task = await bench.submit(caller)
    away = Away(bench.db)
    bench.runs._db = away  # type: ignore[assignment]

    async def act(payload: Any, **_: Any) -> str:
        away.failures = 2
        return "kept"

    bench.runner.act = act
    assert await bench.run(caller, task.id) == "succeeded"
    assert away.failures == 0
    assert (await bench.tasks.get(caller, task.id)).attempts == 1


async def test_progress_is_told_now_and_then_and_never_fails_the_work(bench: Bench, caller: Principal) -> None:
    """Not every one of a thousand reports, and none that no row could hold; with the database away the run goes on."""
    task = await bench.submit(caller)
    away = Away(bench.db)
    bench.runs._db = away  # type: ignore[assignment]

    async def act(payload: Any, *, progress: Any, **_: Any) -> str:
        await progress("sta\x00ge" + "x" * 1000, float("nan"), anything=object())
        stored = await bench.tasks.get(caller, task.id)
        assert stored.stage == ("stage" + "x" * 1000)[:200]
        assert stored.fraction == 0.0
        for step in range(1000):
            await progress("again", step)
        progress._last = float("-inf")
        away.failures = 1
        await progress("unstored", 0.5)
        return "done"

    bench.runner.act = act
    assert await bench.run(caller, task.id) == "succeeded"
    assert bench.stream.names.count("progress") <= 4


async def test_the_sweep_deletes_what_was_kept_long_enough(bench: Bench, caller: Principal, db: Database) -> None:
    """In every organisation; large results by a job; what waits, runs or is fresh stays."""
    other = await new_principal(db)
    bench.runner.act = lambda payload, **_: asyncio.sleep(0, "x" * 2_000_000)
    large = await bench.submit(caller)
    await bench.run(caller, large.id)
    bench.runner.act = echoed
    theirs, fresh, waiting = await bench.submit(other), await bench.submit(caller), await bench.submit(caller)
    await bench.run(other, theirs.id)
    await bench.run(caller, fresh.id)
    for owner, task in ((caller, large), (other, theirs)):
        async with db.tenant(owner) as conn:
            await conn.execute("UPDATE tasks SET finished_at = now() - interval '8 days' WHERE id = %s", [task.id])
    bench.clock.time = datetime.now(UTC)
    assert await bench.tasks.sweep() >= 2
    assert {task.id for task in await bench.tasks.list(caller, limit=10)} == {fresh.id, waiting.id}
    assert await bench.tasks.list(other, limit=10) == []
    assert "delete_task_result" in [name for name, *_ in await bench.jobs(large.id)]
    await bench.tasks.delete_result(caller.org_id, large.id)
    assert bench.runner.objects.objects == {}


async def test_a_key_of_an_order_whose_time_has_passed_still_gives_its_task(bench: Bench, caller: Principal) -> None:
    """The second sending may come late; what was right the first time is not wrong now."""
    due = Order(engine="echo", payload={"text": "x"}, run_at=NOW + timedelta(hours=1))
    first = await bench.tasks.submit(due, principal=caller, request_id="r", idempotency_key="k")
    bench.clock.time = NOW + timedelta(days=1)
    assert (await bench.tasks.submit(due, principal=caller, request_id="r2", idempotency_key="k")).id == first.id
    with pytest.raises(InvalidInput, match="past"):
        await bench.tasks.submit(due, principal=caller, request_id="r3")
    other = Order(engine="echo", payload={"text": "y"})
    with pytest.raises(Conflict):
        await bench.tasks.submit(other, principal=caller, request_id="r4", idempotency_key="k")


def _as(caller: Principal, role: Any) -> Principal:
    return Principal(
        user_id=caller.user_id,
        org_id=caller.org_id,
        username=caller.username,
        role=role,
        permissions=ROLE_PERMISSIONS[role],
    )
