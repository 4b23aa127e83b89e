"""Where the keys of each organisation stand: wrapped by which step of a rotation, and how much is sealed anew."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from neuroedge.stores.postgres import Connection

Rotation = Literal["requested", "added", "promoted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An organisation's keys; `rotation` is None when none is under way."""

    org_id: UUID
    rotation: Rotation | None
    resealed: int
    to_reseal: int
    """Values that were sealed with an older key when the sealing began."""
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped:
    """An organisation's wrapped keys, and for how long they have been as they are."""

    wrapped: bytes
    rotation: Rotation | None
    age_s: float


async def standings(conn: Connection) -> list[Standing]:
    """Of every organisation that has keys."""
    cursor = await conn.execute("SELECT * FROM organisations_with_keys()")
    return [Standing(**row) for row in await cursor.fetchall()]


async def request(conn: Connection, org_id: UUID) -> bool:
    """Begin a rotation unless one is under way; whether the transaction's organisation has keys."""
    cursor = await conn.execute(
        "UPDATE tenant_keys SET rotation = coalesce(rotation, 'requested') WHERE org_id = %s", [org_id]
    )
    return cursor.rowcount == 1


async def lock(conn: Connection, org_id: UUID) -> Wrapped | None:
    """The keys, held until the transaction ends; None when the organisation has none (any more)."""
    cursor = await conn.execute(
        "SELECT wrapped, rotation, extract(epoch FROM clock_timestamp() - changed_at)::float8 AS age_s"
        " FROM tenant_keys WHERE org_id = %s FOR UPDATE",
        [org_id],
    )
    row = await cursor.fetchone()
    return Wrapped(**{**row, "wrapped": bytes(row["wrapped"])}) if row else None


async def store(conn: Connection, org_id: UUID, *, wrapped: bytes, rotation: Rotation | None) -> None:
    """Keep changed keys and the step they are at."""
    await conn.execute(
        "UPDATE tenant_keys SET wrapped = %s, rotation = %s, changed_at = clock_timestamp(), resealed = 0,"
        " to_reseal = 0 WHERE org_id = %s",
        [wrapped, rotation, org_id],
    )


async def rewrap(conn: Connection, org_id: UUID, wrapped: bytes) -> None:
    """Keep the same keys in another wrapping; a rotation under way is not disturbed."""
    await conn.execute("UPDATE tenant_keys SET wrapped = %s WHERE org_id = %s", [wrapped, org_id])


async def set_work(conn: Connection, org_id: UUID, *, to_reseal: int) -> None:
    """What the sealing has before it."""
    await conn.execute("UPDATE tenant_keys SET resealed = 0, to_reseal = %s WHERE org_id = %s", [to_reseal, org_id])


async def add_work(conn: Connection, org_id: UUID, *, resealed: int) -> None:
    """So many values more are sealed with the newest key."""
    await conn.execute("UPDATE tenant_keys SET resealed = resealed + %s WHERE org_id = %s", [resealed, org_id])


async def older_transactions(conn: Connection, org_id: UUID, *, settled_s: float) -> int:
    """The application's transactions under way that began before every process knew the present keys: they may still
    seal with an older one."""
    cursor = await conn.execute(
        "SELECT count(*) AS n FROM pg_stat_activity a, tenant_keys k WHERE k.org_id = %s"
        " AND a.datname = current_database() AND a.usename = current_user AND a.pid <> pg_backend_pid()"
        " AND a.xact_start < k.changed_at + make_interval(secs => %s)",
        [org_id, settled_s],
    )
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0
