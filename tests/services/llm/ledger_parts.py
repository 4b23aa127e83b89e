"""A ledger on a real database, and calls for it."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from neuroedge.contract.principal import Principal
from neuroedge.services.llm.budgets import Budgets
from neuroedge.services.llm.calls import Call, Spent
from neuroedge.services.llm.ledger import CallLedger
from neuroedge.services.llm.offers import Offer, Price
from neuroedge.stores.ids import new_id
from neuroedge.stores.llm_calls import CallTable
from neuroedge.stores.postgres import Database

PRICE = Price(
    prompt_usd_per_million=Decimal(10),
    completion_usd_per_million=Decimal(100),
    cached_usd_per_million=Decimal(1),
    source="test",
    as_of="2026-01-02",
)
FREE = Price(
    prompt_usd_per_million=Decimal(0), completion_usd_per_million=Decimal(0), source="here", as_of="2026-01-02"
)
NOON = datetime(2026, 5, 31, 12, tzinfo=UTC)


class SetClock:
    """Stands still."""

    def __init__(self, now: datetime = NOON) -> None:
        self.time = now

    def now(self) -> datetime:
        """As it was set."""
        return self.time


class HeardEvents:
    """Events in a list."""

    def __init__(self) -> None:
        self.heard: list[tuple[UUID, str, str, dict[str, Any]]] = []

    async def publish(self, org_id: UUID, topic: str, name: str, data: dict[str, Any]) -> None:
        """Keep it."""
        self.heard.append((org_id, topic, name, data))


def make_budgets(db: Database, *, events: HeardEvents | None = None, **settings: Any) -> Budgets:
    """Budgets on the database, at noon of 2026-05-31."""
    return Budgets(db=db, events=events or HeardEvents(), clock=SetClock(), **settings)  # type: ignore[arg-type]


def make_ledger(db: Database, *, budgets: Budgets | None = None, **settings: Any) -> CallLedger:
    """A ledger on the database."""
    return CallLedger(
        table=CallTable(db, to_disk=False),
        budgets=budgets or make_budgets(db),
        clock=SetClock(),
        **{"wait_s": 60.0, **settings},
    )


def make_call(caller: Principal, *, price: Price | None = PRICE, **change: Any) -> Call:
    """A call of 100 prompt tokens for an answer of 10 at most, which is 0.002 dollars."""
    facts: dict[str, Any] = {
        "id": new_id(),
        "org_id": caller.org_id,
        "user_id": caller.user_id,
        "request_id": "r1",
        "offer": Offer(provider="fake", wire="openai", model="m", price=price),
        "query_type": "chat",
        "prompt_tokens": 100,
        "max_tokens": 10,
        "started_at": NOON,
    }
    return Call(**{**facts, **change})


def spent(**change: Any) -> Spent:
    """It ended well: 100 tokens in, 10 out."""
    facts: dict[str, Any] = {"outcome": "ok", "prompt_tokens": 100, "completion_tokens": 10, "seconds": 1.5}
    return Spent(**{**facts, **change})


async def rows(db: Database, caller: Principal) -> list[dict[str, Any]]:
    """The organisation's ledger."""
    async with db.tenant(caller) as conn:
        return await (await conn.execute("SELECT * FROM llm_calls ORDER BY started_at, id")).fetchall()


async def totals(db: Database, caller: Principal) -> dict[tuple[str, str], tuple[Decimal, Decimal]]:
    """(whose, period) → (spent, set aside)."""
    async with db.tenant(caller) as conn:
        found = await (await conn.execute("SELECT * FROM llm_totals")).fetchall()
    whose = {caller.org_id: "organisation"}
    return {(whose.get(row["subject"], "user"), row["period"]): (row["cost_usd"], row["reserved_usd"]) for row in found}
