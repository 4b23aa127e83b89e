"""What an organisation has allowed, by whom, when and to what purpose; and the terms its recordings are heard with."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from neuroedge.contract.principal import Principal
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database

KNOWLEDGE_EXTRACTION: Final = "knowledge_extraction"
"""The switch with which what is remembered is read into the knowledge graph by itself."""
_COLUMNS = "id, name, allowed, sealed, changed_by, changed_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchRow:
    """One change of a switch."""

    id: UUID
    name: str
    allowed: bool
    purpose: str | None
    ground: str | None
    changed_by: UUID
    changed_at: datetime


async def set_switch(
    conn: Connection,
    *,
    org_id: UUID,
    name: str,
    allowed: bool,
    purpose: str | None,
    ground: str | None,
    changed_by: UUID,
) -> SwitchRow:
    """Add a change, which is in force from now on."""
    change_id = new_id()
    sealed = conn.vault.seal({"purpose": purpose, "ground": ground}, _place(change_id))
    cursor = await conn.execute(
        "INSERT INTO switches (org_id, id, name, allowed, sealed, changed_by) VALUES (%s, %s, %s, %s, %s, %s)"
        f" RETURNING {_COLUMNS}",
        [org_id, change_id, name, allowed, sealed, changed_by],
    )
    return _row(conn, (await cursor.fetchall())[0])


async def in_force(conn: Connection, *, org_id: UUID) -> dict[str, SwitchRow]:
    """The newest change of each switch that was ever changed, by name."""
    cursor = await conn.execute(
        f"SELECT DISTINCT ON (name) {_COLUMNS} FROM switches WHERE org_id = %s ORDER BY name, id DESC", [org_id]
    )
    return {row["name"]: _row(conn, row) for row in await cursor.fetchall()}


async def history(conn: Connection, *, org_id: UUID, limit: int) -> list[SwitchRow]:
    """Changes, newest first."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM switches WHERE org_id = %s ORDER BY id DESC LIMIT %s", [org_id, limit]
    )
    return [_row(conn, row) for row in await cursor.fetchall()]


async def is_allowed(conn: Connection, name: str, *, org_id: UUID) -> bool:
    """What the newest change says; False where there is none."""
    cursor = await conn.execute(
        "SELECT allowed FROM switches WHERE org_id = %s AND name = %s ORDER BY id DESC LIMIT 1", [org_id, name]
    )
    row = await cursor.fetchone()
    return bool(row and row["allowed"])


async def set_glossary(conn: Connection, *, org_id: UUID, terms: list[str], changed_by: UUID) -> None:
    """Replace the organisation's terms."""
    await conn.execute(
        "INSERT INTO glossaries (org_id, sealed, changed_by) VALUES (%s, %s, %s)"
        " ON CONFLICT (org_id) DO UPDATE SET sealed = excluded.sealed, changed_by = excluded.changed_by,"
        " changed_at = now()",
        [org_id, conn.vault.seal({"terms": terms}, _glossary_place(org_id)), changed_by],
    )


async def glossary(conn: Connection, *, org_id: UUID) -> list[str]:
    """The organisation's terms, in the order given; none where it has set none."""
    cursor = await conn.execute("SELECT sealed FROM glossaries WHERE org_id = %s", [org_id])
    row = await cursor.fetchone()
    return list(conn.vault.open(row["sealed"], _glossary_place(org_id))["terms"]) if row else []


class TenantSwitches:
    """The Switches port for one caller's organisation."""

    def __init__(self, db: Database, principal: Principal) -> None:
        self._db = db
        self._principal = principal

    async def allowed(self, name: str) -> bool:
        """Whether the organisation allows it now."""
        async with self._db.tenant(self._principal) as conn:
            return await is_allowed(conn, name, org_id=self._principal.org_id)


def _row(conn: Connection, row: dict[str, Any]) -> SwitchRow:
    return SwitchRow(**conn.vault.open(row.pop("sealed"), _place(row["id"])), **row)


def _place(change_id: UUID) -> str:
    return f"switches/{change_id}"


def _glossary_place(org_id: UUID) -> str:
    return f"glossaries/{org_id}"
