"""Federations, their clients, rounds and what clients sent. Names, keys, settings and results are sealed; weights and
updates are objects, named in the rows."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID, uuid5

from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection

RoundState = Literal["open", "collecting", "aggregating", "closed", "failed"]
Phase = Literal["update", "keys", "shares", "masked", "unmask"]
_FEDERATION: Final = "id, state, version, noisy_rounds, sealed, created_at, closed_at"
_CLIENT: Final = "id, federation_id, revoked, sealed, created_at"
_ROUND: Final = "id, federation_id, number, state, phase, deadline, sealed, created_at, finished_at"
_MESSAGE: Final = "id, client_id, kind, sealed, created_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """A model that clients train together; `told` holds its name, settings and the names of its objects, also of those
    of the version before, which are to be deleted (`superseded`)."""

    id: UUID
    state: Literal["open", "closed"]
    version: int
    noisy_rounds: int
    """Rounds that spent privacy."""
    told: dict[str, Any]
    created_at: datetime
    closed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who may send updates: proved by the key of `public_key` (Ed25519, 32 bytes in base64)."""

    id: UUID
    federation_id: UUID
    revoked: bool
    name: str
    public_key: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round; `told` holds what it came to."""

    id: UUID
    federation_id: UUID
    number: int
    state: RoundState
    phase: Phase
    deadline: datetime
    told: dict[str, Any]
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a client sent; `told`: samples, sha256, signature, and the payload or the name of its object."""

    id: UUID
    client_id: UUID
    kind: Phase
    told: dict[str, Any]
    created_at: datetime


def context(row_id: UUID) -> str:
    """Where a federation's sealed value belongs."""
    return f"federations/{row_id}"


def client_context(row_id: UUID) -> str:
    """Where a client's sealed value belongs."""
    return f"federation_clients/{row_id}"


def round_context(row_id: UUID) -> str:
    """Where a round's sealed value belongs."""
    return f"federation_rounds/{row_id}"


def message_context(row_id: UUID) -> str:
    """Where a message's sealed value belongs."""
    return f"federation_messages/{row_id}"


async def insert(conn: Connection, *, org_id: UUID, federation_id: UUID, told: Mapping[str, Any]) -> Federation:
    """Store a federation at version 0."""
    cursor = await conn.execute(
        f"INSERT INTO federations (org_id, id, sealed) VALUES (%s, %s, %s) RETURNING {_FEDERATION}",
        [org_id, federation_id, conn.vault.seal(dict(told), context(federation_id))],
    )
    return _federation(conn, await cursor.fetchone() or {})


async def find(conn: Connection, federation_id: UUID, *, lock: bool = False) -> Federation | None:
    """One of the transaction's organisation; with `lock` nobody else changes it until the transaction ends."""
    cursor = await conn.execute(
        f"SELECT {_FEDERATION} FROM federations WHERE id = %s{' FOR UPDATE' if lock else ''}", [federation_id]
    )
    row = await cursor.fetchone()
    return _federation(conn, row) if row else None


async def page(conn: Connection, *, limit: int, before: UUID | None) -> list[Federation]:
    """Newest first, beyond `before`."""
    cursor = await conn.execute(
        f"SELECT {_FEDERATION} FROM federations WHERE (%(before)s::uuid IS NULL OR id < %(before)s)"
        " ORDER BY id DESC LIMIT %(limit)s",
        {"before": before, "limit": limit},
    )
    return [_federation(conn, row) for row in await cursor.fetchall()]


async def count(conn: Connection) -> int:
    """How many the transaction's organisation has."""
    row = await (await conn.execute("SELECT count(*) AS n FROM federations")).fetchone()
    return int(row["n"]) if row else 0


async def save(
    conn: Connection, federation_id: UUID, *, told: Mapping[str, Any], version: int, noisy_rounds: int
) -> None:
    """Store a new version."""
    await conn.execute(
        "UPDATE federations SET sealed = %s, version = %s, noisy_rounds = %s WHERE id = %s",
        [conn.vault.seal(dict(told), context(federation_id)), version, noisy_rounds, federation_id],
    )


async def close(conn: Connection, federation_id: UUID, *, told: Mapping[str, Any]) -> None:
    """No round opens any more."""
    await conn.execute(
        "UPDATE federations SET state = 'closed', closed_at = coalesce(closed_at, now()), sealed = %s WHERE id = %s",
        [conn.vault.seal(dict(told), context(federation_id)), federation_id],
    )


async def delete(conn: Connection, federation_id: UUID) -> bool:
    """Delete a federation with its clients and rounds; whether it was there. Its objects are the caller's to delete."""
    return (await conn.execute("DELETE FROM federations WHERE id = %s", [federation_id])).rowcount == 1


async def exist(conn: Connection, ids: Collection[UUID]) -> set[UUID]:
    """Which of these are there."""
    cursor = await conn.execute("SELECT id FROM federations WHERE id = ANY(%s)", [list(ids)])
    return {row["id"] for row in await cursor.fetchall()}


async def add_client(
    conn: Connection, *, org_id: UUID, federation_id: UUID, name: str, public_key: str
) -> tuple[Client, bool]:
    """Register a client; the one of that name and False when there is one."""
    client_id = uuid5(federation_id, f"{conn.vault.blind(f'federation/client/{name}'):x}")
    sealed = conn.vault.seal({"client": name, "public_key": public_key}, client_context(client_id))
    cursor = await conn.execute(
        "INSERT INTO federation_clients (org_id, id, federation_id, sealed) VALUES (%s, %s, %s, %s)"
        f" ON CONFLICT (org_id, id) DO NOTHING RETURNING {_CLIENT}",
        [org_id, client_id, federation_id, sealed],
    )
    row = await cursor.fetchone()
    if row:
        return _client(conn, row), True
    cursor = await conn.execute(f"SELECT {_CLIENT} FROM federation_clients WHERE id = %s", [client_id])
    return _client(conn, await cursor.fetchone() or {}), False


async def clients(conn: Connection, federation_id: UUID) -> list[Client]:
    """All of a federation, in the order of their ids."""
    cursor = await conn.execute(
        f"SELECT {_CLIENT} FROM federation_clients WHERE federation_id = %s ORDER BY id", [federation_id]
    )
    return [_client(conn, row) for row in await cursor.fetchall()]


async def client(conn: Connection, *, federation_id: UUID, client_id: UUID) -> Client | None:
    """One of a federation."""
    cursor = await conn.execute(
        f"SELECT {_CLIENT} FROM federation_clients WHERE federation_id = %s AND id = %s", [federation_id, client_id]
    )
    row = await cursor.fetchone()
    return _client(conn, row) if row else None


async def revoke_client(conn: Connection, *, federation_id: UUID, client_id: UUID) -> bool:
    """Take nothing more from a client; whether it was there."""
    cursor = await conn.execute(
        "UPDATE federation_clients SET revoked = true WHERE federation_id = %s AND id = %s", [federation_id, client_id]
    )
    return cursor.rowcount == 1


async def open_round(
    conn: Connection, *, org_id: UUID, federation_id: UUID, phase: Phase, deadline: datetime, told: Mapping[str, Any]
) -> Round | None:
    """The next round; None while another one runs."""
    round_id = new_id()
    cursor = await conn.execute(
        "INSERT INTO federation_rounds (org_id, id, federation_id, number, phase, deadline, sealed)"
        " SELECT %(org)s, %(id)s, %(federation)s, coalesce(max(number), 0) + 1, %(phase)s, %(deadline)s, %(sealed)s"
        " FROM federation_rounds WHERE org_id = %(org)s AND federation_id = %(federation)s"
        f" ON CONFLICT DO NOTHING RETURNING {_ROUND}",
        {
            "org": org_id,
            "id": round_id,
            "federation": federation_id,
            "phase": phase,
            "deadline": deadline,
            "sealed": conn.vault.seal(dict(told), round_context(round_id)),
        },
    )
    row = await cursor.fetchone()
    return _round(conn, row) if row else None


async def round_of(conn: Connection, round_id: UUID, *, lock: bool = False) -> Round | None:
    """One of the transaction's organisation."""
    cursor = await conn.execute(
        f"SELECT {_ROUND} FROM federation_rounds WHERE id = %s{' FOR UPDATE' if lock else ''}", [round_id]
    )
    row = await cursor.fetchone()
    return _round(conn, row) if row else None


async def rounds(conn: Connection, federation_id: UUID, *, limit: int, before: int | None = None) -> list[Round]:
    """A federation's newest, below the number `before`."""
    cursor = await conn.execute(
        f"SELECT {_ROUND} FROM federation_rounds WHERE federation_id = %(federation)s"
        " AND (%(before)s::integer IS NULL OR number < %(before)s) ORDER BY number DESC LIMIT %(limit)s",
        {"federation": federation_id, "before": before, "limit": limit},
    )
    return [_round(conn, row) for row in await cursor.fetchall()]


async def move_round(
    conn: Connection, round_id: UUID, *, state: RoundState, phase: Phase, deadline: datetime, told: Mapping[str, Any]
) -> None:
    """Store where a round is now."""
    await conn.execute(
        "UPDATE federation_rounds SET state = %(state)s, phase = %(phase)s, deadline = %(deadline)s,"
        " sealed = %(sealed)s, finished_at = CASE WHEN %(state)s IN ('closed', 'failed') THEN now() END"
        " WHERE id = %(id)s",
        {
            "state": state,
            "phase": phase,
            "deadline": deadline,
            "sealed": conn.vault.seal(dict(told), round_context(round_id)),
            "id": round_id,
        },
    )


async def add_message(
    conn: Connection, *, org_id: UUID, round_id: UUID, client_id: UUID, kind: Phase, told: Mapping[str, Any]
) -> tuple[Message, bool]:
    """Store what a client sent; what it sent before and False when it did."""
    message_id = uuid5(round_id, f"{client_id}/{kind}")
    cursor = await conn.execute(
        "INSERT INTO federation_messages (org_id, id, round_id, client_id, kind, sealed)"
        f" VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (org_id, id) DO NOTHING RETURNING {_MESSAGE}",
        [org_id, message_id, round_id, client_id, kind, conn.vault.seal(dict(told), message_context(message_id))],
    )
    row = await cursor.fetchone()
    if row:
        return _message(conn, row), True
    cursor = await conn.execute(f"SELECT {_MESSAGE} FROM federation_messages WHERE id = %s", [message_id])
    return _message(conn, await cursor.fetchone() or {}), False


async def messages(conn: Connection, round_id: UUID, kind: Phase) -> list[Message]:
    """All of a kind, in the order of their ids."""
    cursor = await conn.execute(
        f"SELECT {_MESSAGE} FROM federation_messages WHERE round_id = %s AND kind = %s ORDER BY id", [round_id, kind]
    )
    return [_message(conn, row) for row in await cursor.fetchall()]


async def senders(conn: Connection, round_id: UUID, kind: Phase) -> set[UUID]:
    """Who has sent that kind."""
    cursor = await conn.execute(
        "SELECT client_id FROM federation_messages WHERE round_id = %s AND kind = %s", [round_id, kind]
    )
    return {row["client_id"] for row in await cursor.fetchall()}


def _federation(conn: Connection, row: dict[str, Any]) -> Federation:
    told = conn.vault.open(row.pop("sealed"), context(row["id"]))
    return Federation(**row, told=told)


def _client(conn: Connection, row: dict[str, Any]) -> Client:
    told = conn.vault.open(row.pop("sealed"), client_context(row["id"]))
    return Client(**row, name=told["client"], public_key=told["public_key"])


def _round(conn: Connection, row: dict[str, Any]) -> Round:
    told = conn.vault.open(row.pop("sealed"), round_context(row["id"]))
    return Round(**row, told=told)


def _message(conn: Connection, row: dict[str, Any]) -> Message:
    told = conn.vault.open(row.pop("sealed"), message_context(row["id"]))
    return Message(**row, told=told)
