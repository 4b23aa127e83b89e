"""Budgets: warned once at the soft limit, refused at the hard one, whoever calls at the same time."""

import asyncio
import dataclasses
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from neuroedge.contract.errors import BudgetExceeded, NotFound
from neuroedge.contract.principal import ROLE_PERMISSIONS
from neuroedge.services.llm.budgets import TOPIC
from neuroedge.stores.ids import new_id
from neuroedge.stores.llm_budgets import Budget
from neuroedge.stores.postgres import Database
from tests.services.llm.ledger_parts import FREE, HeardEvents, make_budgets, make_call, make_ledger, rows, spent
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio


def limit(
    usd: str, *, scope: Any = "organisation", period: Any = "day", soft: str | None = None, member: Any = None
) -> Budget:
    """A hard limit, and perhaps a soft one."""
    return Budget(
        scope=scope, period=period, soft_usd=Decimal(soft) if soft else None, hard_usd=Decimal(usd), member_id=member
    )


async def made(ledger: Any, call: Any) -> bool:
    """Whether the call was let through; if so, it costs 0.002 dollars."""
    try:
        await ledger.begin(call)
    except BudgetExceeded:
        return False
    await ledger.end(call.id, spent())
    return True


@pytest.mark.parametrize(
    ("scope", "period"), [("organisation", "day"), ("organisation", "month"), ("each_user", "day")]
)
async def test_calls_are_refused_from_the_hard_limit_on(db: Database, scope: Any, period: Any) -> None:
    """Five calls of 0.002 dollars for 0.01, no sixth; refused before anything is written."""
    budgets, caller = make_budgets(db), await new_principal(db)
    await budgets.replace(caller, [limit("0.01", scope=scope, period=period)], request_id="r")
    ledger = make_ledger(db, budgets=budgets)
    assert [await made(ledger, make_call(caller)) for _ in range(7)] == [True] * 5 + [False] * 2
    assert len(await rows(db, caller)) == 5
    await ledger.close()


async def test_calls_at_the_same_time_pass_the_limit_by_one_at_most(db: Database) -> None:
    """What the open ones may cost is set aside, in whatever process they run."""
    caller = await new_principal(db)
    first = make_budgets(db)
    await first.replace(caller, [limit("0.01")], request_id="r")
    ledgers = [make_ledger(db, budgets=budgets) for budgets in (first, make_budgets(db))]
    calls = [make_call(caller) for _ in range(40)]
    results = await asyncio.gather(
        *(ledgers[n % 2].begin(call) for n, call in enumerate(calls)), return_exceptions=True
    )
    assert sum(result is None for result in results) == 5
    assert sum(isinstance(result, BudgetExceeded) for result in results) == 35
    for ledger in ledgers:
        for call in calls:
            await ledger.end(call.id, spent(completion_tokens=0))
        await ledger.close()


async def test_what_was_set_aside_and_not_spent_can_be_spent(db: Database) -> None:
    """A call that costs less than it might have leaves the rest to others."""
    budgets, caller = make_budgets(db), await new_principal(db)
    await budgets.replace(caller, [limit("0.01")], request_id="r")
    ledger = make_ledger(db, budgets=budgets)
    big = make_call(caller, max_tokens=100_000)
    await ledger.begin(big)
    assert not await made(ledger, make_call(caller))
    await ledger.end(big.id, spent(prompt_tokens=1, completion_tokens=0, outcome="failed"))
    assert await made(ledger, make_call(caller))
    await ledger.close()


async def test_what_costs_nothing_goes_on(db: Database) -> None:
    """Local models are free, whatever was spent."""
    budgets, caller = make_budgets(db), await new_principal(db)
    await budgets.replace(caller, [limit("0")], request_id="r")
    ledger = make_ledger(db, budgets=budgets)
    assert not await made(ledger, make_call(caller))
    assert not await made(ledger, make_call(caller, price=None))
    assert await made(ledger, make_call(caller, price=FREE))
    await ledger.close()


async def test_a_members_own_limit_goes_before_each_users(db: Database) -> None:
    """The one with more may go on when a colleague is stopped."""
    budgets, owner = make_budgets(db), await new_principal(db)
    colleague = dataclasses.replace(owner, user_id=new_id())
    await budgets.replace(
        owner,
        [limit("0.002", scope="each_user"), limit("0.006", scope="user", member=owner.user_id)],
        request_id="r",
    )
    ledger = make_ledger(db, budgets=budgets)
    assert [await made(ledger, make_call(colleague)) for _ in range(2)] == [True, False]
    assert [await made(ledger, make_call(owner)) for _ in range(4)] == [True, True, True, False]
    await ledger.close()


async def test_a_new_day_and_a_new_month_begin_at_nothing(db: Database) -> None:
    """By the time a call began, in UTC: what is spent on the 31st is none of the 1st's."""
    budgets, caller = make_budgets(db), await new_principal(db)
    await budgets.replace(caller, [limit("0.002"), limit("0.004", period="month")], request_id="r")
    ledger = make_ledger(db, budgets=budgets)
    days = [
        datetime(2026, 5, 30, 23, 59, tzinfo=UTC),
        datetime(2026, 5, 31, tzinfo=UTC),
        datetime(2026, 6, 1, tzinfo=UTC),
    ]
    results = [[await made(ledger, make_call(caller, started_at=day)) for _ in range(2)] for day in days]
    assert results == [[True, False], [True, False], [True, False]]
    await budgets.replace(caller, [limit("1"), limit("0.004", period="month")], request_id="r")
    assert not await made(ledger, make_call(caller, started_at=days[1]))
    assert await made(ledger, make_call(caller, started_at=days[2]))
    await ledger.close()


async def test_the_operators_limit_holds_for_all_and_cannot_be_raised(db: Database) -> None:
    """An organisation's own may only be lower."""
    budgets, caller = make_budgets(db, month_usd=Decimal("0.004")), await new_principal(db)
    ledger = make_ledger(db, budgets=budgets)
    assert [await made(ledger, make_call(caller)) for _ in range(3)] == [True, True, False]
    await budgets.replace(caller, [limit("1000", period="month")], request_id="r")
    assert not await made(ledger, make_call(caller))
    await ledger.close()


async def test_the_soft_limit_warns_once_by_event_and_audit_and_stops_nothing(db: Database) -> None:
    """Two processes, many calls: one warning for the day; another limit is warned of anew."""
    events, caller = HeardEvents(), await new_principal(db)
    soft = Budget(scope="organisation", period="day", soft_usd=Decimal("0.003"), hard_usd=None)
    both = [make_budgets(db, events=events) for _ in range(2)]
    await both[0].replace(caller, [soft], request_id="r")
    ledgers = [make_ledger(db, budgets=budgets) for budgets in both]
    assert await both[0].reached(caller) == []
    for number in range(10):
        assert await made(ledgers[number % 2], make_call(caller))
    for ledger in ledgers:
        await ledger.close()
    (heard,) = events.heard
    assert heard[:3] == (caller.org_id, TOPIC, "budget_warning")
    assert heard[3]["period"] == "2026-05-31"
    async with db.tenant(caller) as conn:
        found = await (await conn.execute("SELECT * FROM audit WHERE action = 'llm.budget_warning'")).fetchall()
    assert [(row["target"], row["detail"]["soft_usd"]) for row in found] == [(f"organisation:{caller.org_id}", "0.003")]
    (told,) = await make_budgets(db).reached(caller)
    assert (told.scope, told.period, told.cost_usd, told.soft_usd) == (
        "organisation",
        "day",
        Decimal("0.02"),
        Decimal("0.003"),
    )
    await both[0].replace(caller, [dataclasses.replace(soft, soft_usd=Decimal("0.001"))], request_id="r")
    ledger = make_ledger(db, budgets=both[0])
    assert await made(ledger, make_call(caller))
    await ledger.close()
    assert len(events.heard) == 2


async def test_where_it_stands_is_told_to_each_as_it_concerns_them(db: Database) -> None:
    """Everyone: the organisation and themselves; who manages it: the members with limits of their own too."""
    budgets, owner = make_budgets(db), await new_principal(db)
    member = dataclasses.replace(
        owner, user_id=new_id(), role="member", permissions=ROLE_PERMISSIONS["member"], username="m"
    )
    await budgets.replace(
        owner, [limit("0.01", soft="0.002"), limit("0.02", scope="user", member=owner.user_id)], request_id="r"
    )
    ledger = make_ledger(db, budgets=budgets)
    await made(ledger, make_call(owner))
    await ledger.begin(open_call := make_call(owner))
    standing = {(one.scope, one.period, one.member_id): one for one in await budgets.standing(member)}
    assert {key[2] for key in standing} == {None, member.user_id}
    day = standing["organisation", "day", None]
    assert (day.cost_usd, day.reserved_usd, day.warns) == (Decimal("0.002"), Decimal("0.002"), True)
    assert standing["user", "day", member.user_id].cost_usd == 0
    own = {(one.scope, one.period, one.member_id): one for one in await budgets.standing(owner)}
    assert own["user", "day", owner.user_id].hard_usd == Decimal("0.02")
    await ledger.end(open_call.id, spent())
    await ledger.close()


async def test_a_limit_for_who_is_no_member_is_refused(db: Database) -> None:
    """And the budgets before it stay."""
    budgets, caller = make_budgets(db), await new_principal(db)
    before = [limit("1")]
    await budgets.replace(caller, before, request_id="r")
    with pytest.raises(NotFound):
        await budgets.replace(caller, [limit("2"), limit("1", scope="user", member=new_id())], request_id="r")
    assert await budgets.read(caller) == before
