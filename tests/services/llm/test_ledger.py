"""The ledger of calls: there before the provider is asked, ended once, right about what was spent, whatever fails."""

import asyncio
import dataclasses
import json
import random
import sys
from collections import Counter
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from neuroedge.contract.errors import BudgetExceeded, InvalidInput, Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.infra.vault import new_master_key
from neuroedge.services.llm.calls import Outcome
from neuroedge.services.llm.offers import LOCAL, Offer
from neuroedge.stores.ids import new_id
from neuroedge.stores.llm_budgets import Budget
from neuroedge.stores.llm_calls import CallTable
from neuroedge.stores.postgres import Database
from tests.services.llm.ledger_parts import (
    FREE,
    NOON,
    PRICE,
    make_budgets,
    make_call,
    make_ledger,
    rows,
    spent,
    totals,
)
from tests.stores.conftest import Migrated, new_principal

pytestmark = pytest.mark.anyio


async def test_a_call_is_in_the_database_before_its_provider_is_asked_and_ends_with_its_cost(db: Database) -> None:
    """Every field is kept; what its answer may cost at most is set aside until it has ended."""
    ledger, caller = make_ledger(db), await new_principal(db)
    call = make_call(caller)
    await ledger.begin(call)
    (row,) = await rows(db, caller)
    assert (row["id"], row["state"], row["outcome"], row["cost_usd"]) == (call.id, "open", None, 0)
    assert row["reserved_usd"] == Decimal("0.002")
    assert (await totals(db, caller))["organisation", "2026-05"] == (0, Decimal("0.002"))
    cost = await ledger.end(call.id, spent(prompt_tokens=50, completion_tokens=4, cached_tokens=30, first_token_s=0.2))
    assert cost == Decimal(20 * 10 + 30 * 1 + 4 * 100) / 1_000_000
    (row,) = await rows(db, caller)
    expected: dict[str, Any] = {
        "user_id": caller.user_id,
        "request_id": "r1",
        "provider": "fake",
        "model": "m",
        "query_type": "chat",
        "private": False,
        "state": "closed",
        "outcome": "ok",
        "prompt_tokens": 50,
        "completion_tokens": 4,
        "cached_tokens": 30,
        "estimated": False,
        "cost_usd": cost,
        "reserved_usd": 0,
        "prompt_usd_per_million": 10,
        "price_source": "test",
        "seconds": 1.5,
        "first_token_s": 0.2,
        "error": None,
        "started_at": NOON,
        "ended_at": NOON,
    }
    assert {name: row[name] for name in expected} == expected
    assert row["price_date"].isoformat() == "2026-01-02"
    assert set((await totals(db, caller)).values()) == {(cost, Decimal(0))}
    await ledger.close()


async def test_an_end_counts_once_however_often_it_comes(db: Database) -> None:
    """Twice in a row, at the same time, from two processes: one cost."""
    first, second, caller = make_ledger(db), make_ledger(db), await new_principal(db)
    call = make_call(caller)
    await first.begin(call)
    await second.begin(call)
    costs = [await first.end(call.id, spent()), await first.end(call.id, spent(completion_tokens=999))]
    assert costs == [Decimal("0.002")] * 2
    await second.end(call.id, spent(completion_tokens=999))
    (row,) = await rows(db, caller)
    assert row["completion_tokens"] == 10
    assert set((await totals(db, caller)).values()) == {(Decimal("0.002"), Decimal(0))}
    assert await first.end(new_id(), spent()) == 0
    await first.close()
    await second.close()


async def test_a_call_without_a_known_price_costs_nothing_that_is_known(db: Database) -> None:
    """It is in the ledger, and can be told from one that is free."""
    ledger, caller = make_ledger(db), await new_principal(db)
    call = make_call(caller, price=None)
    await ledger.begin(call)
    assert await ledger.end(call.id, spent()) == 0
    (row,) = await rows(db, caller)
    assert row["prompt_usd_per_million"] is None
    await ledger.close()


async def test_a_local_call_waits_for_nothing_and_is_in_the_ledger(db: Database) -> None:
    """Even where its end overtakes its beginning."""
    ledger, caller = make_ledger(db), await new_principal(db)
    call = make_call(caller, price=FREE, offer=Offer(provider=LOCAL, wire="local", model="m", price=FREE, private=True))
    await ledger.begin(call)
    await ledger.end(call.id, spent())
    await ledger.close()
    (row,) = await rows(db, caller)
    assert (row["state"], row["provider"], row["private"], row["completion_tokens"]) == ("closed", LOCAL, True, 10)
    assert await totals(db, caller) == {}


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({"prompt_tokens": -5, "completion_tokens": -1, "cached_tokens": -2}, (0, 0, 0)),
        ({"prompt_tokens": 10**30, "completion_tokens": 1, "cached_tokens": 0}, (10**9, 1, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 1, "cached_tokens": 50}, (5, 1, 5)),
    ],
)
async def test_counts_that_cannot_be_are_made_possible(
    db: Database, told: dict[str, int], kept: tuple[int, int, int]
) -> None:
    """A provider's numbers neither earn money nor break the ledger."""
    ledger, caller = make_ledger(db), await new_principal(db)
    call = make_call(caller)
    await ledger.begin(call)
    assert await ledger.end(call.id, spent(**told)) >= 0
    (row,) = await rows(db, caller)
    assert (row["prompt_tokens"], row["completion_tokens"], row["cached_tokens"]) == kept
    await ledger.close()


class Scripted:
    """A provider that counts what it was asked and said, and fails as it is told."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()

    async def answer(self, how: Outcome, tokens: tuple[int, int]) -> None:
        """Count, and take a moment."""
        self.counted.update(calls=1, prompt=tokens[0], completion=tokens[1])
        self.counted[how] += 1
        await asyncio.sleep(0)


async def test_the_sum_of_the_ledger_is_what_the_providers_counted(db: Database) -> None:
    """1,000 calls of three users at once, answered, cancelled, failed, ended twice; to the last fraction of a cent."""
    ledger, owner, provider = make_ledger(db), await new_principal(db), Scripted()
    users = [owner, *(dataclasses.replace(owner, user_id=new_id()) for _ in range(2))]
    dice = random.Random(5)
    expected = Decimal(0)

    async def one(number: int) -> None:
        nonlocal expected
        outcomes: list[Outcome] = ["ok", "ok", "ok", "cancelled", "failed"]
        how, tokens = dice.choice(outcomes), (dice.randrange(1, 3000), dice.randrange(500))
        call = make_call(users[number % 3])
        await ledger.begin(call)
        await provider.answer(how, tokens)
        end = spent(outcome=how, prompt_tokens=tokens[0], completion_tokens=tokens[1])
        expected += PRICE.of(prompt_tokens=tokens[0], completion_tokens=tokens[1])
        ends = [ledger.end(call.id, end) for _ in range(1 + number % 2)]
        assert len(set(await asyncio.gather(*ends))) == 1

    await asyncio.gather(*(one(number) for number in range(1000)))
    found = await rows(db, owner)
    assert len(found) == provider.counted["calls"] == 1000
    assert {row["state"] for row in found} == {"closed"}
    assert Counter(row["outcome"] for row in found) == {
        name: provider.counted[name] for name in ("ok", "cancelled", "failed")
    }
    assert sum(row["prompt_tokens"] for row in found) == provider.counted["prompt"]
    assert sum(row["completion_tokens"] for row in found) == provider.counted["completion"]
    assert sum(row["cost_usd"] for row in found) == expected
    async with db.tenant(owner) as conn:
        kept = await (await conn.execute("SELECT * FROM llm_totals WHERE period = '2026-05'")).fetchall()
    assert len(kept) == 4
    assert sum(row["cost_usd"] for row in kept) == 2 * expected
    assert {row["reserved_usd"] for row in kept} == {0}
    await ledger.close()


class UnsteadyTable(CallTable):
    """The table of a database that can be away, or refuse."""

    away = False

    async def begin(self, *args: Any, **more: Any) -> Any:
        """Unless it is away."""
        if self.away:
            raise Unavailable("away")
        return await super().begin(*args, **more)

    async def end(self, *args: Any, **more: Any) -> None:
        """Unless it is away."""
        if self.away:
            raise Unavailable("away")
        await super().end(*args, **more)


async def test_what_ends_while_the_database_is_away_is_written_when_it_is_back(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends wait at most the limit, and then not at all; what costs money does not begin meanwhile."""
    monkeypatch.setattr("neuroedge.services.llm.ledger._RETRY_S", (0.01,))
    ledger, caller = make_ledger(db, wait_s=0.05), await new_principal(db)
    table = ledger._table = UnsteadyTable(db, to_disk=False)
    calls = [make_call(caller) for _ in range(5)]
    await asyncio.gather(*(ledger.begin(call) for call in calls))
    table.away = True
    assert {await ledger.end(call.id, spent()) for call in calls} == {Decimal("0.002")}
    with pytest.raises(Unavailable):
        await ledger.begin(make_call(caller))
    local = make_call(caller, price=FREE)
    await ledger.begin(local)
    await ledger.end(local.id, spent())
    assert {row["state"] for row in await rows(db, caller)} == {"open"}
    table.away = False
    await ledger.close()
    found = await rows(db, caller)
    assert Counter(row["state"] for row in found) == {"closed": 7}
    assert Counter(row["error"] for row in found) == {None: 6, "not_asked": 1}
    assert (await totals(db, caller))["user", "2026-05-31"] == (Decimal("0.010"), 0)


async def test_a_lost_connection_is_replaced(db: Database, migrated: Migrated) -> None:
    """PostgreSQL ended the session in between: the end is written over the next one."""
    ledger, caller = make_ledger(db), await new_principal(db)
    call = make_call(caller)
    await ledger.begin(call)
    with psycopg.connect(migrated.owner_url, autocommit=True) as owner:
        owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'neuroedge_app'")
    await ledger.end(call.id, spent())
    await ledger.close()
    assert [row["state"] for row in await rows(db, caller)] == ["closed"]


async def test_a_caller_that_leaves_while_its_call_begins_leaves_no_open_row(db: Database) -> None:
    """Its provider is never asked, so it costs nothing, and nothing stays set aside."""
    ledger, caller = make_ledger(db), await new_principal(db)
    await ledger.begin(make_call(caller))
    leaving = asyncio.create_task(ledger.begin(make_call(caller)))
    for _ in range(4):
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    await ledger.close()
    found = await rows(db, caller)
    assert Counter((row["state"], row["error"]) for row in found)["open", None] == 1
    assert all(row["cost_usd"] == 0 for row in found)
    assert (await totals(db, caller))["organisation", "2026-05"] == (0, Decimal("0.002"))


async def test_a_row_the_database_refuses_takes_no_other_with_it(db: Database) -> None:
    """A zero byte in one call's request id; an organisation that is gone."""
    ledger, caller = make_ledger(db), await new_principal(db)
    bad = make_call(caller, request_id="zero \x00 byte")
    results = await asyncio.gather(
        *(ledger.begin(call) for call in (make_call(caller), bad, make_call(caller))), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), InvalidInput, type(None)]
    gone = dataclasses.replace(caller, org_id=new_id())
    with pytest.raises(InvalidInput):
        await ledger.begin(make_call(gone))
    assert len(await rows(db, caller)) == 2
    await ledger.close()


KILLED = """
import asyncio, json, sys
from uuid import UUID
from neuroedge.stores.postgres import Database
from tests.services.llm.ledger_parts import make_call, make_ledger
from tests.fakes import make_principal
from neuroedge.infra.vault import Vault
import dataclasses

async def main():
    told = json.loads(sys.stdin.readline())
    db = Database(told["url"], max_size=4, keys=Vault(told["key"]))
    await db.open()
    caller = dataclasses.replace(make_principal(), org_id=UUID(told["org"]), user_id=UUID(told["user"]))
    ledger = make_ledger(db, lease_s=0.2)
    ledger._budgets.limits = lambda *_: asyncio.sleep(0, told_limits())
    await asyncio.gather(*(ledger.begin(make_call(caller, request_id=f"r{n}")) for n in range(20)))
    print("begun", flush=True)
    await asyncio.sleep(600)

def told_limits():
    from neuroedge.services.llm.budgets import NO_LIMITS
    return NO_LIMITS

asyncio.run(main())
"""


async def test_calls_of_a_process_that_was_killed_are_closed_as_lost_once(db: Database, migrated: Migrated) -> None:
    """kill -9 after they began: all are there; two sweeps at once lose each once, at the price of its prompt."""
    caller = await new_principal(db)
    told = {
        "url": migrated.app_url,
        "key": new_master_key(),
        "org": str(caller.org_id),
        "user": str(caller.user_id),
    }
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(told).encode() + b"\n")
        assert await process.stdout.readline() == b"begun\n"
    finally:
        process.kill()
        await process.communicate()
    assert Counter(row["state"] for row in await rows(db, caller)) == {"open": 20}
    first, second = make_ledger(db), make_ledger(db)
    await _lease_over(migrated, caller)
    lost = await asyncio.gather(first.sweep(), second.sweep())
    assert sum(lost) >= 20
    await first.sweep()
    found = await rows(db, caller)
    assert Counter((row["outcome"], row["estimated"], row["prompt_tokens"]) for row in found) == {
        ("lost", True, 100): 20
    }
    assert (await totals(db, caller))["organisation", "2026-05"] == (Decimal("0.020"), 0)
    await first.close()
    await second.close()


async def _lease_over(migrated: Migrated, caller: Principal) -> None:
    """As if its time had passed."""
    with psycopg.connect(migrated.owner_url, autocommit=True) as owner:
        owner.execute(
            "UPDATE llm_calls SET alive_until = now() - interval '1 second' WHERE org_id = %s AND state = 'open'",
            [caller.org_id],
        )


async def test_the_sweep_leaves_alone_what_a_process_keeps_alive(db: Database, migrated: Migrated) -> None:
    """The lease is renewed as long as the call is being made."""
    ledger, caller = make_ledger(db, lease_s=60), await new_principal(db)
    call = make_call(caller)
    await ledger.begin(call)
    await _lease_over(migrated, caller)
    await ledger._renew()
    await ledger.sweep()
    assert [row["state"] for row in await rows(db, caller)] == ["open"]
    await ledger.end(call.id, spent())
    await ledger.close()


async def test_a_call_given_up_too_early_is_put_right_by_its_end(db: Database, migrated: Migrated) -> None:
    """Its process was only cut off: the truth replaces the estimate, once, in the sums too."""
    ledger, caller = make_ledger(db), await new_principal(db)
    call = make_call(caller)
    await ledger.begin(call)
    await _lease_over(migrated, caller)
    assert await ledger.sweep() >= 1
    cost = await ledger.end(call.id, spent(completion_tokens=7))
    await ledger.close()
    (row,) = await rows(db, caller)
    assert (row["outcome"], row["completion_tokens"], row["cost_usd"]) == ("ok", 7, cost)
    assert set((await totals(db, caller)).values()) == {(cost, Decimal(0))}


async def test_a_call_over_the_budget_has_no_row(db: Database) -> None:
    """It was not made; its end, should one come, costs nothing."""
    budgets, caller = make_budgets(db), await new_principal(db)
    limit = Budget(scope="organisation", period="day", soft_usd=None, hard_usd=Decimal(0))
    await budgets.replace(caller, [limit], request_id="r")
    ledger = make_ledger(db, budgets=budgets)
    call = make_call(caller)
    with pytest.raises(BudgetExceeded):
        await ledger.begin(call)
    assert await ledger.end(call.id, spent()) == 0
    assert await rows(db, caller) == []
    await ledger.close()


async def test_ends_beyond_what_is_kept_in_memory_are_left_to_the_sweep(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded while the database is away; the rest are lost, not forgotten."""
    monkeypatch.setattr("neuroedge.services.llm.ledger._RETRY_S", (0.01,))
    ledger, caller = make_ledger(db, wait_s=0.05, kept=3), await new_principal(db)
    table = ledger._table = UnsteadyTable(db, to_disk=False)
    calls = [make_call(caller) for _ in range(5)]
    await asyncio.gather(*(ledger.begin(call) for call in calls))
    table.away = True
    for call in calls:
        await ledger.end(call.id, spent())
    table.away = False
    await ledger.close()
    assert Counter(row["state"] for row in await rows(db, caller)) == {"closed": 3, "open": 2}


async def test_two_organisations_calls_in_one_batch_stay_apart(db: Database) -> None:
    """Each under its own, though they begin together."""
    ledger = make_ledger(db)
    callers = [await new_principal(db) for _ in range(3)]
    calls = [make_call(caller) for caller in callers for _ in range(4)]
    await asyncio.gather(*(ledger.begin(call) for call in calls))
    await asyncio.gather(*(ledger.end(call.id, spent()) for call in calls))
    for caller in callers:
        found = await rows(db, caller)
        ids: set[UUID] = {row["id"] for row in found}
        assert ids == {call.id for call in calls if call.org_id == caller.org_id}
    await ledger.close()
