"""Whose voices a recording's speakers are, and the names that memories of its segments carry because of it."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from neuroedge.stores import memories, voices
from neuroedge.stores.postgres import Connection

SPEAKER_KEYS = ("speaker", "speaker_label", "voice_id")
"""What the metadata of a segment's memory say of its speaker."""


async def assign(conn: Connection, *, recording_id: UUID, found: Mapping[str, tuple[UUID, float]]) -> int:
    """Let each label of `found` be that voice, with its log-likelihood ratio, and all others nobody; how many are."""
    await conn.execute("UPDATE speakers SET voice_id = NULL, voice_llr = NULL WHERE recording_id = %s", [recording_id])
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "UPDATE speakers SET voice_id = %s, voice_llr = %s WHERE recording_id = %s AND label = %s",
            [(voice_id, llr, recording_id, label) for label, (voice_id, llr) in found.items()],
        )
    return len(found)


async def said_of(conn: Connection, recording_id: UUID) -> dict[str, dict[str, Any]]:
    """By label, what memories say of a recording's speakers now."""
    cursor = await conn.execute("SELECT label, voice_id FROM speakers WHERE recording_id = %s", [recording_id])
    rows = await cursor.fetchall()
    named = await voices.names(conn, {row["voice_id"] for row in rows if row["voice_id"]})
    return {row["label"]: speaker_metadata(row["label"], row["voice_id"], named) for row in rows}


def speaker_metadata(label: str, voice_id: UUID | None, named: Mapping[UUID, str]) -> dict[str, Any]:
    """What the metadata of a segment's memory say of its speaker: the name where it is known, else the label."""
    if voice_id is None or voice_id not in named:
        return {"speaker": label}
    return {"speaker": named[voice_id], "speaker_label": label, "voice_id": str(voice_id)}


async def rename(
    conn: Connection, *, org_id: UUID, recording_id: UUID, after: UUID | None, limit: int
) -> tuple[int, UUID | None]:
    """Let the memories of the next segments name their speakers as they are now known; those that do are left alone.

    How many were changed, and the last memory looked at; None when there was none. The transaction must see all of
    the organisation's memories.
    """
    cursor = await conn.execute(
        "SELECT m.id, s.label FROM memories m JOIN segments g ON (g.org_id, g.id) = (m.org_id, m.segment_id)"
        " JOIN speakers s ON (s.org_id, s.id) = (g.org_id, g.speaker_id) WHERE m.org_id = %(org)s"
        " AND m.recording_id = %(recording)s AND (%(after)s::uuid IS NULL OR m.id > %(after)s)"
        " ORDER BY m.id LIMIT %(limit)s",
        {"org": org_id, "recording": recording_id, "after": after, "limit": limit},
    )
    labels = {row["id"]: row["label"] for row in await cursor.fetchall()}
    said = await said_of(conn, recording_id)
    items = {}
    for memory in await memories.find(conn, org_id=org_id, ids=list(labels), lock=True):
        kept = {name: value for name, value in memory.metadata.items() if name not in SPEAKER_KEYS}
        metadata = {**said[labels[memory.id]], **kept}
        if metadata != memory.metadata:
            items[memory.id] = memories.item_of(memory, {"metadata": metadata})
    await memories.relabel(conn, org_id=org_id, items=items)
    return len(items), max(labels, default=None)


async def forget_gone(conn: Connection, recording_id: UUID) -> int:
    """Take voices that are gone, or did not agree to it, from a recording's speakers; how many."""
    cursor = await conn.execute(
        "SELECT id, voice_id FROM speakers WHERE recording_id = %s AND voice_id IS NOT NULL", [recording_id]
    )
    rows = await cursor.fetchall()
    named = await voices.names(conn, {row["voice_id"] for row in rows})
    gone = [row["id"] for row in rows if row["voice_id"] not in named]
    await conn.execute("UPDATE speakers SET voice_id = NULL, voice_llr = NULL WHERE id = ANY(%s)", [gone])
    return len(gone)


async def of_voice(conn: Connection, voice_id: UUID) -> list[UUID]:
    """Recordings with a speaker who is this voice."""
    cursor = await conn.execute(
        "SELECT DISTINCT recording_id FROM speakers WHERE voice_id = %s ORDER BY recording_id", [voice_id]
    )
    return [row["recording_id"] for row in await cursor.fetchall()]


async def of_gone_voices(conn: Connection, *, limit: int) -> list[UUID]:
    """Recordings with a speaker whose voice is gone."""
    cursor = await conn.execute(
        "SELECT DISTINCT s.recording_id FROM speakers s WHERE s.voice_id IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM voices v WHERE v.org_id = s.org_id AND v.id = s.voice_id) LIMIT %s",
        [limit],
    )
    return [row["recording_id"] for row in await cursor.fetchall()]
