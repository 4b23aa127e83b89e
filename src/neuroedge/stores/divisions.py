"""Divisions of an organisation, and who belongs to which."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg

from neuroedge.contract.errors import Conflict
from neuroedge.contract.principal import Role
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """A part of an organisation."""

    id: UUID
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A user of the organisation; in one division or in none."""

    user_id: UUID
    username: str
    role: Role
    division_id: UUID | None


_COLUMNS = "id, name, created_at"


async def insert(conn: Connection, *, org_id: UUID, name: str) -> Division:
    """Make one. Raises Conflict when another one has the name."""
    await _free(conn, org_id, name)
    cursor = await conn.execute(
        f"INSERT INTO divisions (org_id, id, name) VALUES (%s, %s, %s) RETURNING {_COLUMNS}", [org_id, new_id(), name]
    )
    return Division(**(await cursor.fetchall())[0])


async def rename(conn: Connection, *, org_id: UUID, division_id: UUID, name: str) -> Division | None:
    """Give one another name; None when there is none. Raises Conflict when another one has it."""
    await _free(conn, org_id, name, but=division_id)
    cursor = await conn.execute(
        f"UPDATE divisions SET name = %s WHERE org_id = %s AND id = %s RETURNING {_COLUMNS}",
        [name, org_id, division_id],
    )
    row = await cursor.fetchone()
    return Division(**row) if row else None


async def every(conn: Connection, org_id: UUID) -> list[Division]:
    """By name."""
    cursor = await conn.execute(f"SELECT {_COLUMNS} FROM divisions WHERE org_id = %s ORDER BY name, id", [org_id])
    return [Division(**row) for row in await cursor.fetchall()]


async def members(conn: Connection, org_id: UUID) -> list[Member]:
    """All users of the organisation, by name."""
    cursor = await conn.execute(
        "SELECT m.user_id, u.username, m.role, m.division_id FROM memberships m JOIN users u ON u.id = m.user_id"
        " WHERE m.org_id = %s ORDER BY u.username",
        [org_id],
    )
    return [Member(**row) for row in await cursor.fetchall()]


async def delete(conn: Connection, *, org_id: UUID, division_id: UUID) -> bool:
    """Delete one; whether there was one. Raises Conflict while anybody or anything belongs to it."""
    try:
        cursor = await conn.execute("DELETE FROM divisions WHERE org_id = %s AND id = %s", [org_id, division_id])
    except psycopg.errors.ForeignKeyViolation as error:
        raise Conflict(
            "the division has members, or memories or documents that only it may see",
            hint="give its members another division; change or delete what has the visibility division",
        ) from error
    return cursor.rowcount > 0


async def exists(conn: Connection, *, org_id: UUID, division_id: UUID) -> bool:
    """Whether the organisation has it."""
    cursor = await conn.execute("SELECT 1 FROM divisions WHERE org_id = %s AND id = %s", [org_id, division_id])
    return await cursor.fetchone() is not None


async def assign(conn: Connection, *, org_id: UUID, user_id: UUID, division_id: UUID) -> bool:
    """Put a user into a division; whether the organisation has the user."""
    cursor = await conn.execute(
        "UPDATE memberships SET division_id = %s WHERE org_id = %s AND user_id = %s", [division_id, org_id, user_id]
    )
    return cursor.rowcount > 0


async def leave(conn: Connection, *, org_id: UUID, user_id: UUID, division_id: UUID) -> bool:
    """Take a user out of a division; whether the user was in it."""
    cursor = await conn.execute(
        "UPDATE memberships SET division_id = NULL WHERE org_id = %s AND user_id = %s AND division_id = %s",
        [org_id, user_id, division_id],
    )
    return cursor.rowcount > 0


async def _free(conn: Connection, org_id: UUID, name: str, *, but: UUID | None = None) -> None:
    # Whoever names a division waits here, so that no name is given twice at the same time.
    await conn.execute("SELECT 1 FROM organisations WHERE id = %s FOR UPDATE", [org_id])
    cursor = await conn.execute(
        "SELECT 1 FROM divisions WHERE org_id = %s AND lower(name) = lower(%s) AND id IS DISTINCT FROM %s",
        [org_id, name, but],
    )
    if await cursor.fetchone():
        raise Conflict(f"there is a division named {name!r} already", hint="choose another name")
