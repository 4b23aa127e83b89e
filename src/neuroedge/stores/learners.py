"""Learners and what they did. Names and contents are sealed; ids are keyed hashes, so that a name finds its row."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

from pydantic_core import to_json

from neuroedge.stores.postgres import Connection

_COLUMNS: Final = "id, consented, sealed, created_at, updated_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """Somebody who learns, under the name the organisation's applications use."""

    id: UUID
    name: str
    consented: bool
    consents: list[dict[str, Any]]
    """What was said about consent, oldest first."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """Something a learner did; `name` is the sender's id of it."""

    name: str
    kind: str
    at: datetime
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The same, stored."""

    name: str
    kind: str
    at: datetime
    body: dict[str, Any]
    received_at: datetime


def learner_id(conn: Connection, org_id: UUID, name: str) -> UUID:
    """The id of the learner of a name, whether there is one or not."""
    return uuid5(org_id, f"{conn.vault.blind(f'learner/{name}'):x}")


def event_id(conn: Connection, learner: UUID, name: str) -> UUID:
    """The id of a learner's event of a name: sent again, it is the same row."""
    return uuid5(learner, f"{conn.vault.blind(f'learner/event/{name}'):x}")


def context(row_id: UUID) -> str:
    """Where a learner's sealed value belongs."""
    return f"learners/{row_id}"


def event_context(row_id: UUID) -> str:
    """Where an event's sealed value belongs."""
    return f"learner_events/{row_id}"


async def find(conn: Connection, *, org_id: UUID, name: str, lock: bool = False) -> Learner | None:
    """The learner of a name; with `lock`, nobody else changes it until the transaction ends."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM learners WHERE org_id = %s AND id = %s{' FOR UPDATE' if lock else ''}",
        [org_id, learner_id(conn, org_id, name)],
    )
    row = await cursor.fetchone()
    return _opened(conn, row) if row else None


async def page(conn: Connection, *, org_id: UUID, limit: int, after: UUID | None) -> list[Learner]:
    """By id, beyond `after`."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM learners WHERE org_id = %(org)s"
        " AND (%(after)s::uuid IS NULL OR id > %(after)s) ORDER BY id LIMIT %(limit)s",
        {"org": org_id, "after": after, "limit": limit},
    )
    return [_opened(conn, row) for row in await cursor.fetchall()]


async def save(
    conn: Connection, *, org_id: UUID, name: str, consented: bool, consents: Sequence[Mapping[str, Any]]
) -> Learner:
    """Store a learner with this history of consent, or replace the history of the one that is there."""
    row_id = learner_id(conn, org_id, name)
    sealed = conn.vault.seal({"learner": name, "consents": [dict(c) for c in consents]}, context(row_id))
    cursor = await conn.execute(
        "INSERT INTO learners (org_id, id, consented, sealed) VALUES (%s, %s, %s, %s) ON CONFLICT (org_id, id) DO"
        " UPDATE SET consented = excluded.consented, sealed = excluded.sealed, updated_at = now()"
        f" RETURNING {_COLUMNS}",
        [org_id, row_id, consented, sealed],
    )
    return _opened(conn, await cursor.fetchone() or {})


async def delete(conn: Connection, *, org_id: UUID, name: str) -> int | None:
    """Delete a learner with all events; how many these were, None when there is no such learner."""
    row_id = learner_id(conn, org_id, name)
    cursor = await conn.execute("DELETE FROM learner_events WHERE org_id = %s AND learner_id = %s", [org_id, row_id])
    events = cursor.rowcount
    gone = await conn.execute("DELETE FROM learners WHERE org_id = %s AND id = %s", [org_id, row_id])
    return events if gone.rowcount else None


async def count_events(conn: Connection, *, org_id: UUID, learner: UUID) -> int:
    """How many a learner has."""
    cursor = await conn.execute(
        "SELECT count(*) AS n FROM learner_events WHERE org_id = %s AND learner_id = %s", [org_id, learner]
    )
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0


async def add_events(
    conn: Connection, *, org_id: UUID, learner: UUID, items: Sequence[NewEvent]
) -> tuple[list[str], list[str], list[str]]:
    """Store those that are not there yet; names of the new ones, of those that are there, and of those that are
    there with another content, which stays."""
    rows = await asyncio.to_thread(lambda: [_row(conn, org_id, learner, item) for item in items])
    cursor = await conn.execute(
        "SELECT id, content_mac FROM learner_events WHERE org_id = %s AND id = ANY(%s)",
        [org_id, [row["id"] for row in rows]],
    )
    there: dict[UUID, int] = {row["id"]: row["content_mac"] for row in await cursor.fetchall()}
    new, known, different = list[dict[str, Any]](), list[str](), list[str]()
    for row, item in zip(rows, items, strict=True):
        mac = there.get(row["id"])
        there.setdefault(row["id"], row["content_mac"])
        if mac is None:
            new.append(row)
        else:
            (known if mac == row["content_mac"] else different).append(item.name)
    async with conn.cursor() as writing:
        await writing.executemany(
            "INSERT INTO learner_events (org_id, id, learner_id, kind, at, content_mac, sealed)"
            " VALUES (%(org_id)s, %(id)s, %(learner_id)s, %(kind)s, %(at)s, %(content_mac)s, %(sealed)s)",
            new,
        )
    return [row["name"] for row in new], known, different


def _row(conn: Connection, org_id: UUID, learner: UUID, item: NewEvent) -> dict[str, Any]:
    row_id = event_id(conn, learner, item.name)
    said = {"event": item.name, "body": dict(item.body)}
    told = to_json([item.kind, item.at.isoformat(), said]).decode()
    return {
        "org_id": org_id,
        "id": row_id,
        "learner_id": learner,
        "kind": item.kind,
        "at": item.at,
        "content_mac": conn.vault.blind(f"learner/content/{told}"),
        "sealed": conn.vault.seal(said, event_context(row_id)),
        "name": item.name,
    }


async def events(
    conn: Connection, *, org_id: UUID, learner: UUID, kinds: Sequence[str] | None = None, newest: int
) -> list[Event]:
    """A learner's newest events in the order in which they happened, however late they came."""
    cursor = await conn.execute(
        "SELECT id, kind, at, sealed, received_at FROM learner_events WHERE org_id = %(org)s"
        " AND learner_id = %(learner)s AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s))"
        " ORDER BY at DESC, id DESC LIMIT %(newest)s",
        {"org": org_id, "learner": learner, "kinds": list(kinds) if kinds else None, "newest": newest},
    )
    rows = await cursor.fetchall()
    return await asyncio.to_thread(lambda: [_event(conn, row) for row in reversed(rows)])


def _event(conn: Connection, row: Mapping[str, Any]) -> Event:
    told = conn.vault.open(row["sealed"], event_context(row["id"]))
    return Event(name=told["event"], kind=row["kind"], at=row["at"], body=told["body"], received_at=row["received_at"])


def _opened(conn: Connection, row: Mapping[str, Any]) -> Learner:
    told = conn.vault.open(row["sealed"], context(row["id"]))
    return Learner(
        id=row["id"],
        name=told["learner"],
        consented=row["consented"],
        consents=told["consents"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


async def answers(conn: Connection, *, org_id: UUID, newest: int) -> list[tuple[UUID, Event]]:
    """The newest answers of all consenting learners by time, each with its learner's id."""
    cursor = await conn.execute(
        "SELECT e.learner_id, e.id, e.kind, e.at, e.sealed, e.received_at FROM learner_events e"
        " JOIN learners l ON l.org_id = e.org_id AND l.id = e.learner_id"
        " WHERE e.org_id = %s AND l.consented AND e.kind = 'answer' ORDER BY e.at DESC, e.id DESC LIMIT %s",
        [org_id, newest],
    )
    rows = await cursor.fetchall()
    return await asyncio.to_thread(lambda: [(row["learner_id"], _event(conn, row)) for row in reversed(rows)])
