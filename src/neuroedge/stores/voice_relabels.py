"""Runs that name the speakers of old recordings: where each stands, so that one that was cut off goes on."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection

_COLUMNS: Final = (
    "id, user_id, recording_id, state, after, total, done, labelled, skipped, starts, error_code, created_at,"
    " finished_at"
)
_TOTAL: Final = (
    "(SELECT count(*) FROM recordings WHERE org_id = %(org)s AND status = 'done'"
    " AND (%(recording)s::uuid IS NULL OR id = %(recording)s))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relabel:
    """A run over one recording, or over all that were finished when it was ordered last (`recording_id` None)."""

    id: UUID
    user_id: UUID
    recording_id: UUID | None
    state: Literal["queued", "running", "done", "failed"]
    after: UUID | None
    """The recording finished last; the run goes from old to new."""
    total: int
    done: int
    labelled: int
    """Speakers named so far."""
    skipped: int
    """Recordings that could not be heard any more."""
    starts: int
    """Since the last recording was finished."""
    error_code: str | None
    created_at: datetime
    finished_at: datetime | None


async def insert(conn: Connection, *, org_id: UUID, user_id: UUID, recording_id: UUID | None) -> Relabel:
    """Order a run; a waiting one for the same is given back instead, as if it were ordered now."""
    values = {"org": org_id, "id": new_id(), "user": user_id, "recording": recording_id}
    waiting = await conn.execute(
        f"UPDATE voice_relabels SET created_at = now(), total = {_TOTAL} WHERE org_id = %(org)s AND state = 'queued'"
        f" AND recording_id IS NOT DISTINCT FROM %(recording)s::uuid RETURNING {_COLUMNS}",
        values,
    )
    if row := await waiting.fetchone():
        return Relabel(**row)
    cursor = await conn.execute(
        "INSERT INTO voice_relabels (org_id, id, user_id, recording_id, total)"
        f" VALUES (%(org)s, %(id)s, %(user)s, %(recording)s, {_TOTAL}) RETURNING {_COLUMNS}",
        values,
    )
    return Relabel(**(await cursor.fetchone() or {}))


async def find(conn: Connection, relabel_id: UUID) -> Relabel | None:
    """One of the transaction's organisation."""
    row = await (await conn.execute(f"SELECT {_COLUMNS} FROM voice_relabels WHERE id = %s", [relabel_id])).fetchone()
    return Relabel(**row) if row else None


async def start(conn: Connection, relabel_id: UUID) -> Relabel | None:
    """A worker took it; None when there is nothing left to do."""
    cursor = await conn.execute(
        "UPDATE voice_relabels SET state = 'running', starts = starts + 1 WHERE id = %s"
        f" AND state IN ('queued', 'running') RETURNING {_COLUMNS}",
        [relabel_id],
    )
    row: dict[str, Any] | None = await cursor.fetchone()
    return Relabel(**row) if row else None


async def next_recording(conn: Connection, run: Relabel) -> UUID | None:
    """The finished recording after the last one, ordered before the run was."""
    cursor = await conn.execute(
        "SELECT id FROM recordings WHERE status = 'done' AND (%(one)s::uuid IS NULL OR id = %(one)s)"
        " AND (%(after)s::uuid IS NULL OR id > %(after)s) AND created_at <= %(until)s ORDER BY id LIMIT 1",
        {"one": run.recording_id, "after": run.after, "until": run.created_at},
    )
    row = await cursor.fetchone()
    return row["id"] if row else None


async def advance(
    conn: Connection, relabel_id: UUID, *, recording_id: UUID, labelled: int, skipped: bool
) -> Relabel | None:
    """One recording more is finished; the run as it now stands."""
    cursor = await conn.execute(
        "UPDATE voice_relabels SET after = %s, done = done + 1, labelled = labelled + %s, skipped = skipped + %s,"
        f" starts = 1 WHERE id = %s RETURNING {_COLUMNS}",
        [recording_id, labelled, int(skipped), relabel_id],
    )
    row = await cursor.fetchone()
    return Relabel(**row) if row else None


async def finish(conn: Connection, relabel_id: UUID, *, error_code: str | None = None) -> None:
    """The run ends, with an error when `error_code` is given."""
    await conn.execute(
        "UPDATE voice_relabels SET state = %s, error_code = %s, finished_at = now() WHERE id = %s",
        ["failed" if error_code else "done", error_code, relabel_id],
    )
