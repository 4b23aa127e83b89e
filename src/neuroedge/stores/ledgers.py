"""Usage and audit: append-only (the application's role may not change or delete a row)."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection


async def add_usage(
    conn: Connection,
    *,
    org_id: UUID,
    user_id: UUID,
    request_id: str,
    engine: str,
    outcome: str,
    seconds: float,
    prompt_tokens: int = 0,
    completion_tokens: int = 0,
) -> None:
    """One engine call; `outcome` is "ok" or an error code."""
    await conn.execute(
        "INSERT INTO usage (org_id, id, user_id, request_id, engine, outcome, seconds, prompt_tokens,"
        " completion_tokens) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [org_id, new_id(), user_id, request_id, engine, outcome, seconds, prompt_tokens, completion_tokens],
    )


async def add_audit(
    conn: Connection,
    *,
    org_id: UUID,
    user_id: UUID | None,
    request_id: str,
    action: str,
    target: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Who did what to which thing; never content."""
    await conn.execute(
        "INSERT INTO audit (org_id, id, user_id, request_id, action, target, detail)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        [org_id, new_id(), user_id, request_id, action, target, Jsonb(dict(detail or {}))],
    )
