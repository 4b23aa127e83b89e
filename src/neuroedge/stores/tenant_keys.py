"""The wrapped keys of each organisation. Deleting the row is what makes its content unreadable (crypto-shredding)."""

from dataclasses import dataclass
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the database keeps of an organisation for every call."""

    wrapped: bytes
    embedding_model: str | None


async def find(conn: AsyncConnection[DictRow], org_id: UUID) -> Kept | None:
    """The organisation's wrapped keys; None when it has none."""
    cursor = await conn.execute(
        "SELECT k.wrapped, o.embedding_model FROM tenant_keys k JOIN organisations o ON o.id = k.org_id"
        " WHERE k.org_id = %s",
        [org_id],
    )
    row = await cursor.fetchone()
    return Kept(wrapped=bytes(row["wrapped"]), embedding_model=row["embedding_model"]) if row else None


async def insert(conn: AsyncConnection[DictRow], org_id: UUID, wrapped: bytes) -> Kept | None:
    """Keep the keys of an organisation that has none; the ones kept, which may be another process's.

    None when there is no such organisation.
    """
    await conn.execute(
        "INSERT INTO tenant_keys (org_id, wrapped) SELECT id, %s FROM organisations WHERE id = %s"
        " ON CONFLICT (org_id) DO NOTHING",
        [wrapped, org_id],
    )
    return await find(conn, org_id)


async def replace(conn: AsyncConnection[DictRow], org_id: UUID, wrapped: bytes) -> None:
    """Keep other keys in place of the present ones."""
    await conn.execute("UPDATE tenant_keys SET wrapped = %s, changed_at = now() WHERE org_id = %s", [wrapped, org_id])
