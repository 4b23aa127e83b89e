"""The ledger of calls to language models, and the sums of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, Literal
from uuid import UUID

from pydantic_core import to_json

from neuroedge.stores.kept_connection import KeptConnection
from neuroedge.stores.postgres import Connection, Database, bind

GroupBy = Literal["day", "user", "model", "provider", "query_type"]
_MAX_GROUPS: Final = 10_000
# One statement, so one round trip and one transaction of its own, as stores/ledgers.py has it. The function gets the
# organisation from what binds it, so that nothing of it runs before.
_BOUND: Final = (
    "WITH bound AS MATERIALIZED (SELECT set_config('app.current_org_id', %s, true) AS org,"
    " set_config('synchronous_commit', %s, true))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A call that is about to be made."""

    id: UUID
    user_id: UUID
    request_id: str
    provider: str
    model: str
    query_type: str | None
    private: bool
    prompt_tokens: int
    prompt_usd_per_million: Decimal | None
    completion_usd_per_million: Decimal | None
    price_source: str | None
    price_date: date | None
    reserved_usd: Decimal
    started_at: datetime
    limited: bool = False
    """Whether what is spent matters to it; only then it is refused, and told."""
    most_org_day: Decimal | None = None
    most_org_month: Decimal | None = None
    most_user_day: Decimal | None = None
    most_user_month: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Whether a call may be made, and what was spent and set aside before it; None where it does not matter."""

    admitted: bool
    org_day: Decimal | None
    org_month: Decimal | None
    user_day: Decimal | None
    user_month: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A whole row: one that was never begun in the database is written by its end."""

    org_id: UUID
    id: UUID
    user_id: UUID
    request_id: str
    provider: str
    model: str
    query_type: str | None
    private: bool
    outcome: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    estimated: bool
    prompt_usd_per_million: Decimal | None
    completion_usd_per_million: Decimal | None
    price_source: str | None
    price_date: date | None
    cost_usd: Decimal
    seconds: float
    first_token_s: float | None
    error: str | None
    started_at: datetime
    ended_at: datetime
    state: Literal["closed"] = "closed"
    reserved_usd: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """A call as it is read."""

    id: UUID
    user_id: UUID
    request_id: str
    provider: str
    model: str
    query_type: str | None
    private: bool
    state: Literal["open", "closed"]
    outcome: Literal["ok", "cancelled", "failed", "lost"] | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    estimated: bool
    cost_usd: Decimal
    price_source: str | None
    price_date: date | None
    seconds: float | None
    first_token_s: float | None
    error: str | None
    started_at: datetime
    ended_at: datetime | None

    @property
    def unpriced(self) -> bool:
        """Whether no price is known, so that `cost_usd` of 0 says nothing."""
        return self.price_source is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What the calls of one group came to; `key` None: those that have no such thing, or all of them."""

    key: str | None
    calls: int
    open: int
    cancelled: int
    failures: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_usd: Decimal
    estimated: int
    """Calls whose tokens were counted here, or guessed."""
    unpriced: int
    """Calls whose price is not known; they count as nothing in `cost_usd`."""
    unpriced_tokens: int
    """Read and written by those."""


_READ: Final = ", ".join(LedgerRow.__dataclass_fields__)
_KEYS: Final[dict[GroupBy, str]] = {
    "day": "to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    "user": "user_id::text",
    "model": "provider || '/' || model",
    "provider": "provider",
    "query_type": "query_type",
}
_SUMS: Final = (
    "count(*) AS calls, count(*) FILTER (WHERE state = 'open') AS open,"
    " count(*) FILTER (WHERE outcome = 'cancelled') AS cancelled,"
    " count(*) FILTER (WHERE outcome IN ('failed', 'lost')) AS failures,"
    " coalesce(sum(prompt_tokens), 0)::bigint AS prompt_tokens,"
    " coalesce(sum(completion_tokens), 0)::bigint AS completion_tokens,"
    " coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens, coalesce(sum(cost_usd), 0) AS cost_usd,"
    " count(*) FILTER (WHERE estimated) AS estimated,"
    " count(*) FILTER (WHERE prompt_usd_per_million IS NULL) AS unpriced,"
    " coalesce(sum(prompt_tokens + completion_tokens) FILTER (WHERE prompt_usd_per_million IS NULL), 0)::bigint"
    " AS unpriced_tokens"
)


class CallTable:
    """Writes the ledger over a connection of its own.

    `to_disk`: what was written survives a crash of PostgreSQL and of the machine. Without it, it survives the end of
    this process, however it ends; a crash of PostgreSQL or the machine can lose the last second.
    """

    def __init__(self, db: Database, *, to_disk: bool) -> None:
        self._db = db
        self._kept = KeptConnection(db)
        self._commit = "on" if to_disk else "off"

    async def begin(self, org_id: UUID, calls: Sequence[Begun], *, lease_s: float) -> list[Admission]:
        """Write calls of one organisation before they are made, each unless its limits are reached; in their order.

        Raises Unavailable, InvalidInput.
        """
        statement = f"{_BOUND} SELECT f.* FROM bound, begin_llm_calls(bound.org::uuid, %s, make_interval(secs => %s)) f"
        async with self._kept.use() as conn:
            cursor = await conn.execute(statement, [str(org_id), self._commit, to_json(calls).decode(), lease_s])
            return [Admission(**row) for row in await cursor.fetchall()]

    async def end(self, org_id: UUID, calls: Sequence[Ended]) -> None:
        """Close calls of one organisation. Those closed already stay as they are, unless they were given up as lost.

        Raises Unavailable, InvalidInput.
        """
        statement = f"{_BOUND} SELECT end_llm_calls(bound.org::uuid, %s) FROM bound"
        async with self._kept.use() as conn:
            await conn.execute(statement, [str(org_id), self._commit, to_json(calls).decode()])

    async def extend(self, org_id: UUID, ids: Sequence[UUID], *, lease_s: float) -> None:
        """These calls are still being made. Raises Unavailable."""
        statement = f"{_BOUND} SELECT extend_llm_calls(bound.org::uuid, %s, make_interval(secs => %s)) FROM bound"
        async with self._kept.use() as conn:
            await conn.execute(statement, [str(org_id), "off", list(ids), lease_s])

    async def lose(self) -> int:
        """Close, in every organisation, the calls whose process is gone; how many. Raises Unavailable."""
        async with self._db.unbound() as conn:
            cursor = await conn.execute("SELECT org_id FROM organisations_with_lost_llm_calls()")
            orgs = [row["org_id"] for row in await cursor.fetchall()]
        lost = 0
        for org_id in orgs:
            async with self._db.unbound() as conn:
                await bind(conn, org_id)
                row = await (await conn.execute("SELECT lose_llm_calls(%s) AS n", [org_id])).fetchone()
                lost += row["n"] if row else 0
        return lost

    async def close(self) -> None:
        """Give the connection back."""
        await self._kept.close()


def _where(*, since: datetime, until: datetime, user_id: UUID | None) -> tuple[str, list[Any]]:
    whose = " AND user_id = %s" if user_id else ""
    return f"org_id = %s AND started_at >= %s AND started_at < %s{whose}", [
        since,
        until,
        *([user_id] if user_id else []),
    ]


async def sums(
    conn: Connection, *, org_id: UUID, since: datetime, until: datetime, user_id: UUID | None, group_by: GroupBy
) -> list[Sums]:
    """Of the calls that began in [since, until), of one user or of all; by key."""
    where, values = _where(since=since, until=until, user_id=user_id)
    cursor = await conn.execute(
        f"SELECT {_KEYS[group_by]} AS key, {_SUMS} FROM llm_calls WHERE {where}"
        f" GROUP BY 1 ORDER BY 1 LIMIT {_MAX_GROUPS}",
        [org_id, *values],
    )
    return [Sums(**row) for row in await cursor.fetchall()]


async def total(conn: Connection, *, org_id: UUID, since: datetime, until: datetime, user_id: UUID | None) -> Sums:
    """Of all these calls."""
    where, values = _where(since=since, until=until, user_id=user_id)
    cursor = await conn.execute(f"SELECT NULL AS key, {_SUMS} FROM llm_calls WHERE {where}", [org_id, *values])
    return Sums(**(await cursor.fetchall())[0])


async def page(
    conn: Connection,
    *,
    org_id: UUID,
    since: datetime,
    until: datetime,
    user_id: UUID | None,
    before: UUID | None,
    limit: int,
) -> list[LedgerRow]:
    """Calls, the latest first, older than the call `before`."""
    where, values = _where(since=since, until=until, user_id=user_id)
    if before is not None:
        where += (
            " AND (started_at, id) < (SELECT b.started_at, b.id FROM llm_calls b WHERE b.org_id = %s AND b.id = %s)"
        )
        values += [org_id, before]
    cursor = await conn.execute(
        f"SELECT {_READ} FROM llm_calls WHERE {where} ORDER BY started_at DESC, id DESC LIMIT %s",
        [org_id, *values, limit],
    )
    return [LedgerRow(**row) for row in await cursor.fetchall()]
