"""What a search is restricted to, as SQL."""

from typing import Any, Final
from uuid import UUID

from neuroedge.contract.ports import MemoryFilter
from neuroedge.contract.vault import Cipher
from neuroedge.stores import sealing

CHAT_MESSAGE: Final = "chat_message"
"""Type of what chat messages are found by: seen only where it is asked for, so that no answer rests on answers."""
OTHERS: Final = "%(recording)s, %(document)s, %(type)s, %(user)s, %(since)s, %(until)s"
"""What a filter asks for besides facets, as the last arguments of memories_by_words and memories_by_facets."""


def others(where: MemoryFilter) -> dict[str, Any]:
    """The values of OTHERS."""
    return {
        "recording": where.recording_id,
        "document": where.document_id,
        "type": where.memory_type,
        "user": where.user_id,
        "since": where.since,
        "until": where.until,
    }


def facets(cipher: Cipher, where: MemoryFilter) -> list[int]:
    """Keyed hashes a row must have."""
    return sealing.facets(cipher, tags=where.tags or (), metadata=where.metadata or {}, source=where.source)


def restricted(cipher: Cipher, org_id: UUID, where: MemoryFilter) -> tuple[str, dict[str, Any]]:
    """SQL conditions on a `memories m`, and their values."""
    given = {**others(where), "facets": facets(cipher, where) or None}
    possible = {
        "recording": "m.recording_id = %(recording)s",
        "document": "m.document_id = %(document)s",
        "type": "m.memory_type = %(type)s",
        "user": "m.user_id = %(user)s",
        "since": "m.occurred_at >= %(since)s",
        "until": "m.occurred_at < %(until)s",
        "facets": "m.facets @> %(facets)s::bigint[]",
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    conditions = [
        "m.org_id = %(org)s",
        "(m.expires_at IS NULL OR m.expires_at > now())",
        *(possible[name] for name in chosen),
        *([] if where.memory_type else [f"m.memory_type <> '{CHAT_MESSAGE}'"]),
    ]
    return " AND ".join(conditions), {"org": org_id, **chosen}
