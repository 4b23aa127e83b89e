"""An organisation's own providers of language models, their keys sealed, and what it prefers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from neuroedge.contract.errors import Conflict
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection

_COLUMNS: Final = "id, name, settings, key_end, created_at, updated_at"
_KEY_END: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredProvider:
    """A provider without its key."""

    id: UUID
    name: str
    settings: dict[str, Any]
    key_end: str | None
    """The key's last characters; None: it has no key."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPreferences:
    """What an organisation has settled for all of its calls."""

    default_model: str | None
    local_only: bool
    fallback: list[str]
    by_query_type: dict[str, str]


def sealed_in(provider_id: UUID) -> str:
    """Context of a provider's key."""
    return f"llm_providers/{provider_id}"


async def insert(
    conn: Connection, *, org_id: UUID, name: str, settings: Mapping[str, Any], api_key: str | None
) -> StoredProvider:
    """Add one. Raises Conflict when the organisation has one of this name."""
    provider_id = new_id()
    sealed, key_end = _sealed(conn, provider_id, api_key)
    try:
        cursor = await conn.execute(
            "INSERT INTO llm_providers (org_id, id, name, settings, key_end, sealed) VALUES (%s, %s, %s, %s, %s, %s)"
            f" RETURNING {_COLUMNS}",
            [org_id, provider_id, name, Jsonb(dict(settings)), key_end, sealed],
        )
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(f"there is a provider {name} already", hint="change it, or choose another name") from error
    return StoredProvider(**(await cursor.fetchall())[0])


async def find(conn: Connection, *, org_id: UUID, provider_id: UUID) -> StoredProvider | None:
    """One, held until the transaction ends."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM llm_providers WHERE org_id = %s AND id = %s FOR UPDATE", [org_id, provider_id]
    )
    row = await cursor.fetchone()
    return StoredProvider(**row) if row else None


async def every(conn: Connection, org_id: UUID) -> list[StoredProvider]:
    """All of them, by name."""
    cursor = await conn.execute(f"SELECT {_COLUMNS} FROM llm_providers WHERE org_id = %s ORDER BY name", [org_id])
    return [StoredProvider(**row) for row in await cursor.fetchall()]


async def keys(conn: Connection, org_id: UUID) -> dict[UUID, str]:
    """The keys in the clear, for asking the providers."""
    cursor = await conn.execute(
        "SELECT id, sealed FROM llm_providers WHERE org_id = %s AND sealed IS NOT NULL", [org_id]
    )
    return {
        row["id"]: str(conn.vault.open(row["sealed"], sealed_in(row["id"]))["api_key"])
        for row in await cursor.fetchall()
    }


async def update(
    conn: Connection, *, org_id: UUID, provider_id: UUID, settings: Mapping[str, Any], api_key: str | None
) -> StoredProvider:
    """Other settings, and another key unless it is None."""
    sealed, key_end = _sealed(conn, provider_id, api_key)
    cursor = await conn.execute(
        "UPDATE llm_providers SET settings = %s, sealed = coalesce(%s, sealed), key_end = coalesce(%s, key_end),"
        f" updated_at = now() WHERE org_id = %s AND id = %s RETURNING {_COLUMNS}",
        [Jsonb(dict(settings)), sealed, key_end, org_id, provider_id],
    )
    return StoredProvider(**(await cursor.fetchall())[0])


async def delete(conn: Connection, *, org_id: UUID, provider_id: UUID) -> str | None:
    """Delete one with its key; its name, None when there is none."""
    cursor = await conn.execute(
        "DELETE FROM llm_providers WHERE org_id = %s AND id = %s RETURNING name", [org_id, provider_id]
    )
    row = await cursor.fetchone()
    return str(row["name"]) if row else None


async def preferences(conn: Connection, org_id: UUID) -> StoredPreferences | None:
    """None: nothing was settled."""
    cursor = await conn.execute(
        "SELECT default_model, local_only, fallback, by_query_type FROM llm_preferences WHERE org_id = %s", [org_id]
    )
    row = await cursor.fetchone()
    return StoredPreferences(**row) if row else None


async def set_preferences(conn: Connection, org_id: UUID, wanted: StoredPreferences) -> None:
    """These from now on."""
    await conn.execute(
        "INSERT INTO llm_preferences (org_id, default_model, local_only, fallback, by_query_type)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (org_id) DO UPDATE SET default_model = EXCLUDED.default_model,"
        " local_only = EXCLUDED.local_only, fallback = EXCLUDED.fallback, by_query_type = EXCLUDED.by_query_type,"
        " updated_at = now()",
        [org_id, wanted.default_model, wanted.local_only, wanted.fallback, Jsonb(wanted.by_query_type)],
    )


def _sealed(conn: Connection, provider_id: UUID, api_key: str | None) -> tuple[bytes | None, str | None]:
    """A key sealed, and as much of it as may be shown: nothing of a short one, which would be told by that."""
    if api_key is None:
        return None, None
    shown = api_key[-_KEY_END:] if len(api_key) >= 4 * _KEY_END else ""
    return conn.vault.seal({"api_key": api_key}, sealed_in(provider_id)), shown
