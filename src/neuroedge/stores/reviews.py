"""The review queue: texts for people to look at, who has one in hand, and every step taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection

Source = Literal["rule", "user"]
State = Literal["open", "claimed", "approved", "corrected", "rejected"]
Ending = Literal["approved", "corrected", "rejected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A text in the queue; one whose claim has run out is open again."""

    id: UUID
    user_id: UUID
    source: Source
    kind: str
    ref: str
    decision_id: UUID | None
    state: State
    claimed_by: UUID | None
    claimed_until: datetime | None
    content: str
    """As it was when it was queued."""
    reason: str
    corrected: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that was done with a review."""

    position: int
    step: str
    by_user: UUID
    note: str
    created_at: datetime


_LIVE = "(state = 'claimed' AND claimed_until > now())"
_COLUMNS = (
    "id, user_id, source, kind, ref, decision_id,"
    f" CASE WHEN state = 'claimed' AND NOT {_LIVE} THEN 'open' ELSE state END AS state,"
    f" CASE WHEN {_LIVE} THEN claimed_by END AS claimed_by,"
    f" CASE WHEN {_LIVE} THEN claimed_until END AS claimed_until, sealed, created_at, finished_at"
)
_FREE = f"finished_at IS NULL AND NOT {_LIVE}"


async def insert(
    conn: Connection,
    *,
    org_id: UUID,
    user_id: UUID,
    source: Source,
    kind: str,
    ref: str,
    content: str,
    reason: str,
    decision_id: UUID | None = None,
) -> Review:
    """Queue a text."""
    review_id = new_id()
    sealed = conn.vault.seal({"content": content, "reason": reason, "corrected": None}, _place(review_id))
    cursor = await conn.execute(
        "INSERT INTO reviews (org_id, id, user_id, source, kind, ref, decision_id, sealed)"
        f" VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING {_COLUMNS}",
        [org_id, review_id, user_id, source, kind, ref, decision_id, sealed],
    )
    return _opened(conn, (await cursor.fetchall())[0])


async def find(conn: Connection, *, org_id: UUID, review_id: UUID, lock: bool = False) -> Review | None:
    """One; with `lock` nobody else changes it during the transaction."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM reviews WHERE org_id = %s AND id = %s{' FOR UPDATE' if lock else ''}",
        [org_id, review_id],
    )
    row = await cursor.fetchone()
    return _opened(conn, row) if row else None


async def page(
    conn: Connection,
    *,
    org_id: UUID,
    user_id: UUID | None,
    limit: int,
    before: UUID | None = None,
    state: State | None = None,
) -> list[Review]:
    """Newest first: of a user, or everybody's."""
    cursor = await conn.execute(
        f"SELECT * FROM (SELECT {_COLUMNS} FROM reviews WHERE org_id = %(org)s"
        " AND (%(user)s::uuid IS NULL OR user_id = %(user)s) AND (%(before)s::uuid IS NULL OR id < %(before)s)) AS r"
        " WHERE (%(state)s::text IS NULL OR state = %(state)s) ORDER BY id DESC LIMIT %(limit)s",
        {"org": org_id, "user": user_id, "before": before, "state": state, "limit": limit},
    )
    return [_opened(conn, row) for row in await cursor.fetchall()]


async def claim(
    conn: Connection, *, org_id: UUID, review_id: UUID | None, user_id: UUID, lease_s: float
) -> Review | None:
    """Take a review that nobody has in hand, or the oldest of them; None when there is none.

    Of two who ask for the same one the second finds it taken; of two who ask for any, each gets another.
    """
    which = (
        "id = %(id)s"
        if review_id
        else f"id = (SELECT id FROM reviews WHERE org_id = %(org)s AND {_FREE} "
        + ("ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)")
    )
    cursor = await conn.execute(
        "UPDATE reviews SET state = 'claimed', claimed_by = %(user)s,"
        f" claimed_until = now() + make_interval(secs => %(lease)s) WHERE org_id = %(org)s AND {which} AND {_FREE}"
        f" RETURNING {_COLUMNS}",
        {"org": org_id, "id": review_id, "user": user_id, "lease": lease_s},
    )
    row = await cursor.fetchone()
    return _opened(conn, row) if row else None


async def release(conn: Connection, *, org_id: UUID, review_id: UUID) -> None:
    """Put it back."""
    await conn.execute(
        "UPDATE reviews SET state = 'open', claimed_by = NULL, claimed_until = NULL WHERE org_id = %s AND id = %s",
        [org_id, review_id],
    )


async def finish(
    conn: Connection, review: Review, *, org_id: UUID, state: Ending, corrected: str | None = None
) -> Review:
    """Close it."""
    place = _place(review.id)
    sealed = conn.vault.seal({"content": review.content, "reason": review.reason, "corrected": corrected}, place)
    cursor = await conn.execute(
        "UPDATE reviews SET state = %s, claimed_by = NULL, claimed_until = NULL, finished_at = now(), sealed = %s"
        f" WHERE org_id = %s AND id = %s RETURNING {_COLUMNS}",
        [state, sealed, org_id, review.id],
    )
    return _opened(conn, (await cursor.fetchall())[0])


async def add_step(conn: Connection, *, org_id: UUID, review_id: UUID, step: str, by_user: UUID, note: str) -> None:
    """Write down what was done; the transaction must hold the review."""
    cursor = await conn.execute(
        "SELECT coalesce(max(position), 0) + 1 AS n FROM review_steps WHERE org_id = %s AND review_id = %s",
        [org_id, review_id],
    )
    position = (await cursor.fetchall())[0]["n"]
    sealed = conn.vault.seal({"note": note}, _step_place(review_id, position)) if note else None
    await conn.execute(
        "INSERT INTO review_steps (org_id, review_id, position, step, by_user, sealed) VALUES (%s, %s, %s, %s, %s, %s)",
        [org_id, review_id, position, step, by_user, sealed],
    )


async def steps(conn: Connection, *, org_id: UUID, review_id: UUID) -> Sequence[Step]:
    """What was done, in order."""
    cursor = await conn.execute(
        "SELECT position, step, by_user, sealed, created_at FROM review_steps"
        " WHERE org_id = %s AND review_id = %s ORDER BY position",
        [org_id, review_id],
    )
    found = []
    for row in await cursor.fetchall():
        sealed = row.pop("sealed")
        place = _step_place(review_id, row["position"])
        found.append(Step(**row, note=conn.vault.open(sealed, place)["note"] if sealed is not None else ""))
    return found


def _opened(conn: Connection, row: dict[str, Any]) -> Review:
    values = dict(row)
    return Review(**conn.vault.open(values.pop("sealed"), _place(row["id"])), **values)


def _place(review_id: UUID) -> str:
    return f"reviews/{review_id}"


def _step_place(review_id: UUID, position: int) -> str:
    return f"review_steps/{review_id}/{position}"
