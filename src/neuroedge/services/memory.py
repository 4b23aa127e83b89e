"""Memories: kept, read, changed, deleted, listed, counted, forgotten when their time is over.

Who may see a memory is held by row level security: its owner (private), the owner's division, or the organisation.
Changing and deleting is for its owner and for who manages the organisation.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import numpy as np

from neuroedge.contract.errors import Conflict, Forbidden, InvalidInput, NotFound
from neuroedge.contract.models import Floats
from neuroedge.contract.ports import Memory, MemoryFilter, NewMemory
from neuroedge.contract.principal import MANAGE_ORG, Principal
from neuroedge.kit.keywords import keywords
from neuroedge.services.accounts import PROBE
from neuroedge.services.housekeeping import in_each
from neuroedge.services.knowledge import Knowledge
from neuroedge.services.memory_drafts import MemoryChanges, MemoryDraft
from neuroedge.services.run_engine import EngineRunner
from neuroedge.stores import ledgers, memories, memory_lists
from neuroedge.stores.memory_lists import Counts, Unit
from neuroedge.stores.postgres import Connection, Database

KEYWORDS: Final = 10
"""Of each memory, as many as the engine `memory` finds."""
_SEGMENT: Final = "segment"
_SWEEP_ROWS: Final = 1000
_OF_SOURCE: Final = frozenset({"tags", "importance"})
"""What can be changed of a passage of a document or recording."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """What a memory's content is found by."""

    vector: Floats
    model: str
    keywords: list[str]


class MemoryService:
    """Memories of the caller's organisation, those the caller may see."""

    def __init__(self, *, db: Database, runner: EngineRunner, knowledge: Knowledge | None = None) -> None:
        """`knowledge`: is told of what is new or changed."""
        self._db = db
        self._runner = runner
        self._knowledge = knowledge

    async def create(self, principal: Principal, draft: MemoryDraft, *, request_id: str) -> Memory:
        """Remember a text. Raises InvalidInput for a time that is over, or a division the caller is not in."""
        check_time(draft.expires_at)
        (embedded,) = await self.embed([draft.content], principal=principal, request_id=request_id)
        async with self._db.tenant(principal) as conn:
            ids = await memories.insert(
                conn, org_id=principal.org_id, user_id=principal.user_id, items=[new_memory(draft, embedded)]
            )
            await audit(conn, principal, request_id, "memory.created", f"memory:{ids[0]}")
            created = await _require(conn, principal, ids[0])
        await self.changed(principal, request_id=request_id)
        return created

    async def changed(self, principal: Principal, *, request_id: str) -> None:
        """Tell what follows memories that some are new or changed; after they are stored."""
        if self._knowledge is not None:
            await self._knowledge.changed(principal, request_id=request_id)

    async def get(self, principal: Principal, memory_id: UUID) -> Memory:
        """One memory. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            return await _require(conn, principal, memory_id)

    async def update(self, principal: Principal, memory_id: UUID, changes: MemoryChanges, *, request_id: str) -> Memory:
        """Change a memory; another content is embedded anew. Raises NotFound, Forbidden, Conflict, InvalidInput."""
        given = changes.given()
        check_time(given.get("expires_at"))
        async with self._db.tenant(principal) as conn:
            _check_change(await _require(conn, principal, memory_id), principal, given)
        embedded = None
        if "content" in given:
            (embedded,) = await self.embed([given["content"]], principal=principal, request_id=request_id)
        visibility = given.get("visibility")
        async with self._db.tenant(principal) as conn:
            before = await _require(conn, principal, memory_id, lock=True)
            _check_change(before, principal, given)
            given.pop("visibility", None)
            if embedded is not None:
                item = replace(memories.item_of(before, given), **_found_by(embedded))
                await memories.replace_content(conn, org_id=principal.org_id, memory_id=memory_id, item=item)
            elif given:
                item = memories.item_of(before, given)
                await memories.rewrite(conn, org_id=principal.org_id, memory_id=memory_id, item=item)
            if visibility is not None:
                await memory_lists.set_visibility(
                    conn,
                    org_id=principal.org_id,
                    memory_id=memory_id,
                    owner_id=before.user_id,
                    visibility=visibility,
                )
            await audit(conn, principal, request_id, "memory.changed", f"memory:{memory_id}")
            after = await _require(conn, principal, memory_id)
        if embedded is not None or "memory_type" in given:  # of another type it may be one that is read
            await self.changed(principal, request_id=request_id)
        return after

    async def delete(self, principal: Principal, memory_id: UUID, *, request_id: str) -> None:
        """Forget a memory. Raises NotFound, Forbidden, Conflict for a passage of a document or recording."""
        async with self._db.tenant(principal) as conn:
            memory = await _require(conn, principal, memory_id, lock=True)
            _check_owner(memory, principal)
            _check_own(memory)
            await memories.delete(conn, org_id=principal.org_id, ids=[memory_id])
            await audit(conn, principal, request_id, "memory.deleted", f"memory:{memory_id}")

    async def page(
        self, principal: Principal, *, limit: int, before: tuple[datetime, UUID] | None, where: MemoryFilter
    ) -> list[Memory]:
        """By the time of what they tell, the latest first."""
        async with self._db.tenant(principal) as conn:
            return await memories.recent(conn, org_id=principal.org_id, limit=limit, before=before, where=where)

    async def timeline(
        self, principal: Principal, *, unit: Unit, limit: int, where: MemoryFilter
    ) -> list[tuple[datetime, int]]:
        """How many happened in each day or month (UTC) that has any, the latest first."""
        async with self._db.tenant(principal) as conn:
            return await memory_lists.by_time(conn, org_id=principal.org_id, unit=unit, limit=limit, where=where)

    async def statistics(self, principal: Principal) -> tuple[Counts, list[tuple[datetime, int]], str | None]:
        """Counts of what the caller may see, by month the last ten years, and the organisation's embedding model."""
        async with self._db.tenant(principal) as conn:
            counts = await memory_lists.counts(conn, principal.org_id)
            months = await memory_lists.by_time(
                conn, org_id=principal.org_id, unit="month", limit=120, where=MemoryFilter()
            )
        return counts, months, (await self._db.known(principal.org_id)).embedding_model

    async def sweep(self) -> int:
        """Delete, in every organisation, memories whose time is over; how many."""
        async with self._db.unbound() as conn:
            organisations = await memory_lists.organisations_with_expired(conn)
        return await in_each(organisations, self._sweep_of)

    async def _sweep_of(self, org_id: UUID) -> int:
        swept, gone = 0, _SWEEP_ROWS
        while gone == _SWEEP_ROWS:
            async with self._db.tenant(replace(PROBE, org_id=org_id), sees_all=True) as conn:
                gone = await memory_lists.delete_expired(conn, org_id=org_id, limit=_SWEEP_ROWS)
            swept += gone
        return swept

    async def embed(self, texts: Sequence[str], *, principal: Principal, request_id: str) -> list[Embedded]:
        """What each text is found by, with the organisation's model. At most 256 texts."""
        answer: Any = await self._runner.run(
            "embedding", {"texts": list(texts)}, principal=principal, request_id=request_id
        )
        # In a thread: long texts take tens of milliseconds each.
        found = await asyncio.to_thread(lambda: [keywords(text, limit=KEYWORDS) for text in texts])
        return [
            Embedded(vector=np.asarray(vector, np.float32), model=answer.model, keywords=words)
            for vector, words in zip(answer.vectors, found, strict=True)
        ]


def new_memory(draft: MemoryDraft, embedded: Embedded) -> NewMemory:
    """A draft as it is stored."""
    return NewMemory(
        content=draft.content,
        title=draft.title,
        tags=list(dict.fromkeys(draft.tags)),
        memory_type=draft.memory_type,
        metadata=draft.metadata,
        source=draft.source,
        visibility=draft.visibility,
        importance=draft.importance,
        occurred_at=draft.occurred_at,
        expires_at=draft.expires_at,
        **_found_by(embedded),
    )


def _found_by(embedded: Embedded) -> dict[str, Any]:
    return {"embedding": embedded.vector, "embedding_model": embedded.model, "keywords": embedded.keywords}


def check_time(expires_at: datetime | None) -> None:
    """Raise InvalidInput for an expiry that is over already."""
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise InvalidInput("expires_at lies in the past", hint="give a time to come, or none")


def manages(principal: Principal) -> bool:
    """Whether the caller may change what others remembered."""
    return principal.may(MANAGE_ORG)


async def audit(
    conn: Connection,
    principal: Principal,
    request_id: str,
    action: str,
    target: str,
    detail: dict[str, Any] | None = None,
) -> None:
    """Write down who did what; never content."""
    await ledgers.add_audit(
        conn,
        org_id=principal.org_id,
        user_id=principal.user_id,
        request_id=request_id,
        action=action,
        target=target,
        detail=detail,
    )


async def _require(conn: Connection, principal: Principal, memory_id: UUID, *, lock: bool = False) -> Memory:
    found = await memories.find(conn, org_id=principal.org_id, ids=[memory_id], lock=lock)
    if not found or (found[0].expires_at is not None and found[0].expires_at <= datetime.now(UTC)):
        # The same for an id that never existed, another tenant's, one hidden from the caller, and one that expired.
        raise NotFound(f"no memory {memory_id}", hint="GET /v1/memories lists yours")
    return found[0]


def _check_change(memory: Memory, principal: Principal, given: dict[str, Any]) -> None:
    _check_owner(memory, principal)
    if set(given) - _OF_SOURCE:
        _check_own(memory)
    if given.get("visibility") in ("private", "division") and memory.user_id != principal.user_id:
        raise Forbidden("only its owner can hide a memory from others", hint="delete it, or ask its owner")


def _check_owner(memory: Memory, principal: Principal) -> None:
    if memory.user_id != principal.user_id and not manages(principal):
        raise Forbidden(
            "this memory is another member's", hint="ask its owner, or an owner or admin of the organisation"
        )


def _check_own(memory: Memory) -> None:
    if memory.document_id is not None:
        raise Conflict(
            "this memory is a passage of a document; only its tags and importance can be changed",
            hint=f"replace or delete the document: /v1/documents/{memory.document_id}",
        )
    if memory.recording_id is not None and memory.memory_type == _SEGMENT:
        raise Conflict(
            "this memory is a part of a recording; only its tags and importance can be changed",
            hint=f"delete the recording: /v1/recordings/{memory.recording_id}",
        )
