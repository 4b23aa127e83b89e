"""The ledger and the gateway together: what stands in the database is what the providers would bill."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, aclosing
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from neuroedge.bootstrap.llm import gateway_of
from neuroedge.contract.chat import LLM, Policy
from neuroedge.contract.errors import BudgetExceeded, NeuroEdgeError
from neuroedge.infra.breaker import Breakers
from neuroedge.services.llm.offers import Offer
from neuroedge.stores.llm_budgets import Budget
from neuroedge.stores.postgres import Database
from tests.fakes import FakeModels
from tests.services.llm.gateway_parts import FakeOffers, answer, ask, offer
from tests.services.llm.ledger_parts import NOON, PRICE, SetClock, make_budgets, make_ledger, rows, totals
from tests.stores.conftest import new_principal
from tests.upstreams import Reply, Upstream

pytestmark = pytest.mark.anyio
CALLS = 1000
PIECES = "one two three four five six seven eight "


def _gateway(stack: AsyncExitStack, ledger: Any, offers: list[Offer]) -> Any:
    return gateway_of(
        models=FakeModels({}),
        offers=FakeOffers(offers),
        ledger=ledger,
        breakers=Breakers(),
        registry=CollectorRegistry(),
        clock=SetClock(),
        stack=stack,
    )


async def _leave_early(llm: LLM, model: str) -> None:
    async with aclosing(llm.stream(ask(), policy=Policy(model=model, fallback=False))) as deltas:
        await anext(deltas)


async def test_a_thousand_mixed_calls_come_to_what_the_providers_counted(db: Database, upstream: Upstream) -> None:
    """Two wires, answers, refusals, answers that break off, callers that leave: each request has one row, and
    whatever a provider told is in it to the token; what it could not tell is marked as an estimate."""
    caller = await new_principal(db)
    upstream.script("cut", Reply(text=PIECES, cut_after=3))
    upstream.script("slow", Reply(text=PIECES, pause_s=0.01))
    upstream.script("bad", Reply(status=400, error="no"))
    wires: dict[str, Any] = {
        "good": "openai",
        "good-a": "anthropic",
        "bad": "openai",
        "cut": "openai",
        "slow": "openai",
    }
    offers = [
        offer(upstream, model, wire=wire, provider=f"up-{model}", price=PRICE, concurrency=30)
        for model, wire in wires.items()
    ]
    at_once = asyncio.Semaphore(20)
    async with AsyncExitStack() as stack:
        ledger = make_ledger(db)
        gateway = _gateway(stack, ledger, offers)
        llm = gateway.of(caller, "r")

        async def one(number: int) -> None:
            # Few that break off: a provider that only fails is left alone by its breaker.
            kind = "cut" if number % 100 == 7 else ["good", "good-a", "good", "bad", "slow"][number % 5]
            async with at_once:
                try:
                    if kind == "slow":
                        await _leave_early(llm, f"up-{kind}/{kind}")
                    else:
                        await answer(llm, ask("word " * (1 + number % 50)), model=f"up-{kind}/{kind}", fallback=False)
                except NeuroEdgeError:
                    assert kind in ("bad", "cut")

        await asyncio.gather(*(one(number) for number in range(CALLS)))
    for request in upstream.requests():
        await asyncio.to_thread(request.wait)
    await ledger.close()
    found = await rows(db, caller)
    assert Counter(row["model"] for row in found) == Counter(request.model for request in upstream.requests())
    assert len(found) >= CALLS - 10
    assert {row["state"] for row in found} == {"closed"}
    for model in ("good", "good-a", "bad"):
        kept = [row for row in found if row["model"] == model]
        billed = upstream.billed(model)
        assert (sum(r["prompt_tokens"] for r in kept), sum(r["completion_tokens"] for r in kept)) == billed
        assert not any(row["estimated"] for row in kept)
        assert sum(row["cost_usd"] for row in kept) == PRICE.of(prompt_tokens=billed[0], completion_tokens=billed[1])
    guessed = [row for row in found if row["model"] in ("cut", "slow")]
    assert {(row["model"], row["outcome"]) for row in guessed} == {("cut", "failed"), ("slow", "cancelled")}
    assert all(row["estimated"] and row["cost_usd"] > 0 for row in guessed)
    cut = [row["completion_tokens"] for row in found if row["model"] == "cut"]
    assert sum(cut) == upstream.billed("cut")[1]
    spent, reserved = (await totals(db, caller))["organisation", f"{NOON:%Y-%m}"]
    assert (spent, reserved) == (sum(row["cost_usd"] for row in found), Decimal(0))


async def test_a_spent_budget_lets_no_request_out(db: Database, upstream: Upstream) -> None:
    """The provider is not asked, and neither is another one that costs something."""
    caller, budgets = await new_principal(db), make_budgets(db)
    nothing = Budget(scope="organisation", period="month", soft_usd=None, hard_usd=Decimal(0))
    await budgets.replace(caller, [nothing], request_id="r")
    ledger = make_ledger(db, budgets=budgets)
    async with AsyncExitStack() as stack:
        gateway = _gateway(stack, ledger, [offer(upstream, "a", price=PRICE), offer(upstream, "b", price=PRICE)])
        with pytest.raises(BudgetExceeded):
            await answer(gateway.of(caller, "r"))
    await ledger.close()
    assert upstream.asked == []
    assert await rows(db, caller) == []
