"""Models that an organisation trained: what is known of them. The graphs themselves are objects."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from neuroedge.contract.trained import TrainedModel
from neuroedge.stores.postgres import Connection

_COLUMNS: Final = "id, kind, bytes, sha256, sealed, created_at"


def context(model_id: UUID) -> str:
    """Where a row's sealed value belongs."""
    return f"trained_models/{model_id}"


async def lock(conn: Connection, *, org_id: UUID) -> None:
    """Nobody else adds one to the organisation until the transaction ends."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"trained_models/{org_id}"])


async def total(conn: Connection, *, org_id: UUID) -> tuple[int, int]:
    """How many there are, and their bytes together."""
    cursor = await conn.execute(
        "SELECT count(*) AS n, coalesce(sum(bytes), 0)::bigint AS bytes FROM trained_models WHERE org_id = %s", [org_id]
    )
    row = await cursor.fetchone() or {"n": 0, "bytes": 0}
    return int(row["n"]), int(row["bytes"])


async def insert(
    conn: Connection,
    *,
    org_id: UUID,
    user_id: UUID,
    model_id: UUID,
    name: str,
    kind: str,
    card: Mapping[str, Any],
    size_bytes: int,
    sha256: str,
) -> TrainedModel:
    """Store a model's row."""
    sealed = conn.vault.seal({"name": name, "card": dict(card)}, context(model_id))
    cursor = await conn.execute(
        "INSERT INTO trained_models (org_id, id, user_id, kind, bytes, sha256, sealed)"
        f" VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING {_COLUMNS}",
        [org_id, model_id, user_id, kind, size_bytes, sha256, sealed],
    )
    return _opened(conn, await cursor.fetchone() or {})


async def find(conn: Connection, *, org_id: UUID, model_id: UUID) -> TrainedModel | None:
    """One of the organisation's."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM trained_models WHERE org_id = %s AND id = %s", [org_id, model_id]
    )
    row = await cursor.fetchone()
    return _opened(conn, row) if row else None


async def page(conn: Connection, *, org_id: UUID, limit: int, after: UUID | None) -> list[TrainedModel]:
    """Newest first (ids are in time order), beyond the id `after`."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM trained_models WHERE org_id = %(org)s"
        " AND (%(after)s::uuid IS NULL OR id < %(after)s) ORDER BY id DESC LIMIT %(limit)s",
        {"org": org_id, "after": after, "limit": limit},
    )
    return [_opened(conn, row) for row in await cursor.fetchall()]


async def delete(conn: Connection, *, org_id: UUID, model_id: UUID) -> bool:
    """Delete the row; whether it was there. Its object is the caller's to delete."""
    cursor = await conn.execute("DELETE FROM trained_models WHERE org_id = %s AND id = %s", [org_id, model_id])
    return cursor.rowcount == 1


async def exist(conn: Connection, model_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these ids are models the transaction sees."""
    cursor = await conn.execute("SELECT id FROM trained_models WHERE id = ANY(%s)", [list(model_ids)])
    return {row["id"] for row in await cursor.fetchall()}


def _opened(conn: Connection, row: Mapping[str, Any]) -> TrainedModel:
    told = conn.vault.open(row["sealed"], context(row["id"]))
    return TrainedModel(
        id=row["id"],
        name=told["name"],
        kind=row["kind"],
        card=told["card"],
        bytes=row["bytes"],
        sha256=row["sha256"],
        created_at=row["created_at"],
    )
