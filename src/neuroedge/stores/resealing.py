"""Every column that holds sealed content, and how its rows are sealed anew under the organisation's newest key."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from neuroedge.contract.vault import Cipher
from neuroedge.stores import sealing
from neuroedge.stores.postgres import Connection

_KEY_PREFIX_BYTES: Final = 5
"""Tink's ciphertexts begin with a version byte and the four bytes of the key's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedColumn:
    """A column of a tenant's table, what identifies a row besides org_id, and the context its value is sealed in."""

    table: str
    key: tuple[str, ...] = ("id",)
    column: str = "sealed"
    context: Callable[..., str]
    """Of the values of `key`."""

    def place(self, row: Mapping[str, Any]) -> str:
        """Where this row's value belongs."""
        return self.context(*(row[name] for name in self.key))


def _place(table: str) -> Callable[..., str]:
    return lambda *ids: "/".join([table, *map(str, ids)])


SEALED: Final = (
    SealedColumn(table="memories", context=sealing.memory),
    SealedColumn(table="recordings", context=sealing.recording),
    SealedColumn(table="segments", context=sealing.segment),
    SealedColumn(table="recording_steps", key=("recording_id", "step"), context=sealing.step),
    SealedColumn(table="tasks", column="payload", context=lambda task_id: sealing.task(task_id, "payload")),
    SealedColumn(table="tasks", column="result", context=lambda task_id: sealing.task(task_id, "result")),
    SealedColumn(table="batch_items", column="payload", context=lambda item: f"batch_items/{item}/payload"),
    SealedColumn(table="batch_items", column="outcome", context=lambda item: f"batch_items/{item}/outcome"),
    SealedColumn(table="documents", context=_place("documents")),
    SealedColumn(table="files", context=_place("files")),
    SealedColumn(table="images", context=_place("images")),
    SealedColumn(table="learners", context=_place("learners")),
    SealedColumn(table="learner_events", context=_place("learner_events")),
    SealedColumn(table="recommenders", context=_place("recommenders")),
    SealedColumn(table="recommender_choices", context=_place("recommender_choices")),
    SealedColumn(table="federations", context=_place("federations")),
    SealedColumn(table="federation_clients", context=_place("federation_clients")),
    SealedColumn(table="federation_rounds", context=_place("federation_rounds")),
    SealedColumn(table="federation_messages", context=_place("federation_messages")),
    SealedColumn(table="voices", context=_place("voices")),
    SealedColumn(table="voiceprints", context=_place("voiceprints")),
    SealedColumn(table="trained_models", context=_place("trained_models")),
    SealedColumn(table="switches", context=_place("switches")),
    SealedColumn(table="glossaries", key=("org_id",), context=_place("glossaries")),
    SealedColumn(table="llm_providers", context=_place("llm_providers")),
    SealedColumn(table="artifacts", context=_place("artifacts")),
    SealedColumn(table="artifacts", column="request", context=lambda artifact_id: f"artifacts/{artifact_id}/request"),
    SealedColumn(table="artifact_versions", context=_place("artifact_versions")),
    SealedColumn(table="entities", context=_place("entities")),
    SealedColumn(table="mentions", key=("entity_id", "memory_id"), context=_place("mentions")),
    SealedColumn(table="relations", context=_place("relations")),
    SealedColumn(table="reviews", context=_place("reviews")),
    SealedColumn(table="review_steps", key=("review_id", "position"), context=_place("review_steps")),
    SealedColumn(table="chat_sessions", context=_place("chat_sessions")),
    SealedColumn(table="checkpoints", key=("thread_id", "checkpoint_id"), context=_place("checkpoints")),
    SealedColumn(
        table="checkpoint_writes",
        key=("thread_id", "checkpoint_id", "task_id", "idx"),
        context=_place("checkpoint_writes"),
    ),
    SealedColumn(table="chat_messages", context=_place("chat_messages")),
    SealedColumn(table="chat_messages", column="feedback", context=lambda i: f"chat_messages/{i}/feedback"),
    SealedColumn(table="chat_attachments", context=_place("chat_attachments")),
    SealedColumn(table="chat_attachments", column="text", context=lambda i: f"chat_attachments/{i}/text"),
)
"""All of them; a test compares this with the schema."""


def key_prefix(cipher: Cipher) -> bytes:
    """What everything sealed with the primary key begins with."""
    return cipher.seal(None, "")[:_KEY_PREFIX_BYTES]


async def count_outdated(conn: Connection, *, org_id: UUID, prefix: bytes) -> int:
    """Values of the organisation that do not begin with the prefix; the transaction must see all of its rows."""
    total = 0
    for sealed in SEALED:
        cursor = await conn.execute(
            f"SELECT count(*) AS n FROM {sealed.table} WHERE org_id = %s"
            f" AND substr({sealed.column}, 1, {_KEY_PREFIX_BYTES}) <> %s",
            [org_id, prefix],
        )
        row = await cursor.fetchone()
        total += row["n"] if row else 0
    return total


async def reseal(
    conn: Connection, sealed: SealedColumn, *, org_id: UUID, prefix: bytes, after: tuple[Any, ...] | None, limit: int
) -> tuple[int, tuple[Any, ...] | None]:
    """Seal up to `limit` outdated values anew, in the order of their keys, beyond the key `after`.

    How many were outdated, and the last one's key; None when there was none. A value that somebody writes at the same
    time is left as that one wrote it.
    """
    key = ", ".join(sealed.key)
    beyond = f" AND ({key}) > ({', '.join(['%s'] * len(sealed.key))})" if after else ""
    cursor = await conn.execute(
        f"SELECT {key}, {sealed.column} AS value FROM {sealed.table} WHERE org_id = %s"
        f" AND substr({sealed.column}, 1, {_KEY_PREFIX_BYTES}) <> %s{beyond} ORDER BY {key} LIMIT %s",
        [org_id, prefix, *(after or ()), limit],
    )
    rows = await cursor.fetchall()
    matches = " AND ".join(f"{name} = %s" for name in sealed.key)
    changes = []
    for row in rows:
        place = sealed.place(row)
        anew = conn.vault.seal(conn.vault.open(row["value"], place), place)
        changes.append((anew, org_id, *(row[name] for name in sealed.key), row["value"]))
    async with conn.cursor() as cursor:
        await cursor.executemany(
            f"UPDATE {sealed.table} SET {sealed.column} = %s WHERE org_id = %s AND {matches} AND {sealed.column} = %s",
            changes,
        )
    return len(rows), tuple(rows[-1][name] for name in sealed.key) if rows else None
