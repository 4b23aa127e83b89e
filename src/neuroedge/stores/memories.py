"""Remembered rows: stored, changed, deleted, listed. How they are found is `memory_search`.

Every query names org_id: partitions are chosen by it, and row level security holds it to the caller's.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import numpy as np
from pgvector import HalfVector

from neuroedge.contract.errors import InvalidInput, Unavailable
from neuroedge.contract.models import Floats
from neuroedge.contract.ports import Memory, MemoryFilter, NewMemory
from neuroedge.contract.vault import Cipher
from neuroedge.stores import knowledge, sealing
from neuroedge.stores.ids import new_id
from neuroedge.stores.memory_filters import restricted
from neuroedge.stores.postgres import Connection

DIMENSIONS: Final = (384, 768, 1024)
"""Sizes of embeddings that have a table."""
COLUMNS: Final = (
    "id, user_id, recording_id, document_id, position, memory_type, visibility, importance, occurred_at, expires_at,"
    " created_at, updated_at, sealed"
)


class ModelSwitched(Unavailable):
    """The organisation's memories are searched with another model than some texts were embedded by."""


async def insert(
    conn: Connection,
    *,
    org_id: UUID,
    user_id: UUID,
    items: Sequence[NewMemory],
    ids: Sequence[UUID] | None = None,
    division_id: UUID | None = None,
) -> list[UUID]:
    """Store rows; their ids in the order given, new ones unless `ids` names them.

    Those for a division are of the one named, else of the user's.
    """
    if not items:
        return []
    ids = [new_id() for _ in items] if ids is None else list(ids)
    words = sealing.Words.of([_searched(conn, item) for item in items], conn.vault)
    average = await _grow_corpus(conn, org_id, documents=len(items), words=words.total())
    if division_id is None and any(item.visibility == "division" for item in items):
        division_id = await division_of(conn, org_id, user_id)
    weights = words.weights(average_length=average)
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO memories (org_id, id, user_id, recording_id, segment_id, document_id, position, memory_type,"
            " visibility, division_id, importance, occurred_at, expires_at, sealed, content_mac, facets, length,"
            " term_ids, terms) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, coalesce(%s, now()), %s, %s, %s, %s,"
            " %s, %s, %s::sparsevec)",
            [
                (org_id, i, user_id, *_columns(item, division_id), *_hidden(conn.vault, i, item), *_terms(weight))
                for i, item, weight in zip(ids, items, weights, strict=True)
            ],
        )
    await _count_words(conn, org_id, words)
    await add_vectors(
        conn,
        org_id=org_id,
        vectors=[
            (i, item.embedding_model, item.embedding)
            for i, item in zip(ids, items, strict=True)
            if conn.underived.embeds(item.memory_type)
        ],
    )
    return ids


async def add_vectors(conn: Connection, *, org_id: UUID, vectors: Sequence[tuple[UUID, str, Floats]]) -> None:
    """Store or replace embeddings: (memory, model, vector [dim])."""
    for dim in sorted({len(vector) for _, _, vector in vectors}):
        async with conn.cursor() as cursor:
            await cursor.executemany(
                f"INSERT INTO {table_of(dim)} (org_id, memory_id, model, embedding) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (org_id, memory_id, model) DO UPDATE SET embedding = EXCLUDED.embedding",
                [(org_id, i, model, HalfVector(vector)) for i, model, vector in vectors if len(vector) == dim],
            )


async def find(conn: Connection, *, org_id: UUID, ids: Sequence[UUID], lock: bool = False) -> list[Memory]:
    """Those of these rows the caller may see, in the order given; `lock` holds them until the transaction ends."""
    cursor = await conn.execute(
        # Locked in one order by everybody, so that nobody waits for one another.
        f"SELECT {COLUMNS} FROM memories WHERE org_id = %s AND id = ANY(%s)"
        + (" ORDER BY id FOR UPDATE" if lock else ""),
        [org_id, list(ids)],
    )
    rows = {row["id"]: row for row in await cursor.fetchall()}
    return [Memory(**opened(conn.vault, rows[i])) for i in ids if i in rows]


async def recent(
    conn: Connection, *, org_id: UUID, limit: int, before: tuple[datetime, UUID] | None, where: MemoryFilter
) -> list[Memory]:
    """By `occurred_at`, newest first; `before` continues after the last row of the page before."""
    conditions, values = restricted(conn.vault, org_id, where)
    if before is not None:
        conditions += " AND (m.occurred_at, m.id) < (%(before_at)s, %(before_id)s)"
        values |= {"before_at": before[0], "before_id": before[1]}
    cursor = await conn.execute(
        f"SELECT {COLUMNS} FROM memories m WHERE {conditions} ORDER BY m.occurred_at DESC, m.id DESC LIMIT %(limit)s",
        {**values, "limit": limit},
    )
    return [Memory(**opened(conn.vault, row)) for row in await cursor.fetchall()]


async def replace_content(conn: Connection, *, org_id: UUID, memory_id: UUID, item: NewMemory) -> bool:
    """Give a row another content with all that is found by it; whether it was there."""
    if not await rewrite(conn, org_id=org_id, memory_id=memory_id, item=item):
        return False
    await _forget_vectors(conn, org_id, memory_id)
    if conn.underived.embeds(item.memory_type):
        await add_vectors(conn, org_id=org_id, vectors=[(memory_id, item.embedding_model, item.embedding)])
    return True


async def rewrite(conn: Connection, *, org_id: UUID, memory_id: UUID, item: NewMemory) -> bool:
    """Give a row other words, labels and times; whether it was there. Its owner and visibility stay, and its vectors
    unless its type must have none; what the graph read in it goes with the content it was read in."""
    cursor = await conn.execute(
        "SELECT length, term_ids, content_mac FROM memories WHERE org_id = %s AND id = %s FOR UPDATE",
        [org_id, memory_id],
    )
    old = await cursor.fetchone()
    if old is None:
        return False
    sealed, mac, facets = _hidden(conn.vault, memory_id, item)
    if mac != old["content_mac"] or not knowledge.reads(conn, item.memory_type):
        # Before the corpus is waited for, as where a memory is deleted: the other order could wait in a circle.
        await knowledge.forget(conn, org_id=org_id, memory_ids=[memory_id])
    words = sealing.Words.of([_searched(conn, item)], conn.vault)
    average = await _grow_corpus(conn, org_id, documents=0, words=words.total() - old["length"])
    (weight,) = words.weights(average_length=average)
    await conn.execute(
        "UPDATE memories SET memory_type = %s, importance = %s, occurred_at = coalesce(%s, occurred_at),"
        " expires_at = %s, sealed = %s, content_mac = %s, facets = %s, length = %s, term_ids = %s,"
        " terms = %s::sparsevec, updated_at = now() WHERE org_id = %s AND id = %s",
        [
            *(item.memory_type, item.importance, item.occurred_at, item.expires_at),
            *(sealed, mac, facets),
            *_terms(weight),
            *(org_id, memory_id),
        ],
    )
    await conn.execute(
        "UPDATE term_stats SET documents = documents - 1 WHERE org_id = %s AND term = ANY(%s)",
        [org_id, old["term_ids"]],
    )
    await _count_words(conn, org_id, words)
    if not conn.underived.embeds(item.memory_type):
        await _forget_vectors(conn, org_id, memory_id)
    return True


async def relabel(conn: Connection, *, org_id: UUID, items: Mapping[UUID, NewMemory]) -> None:
    """Give rows other metadata, sources and tags. Their titles and contents, so what they are found by, must be those
    they have."""
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "UPDATE memories SET sealed = %s, content_mac = %s, facets = %s, updated_at = now()"
            " WHERE org_id = %s AND id = %s",
            [(*_hidden(conn.vault, memory_id, item), org_id, memory_id) for memory_id, item in items.items()],
        )


async def delete(conn: Connection, *, org_id: UUID, ids: Sequence[UUID]) -> int:
    """Delete those of these rows the caller may see; how many."""
    cursor = await conn.execute("DELETE FROM memories WHERE org_id = %s AND id = ANY(%s)", [org_id, list(ids)])
    return cursor.rowcount


def _columns(item: NewMemory, division_id: UUID | None) -> tuple[Any, ...]:
    return (
        item.recording_id,
        item.segment_id,
        item.document_id,
        item.position,
        item.memory_type,
        item.visibility,
        division_id if item.visibility == "division" else None,
        item.importance,
        item.occurred_at,
        item.expires_at,
    )


def _hidden(cipher: Cipher, memory_id: UUID, item: NewMemory) -> tuple[bytes, int, list[int]]:
    """What says something of the content: sealed, or as keyed hashes."""
    said = {
        "title": item.title,
        "content": item.content,
        "tags": list(item.tags),
        "keywords": list(item.keywords),
        "metadata": dict(item.metadata),
        "source": item.source,
    }
    return (
        cipher.seal(said, sealing.memory(memory_id)),
        sealing.content_mac(cipher, item.content),
        sealing.facets(cipher, tags=item.tags, metadata=item.metadata, source=item.source),
    )


async def rederive(conn: Connection, *, org_id: UUID, ids: Sequence[UUID]) -> None:
    """Make anew what rows are found by their words by, after the types that have none were changed."""
    for memory in await find(conn, org_id=org_id, ids=ids, lock=True):
        item = item_of(memory)
        await rewrite(conn, org_id=org_id, memory_id=memory.id, item=item)


def item_of(memory: Memory, given: Mapping[str, Any] = MappingProxyType({})) -> NewMemory:
    """A memory as it is stored, with changes; without its vectors, which stay as they are."""
    return NewMemory(
        **{
            "content": memory.content,
            "title": memory.title,
            "tags": memory.tags,
            "keywords": memory.keywords,
            "memory_type": memory.memory_type,
            "metadata": memory.metadata,
            "source": memory.source,
            "importance": memory.importance,
            "occurred_at": memory.occurred_at,
            "expires_at": memory.expires_at,
            **given,
        },
        embedding=np.zeros(0, np.float32),
        embedding_model="",
    )


def _terms(weights: sealing.Weights) -> tuple[int, list[int], str]:
    return weights.length, weights.term_ids, weights.text()


def _searched(conn: Connection, item: NewMemory) -> str:
    return searched(item.title, item.content) if conn.underived.hashes(item.memory_type) else ""


def searched(title: str | None, content: str) -> str:
    """The text whose words a memory is found by."""
    return f"{title}\n{content}" if title else content


async def _forget_vectors(conn: Connection, org_id: UUID, memory_id: UUID) -> None:
    for dim in DIMENSIONS:
        await conn.execute(f"DELETE FROM {table_of(dim)} WHERE org_id = %s AND memory_id = %s", [org_id, memory_id])


def opened(cipher: Cipher, row: dict[str, Any]) -> dict[str, Any]:
    """A row with its content in the clear."""
    said = cipher.open(row.pop("sealed"), sealing.memory(row["id"]))
    return {**row, **said}


def table_of(dim: int) -> str:
    """The table of embeddings of one size. Raises InvalidInput when there is none."""
    if dim not in DIMENSIONS:
        raise InvalidInput(
            f"embeddings of {dim} dimensions cannot be stored", hint=f"use a model with one of {DIMENSIONS}"
        )
    return f"memory_vectors_{dim}"


async def division_of(conn: Connection, org_id: UUID, user_id: UUID) -> UUID:
    """The division of a user. Raises InvalidInput for one of none."""
    cursor = await conn.execute(
        "SELECT division_id FROM memberships WHERE org_id = %s AND user_id = %s", [org_id, user_id]
    )
    row = await cursor.fetchone()
    if row is None or row["division_id"] is None:
        raise InvalidInput("you belong to no division", hint="use visibility private or organisation")
    division_id: UUID = row["division_id"]
    return division_id


async def wait_for_writers(conn: Connection, *, org_id: UUID) -> None:
    """Be the only one who adds rows to the organisation until the transaction ends."""
    await _grow_corpus(conn, org_id, documents=0, words=0)


async def require_model(conn: Connection, *, org_id: UUID, model: str) -> None:
    """Be the only one who adds rows until the transaction ends, and find the organisation searched with this model.

    Raises ModelSwitched for another one: rows embedded by `model` might never be found by their meaning, since whoever
    switched catches up only with what is stored soon after. Ask when nothing is left to delete: that takes other locks
    before this one.
    """
    await wait_for_writers(conn, org_id=org_id)
    cursor = await conn.execute("SELECT embedding_model FROM organisations WHERE id = %s", [org_id])
    row = await cursor.fetchone()
    if row is not None and row["embedding_model"] not in (None, model):
        raise ModelSwitched(f"memories are searched with {row['embedding_model']} now, not with {model}")


async def _grow_corpus(conn: Connection, org_id: UUID, *, documents: int, words: int) -> float:
    """Count more rows and words; words of a row on average. Every writer does this first: they wait for each other
    here and nowhere else, so they cannot deadlock."""
    cursor = await conn.execute(
        "INSERT INTO corpus_stats AS c (org_id, documents, words) VALUES (%s, %s, %s) ON CONFLICT (org_id) DO UPDATE"
        " SET documents = c.documents + EXCLUDED.documents, words = c.words + EXCLUDED.words"
        " RETURNING documents, words",
        [org_id, documents, words],
    )
    row = await cursor.fetchone()
    return row["words"] / row["documents"] if row and row["documents"] else 0.0


async def _count_words(conn: Connection, org_id: UUID, words: sealing.Words) -> None:
    containing = sorted(words.containing().items())
    await conn.execute(
        "INSERT INTO term_stats AS t (org_id, term, documents)"
        " SELECT %s, u.term, u.documents FROM unnest(%s::integer[], %s::integer[]) AS u (term, documents)"
        " ON CONFLICT (org_id, term) DO UPDATE SET documents = t.documents + EXCLUDED.documents",
        [org_id, [term for term, _ in containing], [n for _, n in containing]],
    )
