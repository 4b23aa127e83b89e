"""Bulk jobs over a real database and queue: outcomes of each item, crashes, limits, other tenants."""

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from neuroedge.contract.errors import Conflict, Forbidden, InvalidInput, NotFound, Overloaded, TooLarge, Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.infra.queue import JobQueue
from neuroedge.services import batch_run
from neuroedge.services.batch_progress import BatchProgress
from neuroedge.services.batch_run import AT_ONCE, MAX_STARTS, BatchRuns
from neuroedge.services.batches import Batches
from neuroedge.stores.batches import Batch, Item, NewItem
from neuroedge.stores.postgres import Database
from tests.services.echo_engine import NOW, Away, Runner, StoppedClock, Stream
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio
MAX_WAITING = 12


class Bench:
    """Services over the test's database."""

    def __init__(self, db: Database, queue: JobQueue) -> None:
        self.db = db
        self.runner: Any = Runner()
        self.stream: Any = Stream()
        self.clock = StoppedClock()
        common: dict[str, Any] = {
            "db": db,
            "runner": self.runner,
            "queue": queue,
            "progress": BatchProgress(db=db, events=self.stream),
        }
        self.batches = Batches(clock=self.clock, keep_days=7, max_waiting=MAX_WAITING, **common)
        self.runs = BatchRuns(retry_wait_s=0.0, **common)

    async def submit(self, caller: Principal, *texts: str, key: str | None = None) -> Batch:
        """A batch of the echo engine, each item named like its text."""
        items = [NewItem(name=text, engine="echo", payload={"text": text}) for text in texts]
        return await self.batches.submit(
            items, priority="normal", principal=caller, request_id="r", idempotency_key=key
        )

    async def run(self, caller: Principal, batch_id: UUID) -> str:
        """Work on the batch as the job that may."""
        batch = await self.batches.get(caller, batch_id)
        assert batch.job_id is not None
        return await self.runs.run(caller.org_id, batch_id, job_id=batch.job_id)

    async def items(self, caller: Principal, batch_id: UUID) -> list[Item]:
        """All of them."""
        return await self.batches.items(caller, batch_id, after=-1, limit=100)


@pytest.fixture
async def bench(db: Database) -> Bench:
    """Everything a batch needs but a worker."""
    queue = JobQueue(db.pool)
    await queue.open()
    return Bench(db, queue)


@pytest.fixture
async def caller(db: Database) -> Principal:
    """The owner of a fresh organisation."""
    return await new_principal(db)


async def test_what_fails_in_one_item_is_its_own_outcome(bench: Bench, caller: Principal) -> None:
    """A refusal with its fields, a defect without its words; the others have their results."""

    async def act(payload: Any, **_: Any) -> str:
        if payload["text"] == "refused":
            raise InvalidInput("no", errors=[{"loc": ("body", "text"), "msg": "no", "type": "value_error"}])
        if payload["text"] == "broken":
            raise RuntimeError("a secret of the server")
        return f"did {payload['text']}"

    bench.runner.act = act
    batch = await bench.submit(caller, "a", "refused", "broken", "b")
    assert await bench.run(caller, batch.id) == "done"
    a, refused, broken, b = [item.outcome or {} for item in await bench.items(caller, batch.id)]
    assert [a["result"]["text"], b["result"]["text"]] == ["did a", "did b"]
    assert refused["error"]["errors"][0]["loc"] == ["body", "text"]
    assert "secret" not in json.dumps(broken)
    ended = await bench.batches.get(caller, batch.id)
    assert (ended.state, ended.succeeded, ended.failed) == ("done", 2, 2)
    lines = [json.loads(line) async for line in bench.batches.outcomes(caller, batch.id, state="failed")]
    assert [line["id"] for line in lines] == ["refused", "broken"]


async def test_only_what_failed_runs_again(bench: Bench, caller: Principal) -> None:
    """A retry leaves results alone; of a batch in which all succeeded nothing is left to run."""
    ran: list[str] = []

    async def act(payload: Any, **_: Any) -> str:
        ran.append(payload["text"])
        if payload["text"] == "b" and ran.count("b") == 1:
            raise InvalidInput("not yet")
        return "ok"

    bench.runner.act = act
    batch = await bench.submit(caller, "a", "b")
    await bench.run(caller, batch.id)
    again = await bench.batches.retry(caller, batch.id, request_id="r")
    assert (again.state, again.succeeded, again.failed) == ("queued", 1, 0)
    assert await bench.runs.run(caller.org_id, batch.id, job_id=batch.job_id or 0) == "skipped"
    assert await bench.run(caller, batch.id) == "done"
    assert sorted(ran) == ["a", "b", "b"]
    with pytest.raises(Conflict):
        await bench.batches.retry(caller, batch.id, request_id="r")


async def test_what_may_pass_is_tried_again_at_once(bench: Bench, caller: Principal) -> None:
    """A dependency that is away twice; and the database, when the outcome is to be stored."""
    failures, away = [2], Away(bench.db)
    bench.runs._db = away  # type: ignore[assignment]

    async def act(payload: Any, **_: Any) -> str:
        if failures[0]:
            failures[0] -= 1
            raise Unavailable("away")
        away.failures = 1
        return "here"

    bench.runner.act = act
    batch = await bench.submit(caller, "a")
    assert await bench.run(caller, batch.id) == "done"
    assert (await bench.items(caller, batch.id))[0].state == "succeeded"
    assert (failures, away.failures) == ([0], 0)


async def test_a_crash_loses_no_outcome_and_runs_the_rest(bench: Bench, caller: Principal) -> None:
    """What had its result is not run again; what was cut off comes first and alone."""
    ran: list[str] = []
    stuck = asyncio.Event()

    async def crashing(payload: Any, **_: Any) -> str:
        ran.append(payload["text"])
        if payload["text"] == "b":
            stuck.set()
            await asyncio.Event().wait()
        return "ok"

    bench.runner.act = crashing
    batch = await bench.submit(caller, *"abcdef")
    working = asyncio.create_task(bench.run(caller, batch.id))
    await stuck.wait()
    async with asyncio.timeout(60):
        while (await bench.batches.get(caller, batch.id)).succeeded < AT_ONCE - 1:  # noqa: ASYNC110 - in the database
            await asyncio.sleep(0.01)
    bench.runs._let_go = _nothing  # type: ignore[method-assign]  # a killed process says nothing
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working

    together: list[int] = []
    running = [0]

    async def act(payload: Any, **_: Any) -> str:
        ran.append(payload["text"])
        running[0] += 1
        together.append(running[0])
        await asyncio.sleep(0)
        running[0] -= 1
        return "ok"

    bench.runner.act = act
    assert await bench.run(caller, batch.id) == "done"
    assert sorted(ran) == [*"abbcdef"]
    assert (ran[AT_ONCE], together[0]) == ("b", 1)
    ended = await bench.batches.get(caller, batch.id)
    assert (ended.succeeded, ended.failed) == (6, 0)


async def _nothing(*_: Any) -> None:
    return None


async def test_an_item_that_brings_the_worker_down_is_given_up(bench: Bench, caller: Principal) -> None:
    """After some starts that ended in a crash; the others go on."""
    batch = await bench.submit(caller, "poison", "good")
    async with bench.db.tenant(caller) as conn:
        await conn.execute("UPDATE batch_items SET starts = %s WHERE position = 0", [MAX_STARTS])
    assert await bench.run(caller, batch.id) == "done"
    poison, good = await bench.items(caller, batch.id)
    assert poison.outcome is not None
    assert "cut off" in poison.outcome["error"]["detail"]
    assert good.state == "succeeded"


async def test_a_worker_that_stops_gives_its_items_back(bench: Bench, caller: Principal) -> None:
    """A stop in order is no crash: the start does not count."""
    started = asyncio.Event()

    async def endless(payload: Any, **_: Any) -> str:
        started.set()
        return await asyncio.Event().wait() and ""

    bench.runner.act = endless
    batch = await bench.submit(caller, "a")
    working = asyncio.create_task(bench.run(caller, batch.id))
    await started.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert [item.starts for item in await bench.items(caller, batch.id)] == [0]


async def test_a_long_batch_lets_others_go_first(
    bench: Bench, caller: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its slice of time the rest is a new job; the old one may work on it no more."""
    monkeypatch.setattr(batch_run, "SLICE_S", 0.0)
    batch = await bench.submit(caller, "a", "b")
    assert await bench.run(caller, batch.id) == "again"
    later = await bench.batches.get(caller, batch.id)
    assert later.job_id != batch.job_id
    assert await bench.runs.run(caller.org_id, batch.id, job_id=batch.job_id or 0) == "skipped"
    monkeypatch.setattr(batch_run, "SLICE_S", 30.0)
    assert await bench.run(caller, batch.id) == "done"


async def test_a_cancelled_batch_keeps_what_it_has_and_takes_nothing_late(bench: Bench, caller: Principal) -> None:
    """The run that still works is outdated."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def sleepy(payload: Any, **_: Any) -> str:
        started.set()
        await go_on.wait()
        return "late"

    bench.runner.act = sleepy
    batch = await bench.submit(caller, "a")
    working = asyncio.create_task(bench.run(caller, batch.id))
    await started.wait()
    for _ in range(2):
        assert (await bench.batches.cancel(caller, batch.id, request_id="r")).state == "cancelled"
    go_on.set()
    assert await working == "outdated"
    assert [item.outcome for item in await bench.items(caller, batch.id)] == [None]
    await bench.batches.delete(caller, batch.id, request_id="r")
    with pytest.raises(NotFound):
        await bench.batches.get(caller, batch.id)


async def test_an_organisation_has_a_number_of_waiting_items(bench: Bench, caller: Principal, db: Database) -> None:
    """More are refused whole, in new batches and in retries; another organisation has its own; an end makes room."""
    first = await bench.submit(caller, *(str(i) for i in range(MAX_WAITING)))
    with pytest.raises(Overloaded):
        await bench.submit(caller, "one more")
    await bench.submit(await new_principal(db), "its own")
    await bench.batches.cancel(caller, first.id, request_id="r")
    await bench.submit(caller, "one more")
    with pytest.raises(Overloaded):
        await bench.batches.retry(caller, first.id, request_id="r")
    assert [batch.total for batch in await _all(bench, caller)] == [1, MAX_WAITING]


async def test_another_organisation_finds_nothing(bench: Bench, caller: Principal, db: Database) -> None:
    """It cannot read, list, cancel, retry, delete or run it, and its keys are its own."""
    batch = await bench.submit(caller, "a", key="k")
    stranger = await new_principal(db)
    for act in (bench.batches.cancel, bench.batches.retry, bench.batches.delete):
        with pytest.raises(NotFound):
            await act(stranger, batch.id, request_id="r")
    for read in (bench.batches.get(stranger, batch.id), bench.items(stranger, batch.id)):
        with pytest.raises(NotFound):
            await read
    assert await _all(bench, stranger) == []
    assert await bench.runs.run(stranger.org_id, batch.id, job_id=batch.job_id or 0) == "skipped"
    assert (await bench.submit(stranger, "a", key="k")).id != batch.id


async def test_the_same_key_gives_the_same_batch_and_no_other_order(bench: Bench, caller: Principal) -> None:
    """Also while it is sent twice at the same moment."""
    made = await asyncio.gather(*(bench.submit(caller, "a", key="k") for _ in range(3)))
    assert len({batch.id for batch in made}) == 1
    with pytest.raises(Conflict):
        await bench.submit(caller, "b", key="k")


async def test_a_user_who_left_orders_nothing_any_more(bench: Bench, caller: Principal, db: Database) -> None:
    """The batch fails without having run; what waits is not run under somebody else's name."""
    batch = await bench.submit(caller, "a")
    async with db.tenant(caller) as conn:
        await conn.execute("DELETE FROM memberships")
    assert await bench.run(caller, batch.id) == "failed"
    assert (await bench.batches.get(caller, batch.id)).state == "failed"
    assert bench.runner.callers == []


async def test_orders_that_are_wrong_as_a_whole_are_refused(bench: Bench, caller: Principal) -> None:
    """An unknown engine, one that may not be run, a name twice, what is no JSON, too large; nothing is stored."""
    good = NewItem(name=None, engine="echo", payload={"text": "a"})
    wrong: list[tuple[type[Exception], Principal, list[NewItem]]] = [
        (NotFound, caller, [good, replace(good, engine="nothing")]),
        (Forbidden, replace(caller, permissions=frozenset()), [good]),
        (Forbidden, replace(caller, engines=frozenset({"other"})), [good]),
        (InvalidInput, caller, [replace(good, name="x"), replace(good, name="x")]),
        (InvalidInput, caller, [replace(good, payload={"text": float("nan")})]),
        (TooLarge, caller, [replace(good, payload={"text": "a" * (1 << 20)})]),
    ]
    for error, who, items in wrong:
        with pytest.raises(error):
            await bench.batches.submit(items, priority="normal", principal=who, request_id="r")
    assert await _all(bench, caller) == []


async def test_the_sweep_deletes_what_was_kept_long_enough(bench: Bench, caller: Principal, db: Database) -> None:
    """In every organisation; what waits or is fresh stays."""
    other = await new_principal(db)
    old = [await bench.submit(who, "a") for who in (caller, other)]
    for who, batch in zip((caller, other), old, strict=True):
        await bench.run(who, batch.id)
    waiting = await bench.submit(caller, "b")
    for who in (caller, other):
        async with db.tenant(who) as conn:
            await conn.execute(
                "UPDATE batches SET finished_at = %s WHERE state = 'done'", [NOW - timedelta(days=7, seconds=1)]
            )
    fresh = await bench.submit(other, "c")
    assert await bench.batches.sweep() >= 2
    assert [batch.id for batch in await _all(bench, caller)] == [waiting.id]
    assert [batch.id for batch in await _all(bench, other)] == [fresh.id]


async def _all(bench: Bench, who: Principal) -> list[Batch]:
    return await bench.batches.recent(who, limit=50, before=None, state=None)
