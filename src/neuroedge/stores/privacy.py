"""Exports and erasures: their orders, what belongs to a user or an organisation, and what is left of it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from psycopg.types.json import Jsonb

from neuroedge.stores import ordered_jobs
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection
from neuroedge.stores.resealing import SEALED

INTERNAL: Final = frozenset(
    {
        "org_id",
        "sealed",
        "content_mac",
        "facets",
        "length",
        "term_ids",
        "terms",
        "fingerprint",
        "job_id",
        "result_blob",
        "secret_hash",
        "external_mac",
        "embedding",
    }
)
"""Columns that mean nothing outside the database: keyed hashes and what only the platform uses."""
EXPORTED: Final = (
    *("memories", "recordings", "segments", "documents", "tasks", "usage", "audit"),
    *("chat_sessions", "chat_messages", "chat_attachments"),
    *("artifacts", "artifact_versions"),
    *("safety_decisions", "reviews"),
    "api_keys",
    "llm_calls",
    "files",
    "images",
    *("voices", "voiceprints", "voice_relabels"),
    *("learners", "learner_events"),
    *("recommenders", "recommender_choices"),
    *("federations", "federation_clients", "federation_rounds", "federation_messages"),
    *("batches", "batch_items"),
    "trained_models",
)
OF_ORGANISATION: Final = frozenset(
    {"learners", "learner_events", "recommenders", "recommender_choices"}
    | {"federations", "federation_clients", "federation_rounds", "federation_messages"}
)
"""Exported tables that hold nothing of one user: they are in an export of the whole organisation only."""
OWNED: Final = (
    *("memories", "documents", "recordings", "tasks", "artifacts", "chat_sessions"),
    *("safety_decisions", "reviews"),
    "files",
    "images",
    *("voices", "voice_relabels"),
    "batches",
    "trained_models",
)
"""Tables of a user's things; everything else hangs on these."""
# Children first, so that each statement's cascade stays small. What is in no list goes with the organisation's row.
_CLEARED: Final = {
    "checkpoint_writes": "thread_id, checkpoint_id, task_id, idx",
    "checkpoints": "thread_id, checkpoint_id",
    "turns": "id",
    "review_steps": "review_id, position",
    "reviews": "id",
    "safety_decisions": "id",
    "artifact_versions": "id",
    "artifacts": "id",
    "relations": "id",
    "mentions": "entity_id, memory_id",
    "knowledge_sources": "memory_id",
    "memory_vectors_384": "memory_id, model",
    "memory_vectors_768": "memory_id, model",
    "memory_vectors_1024": "memory_id, model",
    "document_chunks": "document_id, memory_id",
    "memories": "id",
    "documents": "id",
    "files": "id",
    "images": "id",
    "federation_messages": "id",
    "federation_rounds": "id",
    "federation_clients": "id",
    "federations": "id",
    "learner_events": "id",
    "learners": "id",
    "recommender_choices": "id",
    "recommenders": "id",
    "trained_models": "id",
    "voiceprints": "id",
    "voices": "id",
    "voice_relabels": "id",
    "segments": "id",
    "speakers": "id",
    "recording_steps": "recording_id, step",
    "recordings": "id",
    "tasks": "id",
    "batch_items": "id",
    "batches": "id",
    "chat_attachments": "id",
    "chat_messages": "id",
    "chat_sessions": "id",
    "term_stats": "term",
    "refresh_tokens": "id",
    "api_keys": "id",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """An order to erase, and its proof once done; `user_id` None: the whole organisation."""

    org_id: UUID
    id: UUID
    user_id: UUID | None
    account: bool
    """Whether the user's account goes too."""
    requested_by: UUID
    state: Literal["running", "done"]
    report: dict[str, Any] | None
    report_sha256: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An order to export; `user_id` None: the whole organisation."""

    id: UUID
    user_id: UUID | None
    requested_by: UUID
    state: Literal["running", "done", "failed"]
    counts: dict[str, int]
    created_at: datetime
    finished_at: datetime | None


_ERASURE: Final = "org_id, id, user_id, account, requested_by, state, report, report_sha256, created_at, finished_at"
_EXPORT: Final = "id, user_id, requested_by, state, counts, created_at, finished_at"


async def add_erasure(
    conn: Connection, *, org_id: UUID, user_id: UUID | None, account: bool, requested_by: UUID
) -> Erasure:
    """Store an order to erase."""
    cursor = await conn.execute(
        "INSERT INTO erasures (org_id, id, user_id, account, requested_by) VALUES (%s, %s, %s, %s, %s)"
        f" RETURNING {_ERASURE}",
        [org_id, new_id(), user_id, account, requested_by],
    )
    return Erasure(**(await cursor.fetchone() or {}))


async def erasure(conn: Connection, erasure_id: UUID) -> Erasure | None:
    """One of the transaction's organisation."""
    cursor = await conn.execute(f"SELECT {_ERASURE} FROM erasures WHERE id = %s", [erasure_id])
    row = await cursor.fetchone()
    return Erasure(**row) if row else None


async def erasures_of_all(conn: Connection, *, limit: int) -> list[Erasure]:
    """Newest first, of every organisation."""
    cursor = await conn.execute("SELECT * FROM erasures_of_all(%s)", [limit])
    return [Erasure(**row) for row in await cursor.fetchall()]


async def finish_erasure(conn: Connection, erasure_id: UUID, *, report: dict[str, Any], sha256: str) -> None:
    """Keep the proof."""
    await conn.execute(
        "UPDATE erasures SET state = 'done', finished_at = now(), report = %s, report_sha256 = %s WHERE id = %s",
        [Jsonb(report), sha256, erasure_id],
    )


async def count_erased(conn: Connection, erasure_id: UUID, name: str, count: int) -> None:
    """So many rows or objects more are gone; in the transaction that deletes them."""
    await conn.execute(
        "UPDATE erasures SET report = jsonb_set(coalesce(report, '{}'), ARRAY[%(name)s::text],"
        " to_jsonb(coalesce((report ->> %(name)s)::bigint, 0) + %(count)s::bigint)) WHERE id = %(id)s",
        {"name": name, "count": count, "id": erasure_id},
    )


async def owned(conn: Connection, table: str, *, org_id: UUID, user_id: UUID, limit: int) -> list[UUID]:
    """Some of a user's things."""
    cursor = await conn.execute(
        f"SELECT id FROM {table} WHERE org_id = %s AND user_id = %s ORDER BY id LIMIT %s", [org_id, user_id, limit]
    )
    return [row["id"] for row in await cursor.fetchall()]


async def delete_owned(conn: Connection, table: str, *, org_id: UUID, ids: list[UUID]) -> int:
    """Delete these with everything that hangs on them; how many were there."""
    cursor = await conn.execute(f"DELETE FROM {table} WHERE org_id = %s AND id = ANY(%s)", [org_id, ids])
    return cursor.rowcount


async def delete_traces(conn: Connection, *, org_id: UUID, user_id: UUID) -> dict[str, int]:
    """What is left of a user beside the things: tokens, jobs, hashes of words nothing holds any more.

    Jobs that somebody else waits for go on in another name.
    """
    await ordered_jobs.hand_over(conn, org_id=org_id, user_id=user_id)
    deleted = {}
    for name, statement in {
        "refresh_tokens": "DELETE FROM refresh_tokens WHERE org_id = %(org)s AND user_id = %(user)s",
        "api_keys": "DELETE FROM api_keys WHERE org_id = %(org)s AND user_id = %(user)s",
        "artifact_authors": "UPDATE artifact_versions SET author_id = NULL WHERE org_id = %(org)s"
        " AND author_id = %(user)s",
        "jobs": "DELETE FROM procrastinate_jobs WHERE status <> 'doing' AND args ->> 'org_id' = %(org)s::text"
        " AND args ->> 'user_id' = %(user)s::text",
        "term_stats": "DELETE FROM term_stats WHERE org_id = %(org)s AND documents <= 0",
    }.items():
        cursor = await conn.execute(statement, {"org": org_id, "user": user_id})
        deleted[name] = cursor.rowcount
    return deleted


async def delete_account(conn: Connection, user_id: UUID) -> int:
    """Take a user out of the transaction's organisation, and delete the account unless it belongs to another too."""
    row = await (await conn.execute("SELECT erase_account(%s) AS n", [user_id])).fetchone()
    return int(row["n"]) if row else 0


async def owners(conn: Connection, org_id: UUID) -> list[UUID]:
    """Who owns the organisation."""
    cursor = await conn.execute("SELECT user_id FROM memberships WHERE org_id = %s AND role = 'owner'", [org_id])
    return [row["user_id"] for row in await cursor.fetchall()]


async def is_member(conn: Connection, *, org_id: UUID, user_id: UUID) -> bool:
    """Whether the user belongs to the organisation."""
    cursor = await conn.execute("SELECT 1 FROM memberships WHERE org_id = %s AND user_id = %s", [org_id, user_id])
    return await cursor.fetchone() is not None


async def organisation_name(conn: Connection, org_id: UUID) -> str | None:
    """As its owner gave it."""
    row = await (await conn.execute("SELECT name FROM organisations WHERE id = %s", [org_id])).fetchone()
    return str(row["name"]) if row else None


async def shred(conn: Connection, org_id: UUID) -> int:
    """Delete the organisation's keys for good: nothing sealed with them can be read any more."""
    deleted = (await conn.execute("DELETE FROM tenant_keys WHERE org_id = %s", [org_id])).rowcount
    await conn.execute("UPDATE organisations SET erased_at = coalesce(erased_at, now()) WHERE id = %s", [org_id])
    await conn.execute("DELETE FROM refresh_tokens WHERE org_id = %s", [org_id])
    await conn.execute("DELETE FROM api_keys WHERE org_id = %s", [org_id])
    return deleted


def cleared() -> tuple[str, ...]:
    """Tables that `clear` empties, in their order."""
    return tuple(_CLEARED)


async def clear(conn: Connection, *, table: str, org_id: UUID, limit: int) -> int:
    """Delete some of an organisation's rows; how many. The transaction must see all of them."""
    key = _CLEARED[table]
    cursor = await conn.execute(
        f"DELETE FROM {table} WHERE org_id = %s AND ({key}) IN (SELECT {key} FROM {table} WHERE org_id = %s LIMIT %s)",
        [org_id, org_id, limit],
    )
    return cursor.rowcount


async def clear_ledgers(conn: Connection, *, limit: int) -> int:
    """Delete some of the usage and audit rows of an organisation that is being erased; how many."""
    row = await (await conn.execute("SELECT erase_ledgers(%s) AS n", [limit])).fetchone()
    return int(row["n"]) if row else 0


async def delete_organisation(conn: Connection, org_id: UUID) -> dict[str, int]:
    """Delete its members, unless they belong to another one too, its waiting jobs, its row and what still hangs on
    it."""
    members = await (await conn.execute("SELECT erase_members() AS n")).fetchone()
    jobs = await conn.execute(
        "DELETE FROM procrastinate_jobs WHERE status <> 'doing' AND args ->> 'org_id' = %s", [str(org_id)]
    )
    row = await conn.execute("DELETE FROM organisations WHERE id = %s", [org_id])
    return {"users": members["n"] if members else 0, "jobs": jobs.rowcount, "organisations": row.rowcount}


async def left_of_organisation(conn: Connection) -> dict[str, int]:
    """Rows of each table of the schema that the transaction's organisation still has."""
    cursor = await conn.execute("SELECT place, row_count FROM rows_of_organisation()")
    return {row["place"]: row["row_count"] for row in await cursor.fetchall()}


async def left_of_user(conn: Connection, user_id: UUID) -> dict[str, int]:
    """Rows of each table that names users which name this one, but for the ledgers; and things nothing mentions."""
    cursor = await conn.execute("SELECT place, row_count FROM rows_of_user(%s)", [user_id])
    return {row["place"]: row["row_count"] for row in await cursor.fetchall()}


async def add_export(conn: Connection, *, org_id: UUID, user_id: UUID | None, requested_by: UUID) -> Export:
    """Store an order to export."""
    cursor = await conn.execute(
        f"INSERT INTO exports (org_id, id, user_id, requested_by) VALUES (%s, %s, %s, %s) RETURNING {_EXPORT}",
        [org_id, new_id(), user_id, requested_by],
    )
    return Export(**(await cursor.fetchone() or {}))


async def export(conn: Connection, export_id: UUID) -> Export | None:
    """One of the transaction's organisation."""
    row = await (await conn.execute(f"SELECT {_EXPORT} FROM exports WHERE id = %s", [export_id])).fetchone()
    return Export(**row) if row else None


async def finish_export(
    conn: Connection, export_id: UUID, *, state: Literal["done", "failed"], counts: dict[str, int]
) -> bool:
    """The export is there, or cannot be made; whether it is still wanted."""
    cursor = await conn.execute(
        "UPDATE exports SET state = %s, counts = %s, finished_at = now() WHERE id = %s",
        [state, Jsonb(counts), export_id],
    )
    return cursor.rowcount == 1


async def exports_holding(conn: Connection, *, org_id: UUID, user_id: UUID) -> list[UUID]:
    """Exports with this user's content: the user's own, and those of the whole organisation."""
    cursor = await conn.execute(
        "SELECT id FROM exports WHERE org_id = %s AND (user_id = %s OR user_id IS NULL OR requested_by = %s)",
        [org_id, user_id, user_id],
    )
    return [row["id"] for row in await cursor.fetchall()]


async def delete_export(conn: Connection, export_id: UUID) -> int:
    """Delete the order; its object is the caller's to delete."""
    return (await conn.execute("DELETE FROM exports WHERE id = %s", [export_id])).rowcount


async def exports_before(conn: Connection, finished: datetime) -> list[tuple[UUID, UUID]]:
    """(organisation, export) of every organisation, made before that time."""
    cursor = await conn.execute("SELECT org_id, id FROM exports_made_before(%s)", [finished])
    return [(row["org_id"], row["id"]) for row in await cursor.fetchall()]


async def rows(
    conn: Connection, table: str, *, org_id: UUID, user_id: UUID | None, batch: int
) -> AsyncIterator[dict[str, Any]]:
    """A table's rows in the clear, in the order of their ids: a user's, or all the transaction sees."""
    if user_id and table in OF_ORGANISATION:
        return
    after: UUID | None = None
    whose = "user_id = %(user)s AND" if user_id else ""
    if user_id and table == "segments":
        whose = "recording_id IN (SELECT id FROM recordings WHERE org_id = %(org)s AND user_id = %(user)s) AND"
    if user_id and table == "artifact_versions":
        whose = "artifact_id IN (SELECT id FROM artifacts WHERE org_id = %(org)s AND user_id = %(user)s) AND"
    if user_id and table == "batch_items":
        whose = "batch_id IN (SELECT id FROM batches WHERE org_id = %(org)s AND user_id = %(user)s) AND"
    if user_id and table == "voiceprints":
        whose = "voice_id IN (SELECT id FROM voices WHERE org_id = %(org)s AND user_id = %(user)s) AND"
    while True:
        cursor = await conn.execute(
            f"SELECT * FROM {table} WHERE org_id = %(org)s AND {whose} (%(after)s::uuid IS NULL OR id > %(after)s)"
            " ORDER BY id LIMIT %(batch)s",
            {"org": org_id, "user": user_id, "after": after, "batch": batch},
        )
        found = await cursor.fetchall()
        for row in found:
            yield _opened(conn, table, row)
        if len(found) < batch:
            return
        after = found[-1]["id"]


def _opened(conn: Connection, table: str, row: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in row.items() if name not in INTERNAL}
    for sealed in SEALED:
        if sealed.table != table or row[sealed.column] is None:
            continue
        value = conn.vault.open(row[sealed.column], sealed.place(row))
        plain |= value if sealed.column == "sealed" else {sealed.column: value}
    return plain


async def accounts_of(conn: Connection, *, org_id: UUID, user_id: UUID | None) -> list[dict[str, Any]]:
    """Account and membership of a user, or of every member."""
    cursor = await conn.execute(
        "SELECT u.id, u.username, u.email, u.admin, u.created_at, m.role, m.division_id, m.created_at AS member_since"
        " FROM memberships m JOIN users u ON u.id = m.user_id"
        " WHERE m.org_id = %(org)s AND (%(user)s::uuid IS NULL OR u.id = %(user)s) ORDER BY u.id",
        {"org": org_id, "user": user_id},
    )
    return await cursor.fetchall()
