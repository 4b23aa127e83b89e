"""What the providers want to be paid for is what the database says, whatever goes wrong on the way."""

import asyncio
from collections import Counter
from contextlib import aclosing
from decimal import Decimal
from typing import Any

import pytest

from neuroedge.contract.chat import Policy
from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.services.llm.offers import Offer
from neuroedge.stores.postgres import Database
from tests.services.llm.gateway_parts import ask, gateway_over, offer
from tests.services.llm.ledger_parts import PRICE, make_ledger, rows
from tests.stores.conftest import new_principal
from tests.upstreams import Reply, Upstream

pytestmark = pytest.mark.anyio

CALLS = 1000
AT_ONCE = 16
REPLIES: dict[str, tuple[Reply, ...]] = {
    "good": (Reply(text="one two three four"),),
    "cached": (Reply(cached_tokens=2),),
    "hiccups": (Reply(status=503), Reply(text="here I am"), Reply(cut=True), Reply(text="again")) * CALLS,
    "busy": (Reply(status=429, retry_after="30"),),
    "broken": (Reply(status=500),),
    "refuses": (Reply(status=400),),
    "breaks": (Reply(text="one two three four", usage="each", cut_after=3),),
    "left": (Reply(text="one two three four", usage="each", stall_after=2),),
    "silent": (Reply(text="one two three", usage="missing"),),
    "liar": (Reply(text="one two three", usage=(-4, 10**9)),),
}
"""By model: what its provider does."""
EXACT = ("good", "cached", "hiccups", "busy", "broken", "refuses", "breaks", "left")
"""Where the provider tells in time; elsewhere only the prompt's length is an estimate."""


async def test_the_ledger_is_what_the_providers_counted(db: Database, upstream: Upstream) -> None:
    """1,000 mixed calls over real HTTP, both wire formats: answered, refused, cut, left, lied about, by fallback."""
    for model, replies in REPLIES.items():
        upstream.script(model, *replies)
    ledger, owner = make_ledger(db), await new_principal(db)
    async with gateway_over(*_offers(upstream), written=ledger) as parts:
        llm, outcomes, limit = parts.gateway.of(owner, "r"), Counter[str](), asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            model = list(REPLIES)[number % len(REPLIES)]
            async with limit:
                outcomes[await _call(llm, model, fallback=number % 3 == 0)] += 1

        await asyncio.gather(*(one(number) for number in range(CALLS)))
    await ledger.close()
    written = await rows(db, owner)
    assert outcomes.total() == CALLS
    assert set(outcomes) >= {"answered", "left", "provider_broke", "provider_failed", "overloaded", "provider_refused"}
    assert len(written) == len(upstream.asked)
    assert {row["state"] for row in written} == {"closed"}
    for model in REPLIES:
        own = [row for row in written if row["model"] == model]
        told = sum(row["prompt_tokens"] for row in own), sum(row["completion_tokens"] for row in own)
        billed = upstream.billed(model)
        assert len(own) == len(upstream.requests(model)), model
        assert told[1] == billed[1], model
        if model in EXACT:
            assert told[0] == billed[0], model
            assert not any(row["estimated"] for row in own), model
        else:
            assert billed[0] <= told[0] <= 5 * billed[0], model
            assert all(row["estimated"] for row in own), model
    assert sum(row["cost_usd"] for row in written) == sum((_cost(row) for row in written), Decimal(0)) > 0


def _offers(upstream: Upstream) -> list[Offer]:
    """Each model at a provider of its own; cuts and lies by either wire, progress of usage only where there is any."""
    made = []
    for position, model in enumerate(REPLIES):
        wire: Any = "anthropic" if position % 2 and model not in ("breaks", "left", "silent") else "openai"
        made.append(offer(upstream, model, provider=model, wire=wire, price=PRICE, concurrency=AT_ONCE))
    return made


async def _call(llm: Any, model: str, *, fallback: bool) -> str:
    """One call; how it ended for its caller."""
    policy = Policy(model=f"{model}/{model}", fallback=fallback)
    try:
        async with aclosing(llm.stream(ask("one two three four five"), policy=policy)) as deltas:
            count = 0
            async for _ in deltas:
                count += 1
                if model == "left" and count == 2:
                    return "left"
    except NeuroEdgeError as error:
        return error.code
    return "answered"


def _cost(row: dict[str, Any]) -> Decimal:
    return PRICE.of(
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        cached_tokens=row["cached_tokens"],
    )
