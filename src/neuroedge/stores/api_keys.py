"""API keys: what is kept of them, and the one look-up before a tenant is known."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from neuroedge.contract.principal import Role
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as its owner sees it."""

    id: UUID
    user_id: UUID
    name: str
    prefix: str
    scopes: list[str]
    """Permissions."""
    models: list[str] | None
    """None: any."""
    engines: list[str] | None
    """None: any."""
    expires_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHolder:
    """What a key is checked against, and whom it stands for."""

    org_id: UUID
    id: UUID
    user_id: UUID
    username: str
    role: Role
    secret_hash: bytes
    scopes: list[str]
    models: list[str] | None
    engines: list[str] | None
    expires_at: datetime | None
    last_used_at: datetime | None


_COLUMNS: Final = "id, user_id, name, prefix, scopes, models, engines, expires_at, last_used_at, created_at"


async def find(conn: Connection, prefix: str) -> KeyHolder | None:
    """The key of a prefix that is not revoked, of whatever organisation; None too when its user is no member."""
    cursor = await conn.execute("SELECT * FROM find_api_key(%s)", [prefix])
    row = await cursor.fetchone()
    if row is None:
        return None
    holder = KeyHolder(**row)
    return replace(holder, secret_hash=bytes(holder.secret_hash))


async def insert(
    conn: Connection,
    *,
    org_id: UUID,
    user_id: UUID,
    name: str,
    prefix: str,
    secret_hash: bytes,
    scopes: list[str],
    models: list[str] | None,
    engines: list[str] | None,
    expires_at: datetime | None,
) -> ApiKey:
    """Keep a new key's hash."""
    cursor = await conn.execute(
        "INSERT INTO api_keys (org_id, id, user_id, name, prefix, secret_hash, scopes, models, engines, expires_at)"
        f" VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING {_COLUMNS}",
        [org_id, new_id(), user_id, name, prefix, secret_hash, scopes, models, engines, expires_at],
    )
    return ApiKey(**(await cursor.fetchone() or {}))


async def listed(conn: Connection, *, user_id: UUID) -> list[ApiKey]:
    """A user's keys that are not revoked, newest first."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM api_keys WHERE user_id = %s AND revoked_at IS NULL ORDER BY created_at DESC, id DESC",
        [user_id],
    )
    return [ApiKey(**row) for row in await cursor.fetchall()]


async def count(conn: Connection, *, user_id: UUID) -> int:
    """A user's keys that are not revoked."""
    cursor = await conn.execute(
        "SELECT count(*) AS n FROM api_keys WHERE user_id = %s AND revoked_at IS NULL", [user_id]
    )
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0


async def revoke(conn: Connection, key_id: UUID, *, user_id: UUID | None) -> bool:
    """End a key, of any user of the organisation when `user_id` is None; whether there was one."""
    cursor = await conn.execute(
        "UPDATE api_keys SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL"
        " AND (%s::uuid IS NULL OR user_id = %s)",
        [key_id, user_id, user_id],
    )
    return cursor.rowcount == 1


async def touch(conn: Connection, key_id: UUID) -> None:
    """A key was used; written at most once a minute, whatever the number of processes."""
    await conn.execute(
        "UPDATE api_keys SET last_used_at = now() WHERE id = %s"
        " AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')",
        [key_id],
    )
