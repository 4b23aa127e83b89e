"""Recommenders and the choices they made. Names, state and choices are sealed; ids of recommenders are keyed hashes."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid5

from neuroedge.stores.postgres import Connection

_COLUMNS: Final = "id, version, choices, sealed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommender:
    """A policy that learns; `version` counts the rewards it has learned from."""

    id: UUID
    name: str
    version: int
    choices: int
    settings: dict[str, Any]
    state: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was put first, in which context, with which probability; the reward once it is known."""

    id: UUID
    item: str
    context: list[float]
    propensity: float
    reward: float | None


def recommender_id(conn: Connection, org_id: UUID, name: str) -> UUID:
    """The id of the recommender of a name, whether there is one or not."""
    return uuid5(org_id, f"{conn.vault.blind(f'recommender/{name}'):x}")


def context(row_id: UUID) -> str:
    """Where a recommender's sealed value belongs."""
    return f"recommenders/{row_id}"


def choice_context(row_id: UUID) -> str:
    """Where a choice's sealed value belongs."""
    return f"recommender_choices/{row_id}"


async def find(conn: Connection, *, org_id: UUID, name: str, lock: bool = False) -> Recommender | None:
    """The recommender of a name; with `lock`, nobody else changes it until the transaction ends."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM recommenders WHERE org_id = %s AND id = %s{' FOR UPDATE' if lock else ''}",
        [org_id, recommender_id(conn, org_id, name)],
    )
    row = await cursor.fetchone()
    return await asyncio.to_thread(_opened, conn, row) if row else None


async def count(conn: Connection, *, org_id: UUID) -> int:
    """How many the organisation has."""
    cursor = await conn.execute("SELECT count(*) AS n FROM recommenders WHERE org_id = %s", [org_id])
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0


async def insert(
    conn: Connection, *, org_id: UUID, name: str, settings: Mapping[str, Any], state: Mapping[str, Any]
) -> Recommender | None:
    """A new one; None when the name is taken."""
    row_id = recommender_id(conn, org_id, name)
    sealed = conn.vault.seal({"name": name, "settings": dict(settings), "state": dict(state)}, context(row_id))
    cursor = await conn.execute(
        "INSERT INTO recommenders (org_id, id, sealed) VALUES (%s, %s, %s) ON CONFLICT (org_id, id) DO NOTHING"
        f" RETURNING {_COLUMNS}",
        [org_id, row_id, sealed],
    )
    row = await cursor.fetchone()
    return _opened(conn, row) if row else None


async def learned(conn: Connection, *, org_id: UUID, of: Recommender, state: Mapping[str, Any]) -> int:
    """Keep the state after one more reward; the new version. The row must be locked."""
    told = {"name": of.name, "settings": of.settings, "state": dict(state)}
    sealed = await asyncio.to_thread(conn.vault.seal, told, context(of.id))
    await conn.execute(
        "UPDATE recommenders SET sealed = %s, version = version + 1, updated_at = now() WHERE org_id = %s AND id = %s",
        [sealed, org_id, of.id],
    )
    return of.version + 1


async def add_choice(conn: Connection, *, org_id: UUID, of: UUID, choice: Choice, keep: int) -> None:
    """Note a choice; only the newest `keep` stay."""
    cursor = await conn.execute(
        "UPDATE recommenders SET choices = choices + 1 WHERE org_id = %s AND id = %s RETURNING choices", [org_id, of]
    )
    row = await cursor.fetchone() or {"choices": 0}
    said = {"item": choice.item, "context": choice.context, "propensity": choice.propensity}
    await conn.execute(
        "INSERT INTO recommender_choices (org_id, id, recommender_id, number, sealed) VALUES (%s, %s, %s, %s, %s)",
        [org_id, choice.id, of, row["choices"], conn.vault.seal(said, choice_context(choice.id))],
    )
    await conn.execute(
        "DELETE FROM recommender_choices WHERE org_id = %s AND recommender_id = %s AND number <= %s",
        [org_id, of, row["choices"] - keep],
    )


async def choice(conn: Connection, *, org_id: UUID, of: UUID, choice_id: UUID) -> Choice | None:
    """One choice of a recommender."""
    cursor = await conn.execute(
        "SELECT id, reward, sealed FROM recommender_choices WHERE org_id = %s AND recommender_id = %s AND id = %s",
        [org_id, of, choice_id],
    )
    row = await cursor.fetchone()
    return _choice(conn, row) if row else None


async def reward(conn: Connection, *, org_id: UUID, choice_id: UUID, value: float) -> None:
    """Note what a choice earned."""
    await conn.execute(
        "UPDATE recommender_choices SET reward = %s WHERE org_id = %s AND id = %s", [value, org_id, choice_id]
    )


async def rewarded(conn: Connection, *, org_id: UUID, of: UUID, newest: int) -> list[Choice]:
    """The newest choices with a reward, oldest first."""
    cursor = await conn.execute(
        "SELECT id, reward, sealed FROM recommender_choices WHERE org_id = %s AND recommender_id = %s"
        " AND reward IS NOT NULL ORDER BY number DESC LIMIT %s",
        [org_id, of, newest],
    )
    rows = await cursor.fetchall()
    return await asyncio.to_thread(lambda: [_choice(conn, row) for row in reversed(rows)])


async def delete(conn: Connection, *, org_id: UUID, name: str) -> bool:
    """Delete one with its choices; whether there was one."""
    row_id = recommender_id(conn, org_id, name)
    cursor = await conn.execute("DELETE FROM recommenders WHERE org_id = %s AND id = %s", [org_id, row_id])
    return cursor.rowcount > 0


def _choice(conn: Connection, row: Mapping[str, Any]) -> Choice:
    told = conn.vault.open(row["sealed"], choice_context(row["id"]))
    return Choice(
        id=row["id"],
        item=told["item"],
        context=told["context"],
        propensity=told["propensity"],
        reward=row["reward"],
    )


def _opened(conn: Connection, row: Mapping[str, Any]) -> Recommender:
    told = conn.vault.open(row["sealed"], context(row["id"]))
    return Recommender(
        id=row["id"],
        name=told["name"],
        version=row["version"],
        choices=row["choices"],
        settings=told["settings"],
        state=told["state"],
    )
