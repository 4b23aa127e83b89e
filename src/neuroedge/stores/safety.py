"""An organisation's safety policy, and what was decided by it: categories, numbers and places, never content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from psycopg.types.json import Jsonb

from neuroedge.stores.ids import first_id_of, new_id
from neuroedge.stores.postgres import Connection

Stage = Literal["input", "context", "output"]
_CLOCKS_APART: Final = timedelta(days=1)
"""Ids carry the application's time, `created_at` the database's: the ids only spare looking at younger rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy:
    """A policy as it was given, and who gave it."""

    policy: dict[str, Any]
    changed_by: UUID
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a policy did about one text."""

    id: UUID
    user_id: UUID
    request_id: str
    stage: Stage
    action: Literal["flag", "mask", "block"]
    reasons: list[dict[str, Any]]
    chars: int
    created_at: datetime


_COLUMNS = "id, user_id, request_id, stage, action, reasons, chars, created_at"


async def policy(conn: Connection, org_id: UUID) -> StoredPolicy | None:
    """The organisation's own, if it has set one."""
    cursor = await conn.execute(
        "SELECT policy, changed_by, changed_at FROM safety_policies WHERE org_id = %s", [org_id]
    )
    row = await cursor.fetchone()
    return StoredPolicy(**row) if row else None


async def set_policy(conn: Connection, *, org_id: UUID, policy: Mapping[str, Any], changed_by: UUID) -> StoredPolicy:
    """Replace the organisation's policy."""
    cursor = await conn.execute(
        "INSERT INTO safety_policies (org_id, policy, changed_by) VALUES (%s, %s, %s)"
        " ON CONFLICT (org_id) DO UPDATE SET policy = excluded.policy, changed_by = excluded.changed_by,"
        " changed_at = now() RETURNING policy, changed_by, changed_at",
        [org_id, Jsonb(dict(policy)), changed_by],
    )
    return StoredPolicy(**(await cursor.fetchall())[0])


async def add_decision(
    conn: Connection,
    *,
    org_id: UUID,
    user_id: UUID,
    request_id: str,
    stage: Stage,
    action: Literal["flag", "mask", "block"],
    reasons: Sequence[Mapping[str, Any]],
    chars: int,
) -> UUID:
    """Keep a decision; its id."""
    decision_id = new_id()
    await conn.execute(
        "INSERT INTO safety_decisions (org_id, id, user_id, request_id, stage, action, reasons, chars)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        [org_id, decision_id, user_id, request_id, stage, action, Jsonb([dict(r) for r in reasons]), chars],
    )
    return decision_id


async def decisions(
    conn: Connection,
    *,
    org_id: UUID,
    user_id: UUID | None,
    limit: int,
    before: UUID | None = None,
    stage: Stage | None = None,
    action: str | None = None,
) -> list[Decision]:
    """Newest first: a user's, or everybody's."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM safety_decisions WHERE org_id = %(org)s"
        " AND (%(user)s::uuid IS NULL OR user_id = %(user)s) AND (%(before)s::uuid IS NULL OR id < %(before)s)"
        " AND (%(stage)s::text IS NULL OR stage = %(stage)s) AND (%(action)s::text IS NULL OR action = %(action)s)"
        " ORDER BY id DESC LIMIT %(limit)s",
        {"org": org_id, "user": user_id, "before": before, "stage": stage, "action": action, "limit": limit},
    )
    return [Decision(**row) for row in await cursor.fetchall()]


async def delete_before(conn: Connection, *, org_id: UUID, before: datetime, limit: int) -> int:
    """Delete the oldest decisions made before a time, but those of unfinished reviews; how many, at most `limit`."""
    cursor = await conn.execute(
        "DELETE FROM safety_decisions WHERE org_id = %(org)s AND id IN (SELECT d.id FROM safety_decisions d"
        " WHERE d.org_id = %(org)s AND d.id < %(end)s AND d.created_at < %(before)s AND NOT EXISTS (SELECT 1"
        " FROM reviews r WHERE r.org_id = d.org_id AND r.decision_id = d.id AND r.finished_at IS NULL)"
        " ORDER BY d.id LIMIT %(limit)s)",
        {"org": org_id, "end": first_id_of(before + _CLOCKS_APART), "before": before, "limit": limit},
    )
    return cursor.rowcount
