"""Near-duplicates become one memory: the oldest stays, with what the others knew beyond it.

A pass goes through the rows by age, a page a call. Each row takes the younger ones that say the same: the same content,
or an embedding whose cosine is high enough, among rows of the same type, visibility and recording. Every group is one
transaction, so a pass that breaks off has merged some groups whole and the others not at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from neuroedge.contract.ports import Memory
from neuroedge.contract.principal import Principal
from neuroedge.services.memory import audit, manages
from neuroedge.stores import memories, memory_lists
from neuroedge.stores.memories import item_of
from neuroedge.stores.memory_lists import Place, Twin
from neuroedge.stores.postgres import Connection, Database

MERGED: Final = "merged_ids"
"""Key of the metadata that names the memories a merged one took the place of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A memory and the younger ones that say the same."""

    kept: UUID
    others: list[Twin]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A page of a pass."""

    groups: list[Group]
    """Those merged, or, in a dry run, that would be."""
    checked: int
    remaining: int
    """Rows after this page."""
    next: Place | None
    """Where the next page begins; None: this was the last."""


class MemoryMerge:
    """Merges what the caller may change: own memories, or all visible ones for who manages the organisation."""

    def __init__(self, *, db: Database) -> None:
        self._db = db

    async def run(
        self,
        principal: Principal,
        *,
        threshold: float,
        dry_run: bool,
        limit: int,
        after: Place | None,
        request_id: str,
    ) -> Pass:
        """One page of at most `limit` rows."""
        owner_id = None if manages(principal) else principal.user_id
        async with self._db.tenant(principal) as conn:
            page, rows = await memory_lists.by_age(
                conn, org_id=principal.org_id, owner_id=owner_id, after=after, limit=limit
            )
            twins = await memory_lists.twins(
                conn,
                org_id=principal.org_id,
                owner_id=owner_id,
                ids=[place.id for place in page],
                threshold=threshold,
            )
        groups = grouped([place.id for place in page], twins)
        if not dry_run:
            groups = [group for group in groups if await self._merge(principal, group, request_id=request_id)]
        more = rows > len(page)
        return Pass(
            groups=groups, checked=len(page), remaining=rows - len(page), next=page[-1] if more and page else None
        )

    async def _merge(self, principal: Principal, group: Group, *, request_id: str) -> bool:
        """Whether the group was still as it was seen, and so could be merged."""
        async with self._db.tenant(principal) as conn:
            ids = [group.kept, *(twin.other for twin in group.others)]
            rows = await memories.find(conn, org_id=principal.org_id, ids=ids, lock=True)
            seen = {group.kept: group.others[0].seen[0]} | {twin.other: twin.seen[1] for twin in group.others}
            if {row.id: row.updated_at for row in rows} != seen:
                return False
            await self._keep(conn, principal, rows)
            await audit(
                conn,
                principal,
                request_id,
                "memory.merged",
                f"memory:{group.kept}",
                {"merged": [str(i) for i in ids[1:]]},
            )
        return True

    async def _keep(self, conn: Connection, principal: Principal, rows: Sequence[Memory]) -> None:
        kept, others = rows[0], rows[1:]
        item = item_of(kept, united(kept, others))
        # The graph is locked by what is deleted, and before the corpus.
        await memories.delete(conn, org_id=principal.org_id, ids=[row.id for row in others])
        await memories.rewrite(conn, org_id=principal.org_id, memory_id=kept.id, item=item)


def grouped(ids: Sequence[UUID], twins: Sequence[Twin]) -> list[Group]:
    """Each row in one group at most: the older one takes first, and what it took takes nothing itself."""
    of: dict[UUID, list[Twin]] = {}
    for twin in twins:
        of.setdefault(twin.kept, []).append(twin)
    taken: set[UUID] = set()
    groups: list[Group] = []
    for memory_id in ids:
        others = [twin for twin in of.get(memory_id, []) if twin.other not in taken]
        if memory_id in taken or not others:
            continue
        taken |= {twin.other for twin in others}
        groups.append(Group(kept=memory_id, others=others))
    return groups


def united(kept: Memory, others: Sequence[Memory]) -> dict[str, Any]:
    """What the kept memory takes over: all labels, metadata it has no value for, the most importance, the longest
    life, and the others' ids."""
    every = [kept, *others]
    metadata: dict[str, Any] = {}
    for memory in reversed(every):
        metadata |= memory.metadata
    before = [i for memory in every for i in _merged_before(memory)]
    metadata[MERGED] = list(dict.fromkeys([*before, *(str(memory.id) for memory in others)]))
    ends = [memory.expires_at for memory in every]
    known = [end for end in ends if end is not None]
    return {
        "title": next((memory.title for memory in every if memory.title), None),
        "source": next((memory.source for memory in every if memory.source), None),
        "tags": list(dict.fromkeys(tag for memory in every for tag in memory.tags)),
        "metadata": metadata,
        "importance": max(memory.importance for memory in every),
        "expires_at": max(known) if len(known) == len(ends) else None,
    }


def _merged_before(memory: Memory) -> list[str]:
    """Ids earlier merges left; callers may write anything to metadata."""
    ids = memory.metadata.get(MERGED)
    return [str(i) for i in ids] if isinstance(ids, list) else []
