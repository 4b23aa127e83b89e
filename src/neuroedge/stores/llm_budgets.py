"""Budgets of an organisation for language models, and what is spent of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal
from uuid import UUID

from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection

Scope = Literal["organisation", "each_user", "user"]
Period = Literal["day", "month"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit of one kind; `member_id` with the scope `user` alone."""

    scope: Scope
    period: Period
    soft_usd: Decimal | None
    hard_usd: Decimal | None
    member_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What the organisation (`subject` is its id) or a user has spent in a period, as 2026-11 or 2026-11-21."""

    subject: UUID
    period: str
    cost_usd: Decimal
    reserved_usd: Decimal
    """Set aside for calls that are being made."""


async def every(conn: Connection, org_id: UUID) -> list[Budget]:
    """All budgets."""
    cursor = await conn.execute(
        "SELECT scope, period, soft_usd, hard_usd, member_id FROM llm_budgets WHERE org_id = %s"
        " ORDER BY scope, member_id, period",
        [org_id],
    )
    return [Budget(**row) for row in await cursor.fetchall()]


async def replace(conn: Connection, org_id: UUID, budgets: Sequence[Budget], *, periods: Sequence[str]) -> None:
    """These instead of all others; what has been warned of in these periods is warned of anew."""
    await conn.execute("DELETE FROM llm_budgets WHERE org_id = %s", [org_id])
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO llm_budgets (org_id, id, scope, period, soft_usd, hard_usd, member_id)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [(org_id, new_id(), b.scope, b.period, b.soft_usd, b.hard_usd, b.member_id) for b in budgets],
        )
    await conn.execute(
        "UPDATE llm_totals SET warned = false WHERE org_id = %s AND period = ANY(%s) AND warned",
        [org_id, list(periods)],
    )


async def spending(
    conn: Connection, *, org_id: UUID, subjects: Sequence[UUID] | None, periods: Sequence[str]
) -> list[Spending]:
    """Of these, or of all who have spent anything."""
    cursor = await conn.execute(
        "SELECT subject, period, cost_usd, reserved_usd FROM llm_totals WHERE org_id = %(org)s"
        " AND period = ANY(%(periods)s) AND (%(subjects)s::uuid[] IS NULL OR subject = ANY(%(subjects)s))"
        " ORDER BY subject, period LIMIT 10000",
        {"org": org_id, "periods": list(periods), "subjects": None if subjects is None else list(subjects)},
    )
    return [Spending(**row) for row in await cursor.fetchall()]


async def mark_warned(conn: Connection, *, org_id: UUID, subject: UUID, period: str) -> bool:
    """Whether nobody has warned of this spending before."""
    cursor = await conn.execute(
        "UPDATE llm_totals SET warned = true WHERE org_id = %s AND subject = %s AND period = %s AND NOT warned",
        [org_id, subject, period],
    )
    return cursor.rowcount == 1
