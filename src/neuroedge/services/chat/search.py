"""Search over the caller's own messages, by meaning and by words.

A finished message is remembered under its own id, as a private memory of the type chat_message; so it is sealed,
found, embedded anew and erased as memories are. Other searches do not see the type unless they ask for it
(stores/memory_filters.py). Found are the first FOUND_BY characters, by meaning what the embedding model takes of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from neuroedge.contract.ports import NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.services.memory import Embedded, MemoryService
from neuroedge.services.run_engine import EngineRunner
from neuroedge.stores import chat_messages, chat_sessions, memories
from neuroedge.stores.chat_messages import Message
from neuroedge.stores.chat_sessions import Session
from neuroedge.stores.memory_filters import CHAT_MESSAGE
from neuroedge.stores.postgres import Connection, Database

MAX_HITS: Final = 50
FOUND_BY: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMessage:
    """A message that a search found."""

    message: Message
    session: Session
    score: float
    """Orders the hits of one query."""
    spans: list[tuple[int, int]]
    """[start, end) of the query's words in the content, in characters."""


class MessageSearch:
    """Makes messages findable, and finds them."""

    def __init__(self, *, db: Database, runner: EngineRunner) -> None:
        self._db = db
        self._runner = runner
        self._memory = MemoryService(db=db, runner=runner)

    async def remember(self, principal: Principal, message_ids: Sequence[UUID], *, request_id: str) -> int:
        """Make finished messages findable; how many are from now on. Those that are already, or gone, are left out."""
        async with self._db.tenant(principal) as conn:
            messages = await chat_messages.find_all(conn, message_ids)
            known = {one.id for one in await memories.find(conn, org_id=principal.org_id, ids=message_ids)}
        waiting = [one for i, one in messages.items() if i not in known and one.state == "done" and one.content.strip()]
        if not waiting:
            return 0
        texts = [message.content[:FOUND_BY] for message in waiting]
        embedded = await self._memory.embed(texts, principal=principal, request_id=request_id)
        items = [_memory(message, text, found) for message, text, found in zip(waiting, texts, embedded, strict=True)]
        async with self._db.tenant(principal) as conn:
            return await _store(conn, principal, dict(zip((one.id for one in waiting), items, strict=True)), messages)

    async def find(
        self, principal: Principal, query: str, *, limit: int, session_id: UUID | None, request_id: str
    ) -> list[FoundMessage]:
        """The caller's own messages, of one session or of all, best first. Raises what running an engine raises."""
        asked: dict[str, Any] = {"query": query, "top_k": limit, "memory_type": CHAT_MESSAGE}
        if session_id is not None:
            asked["metadata"] = {"session_id": str(session_id)}
        answer: Any = await self._runner.run("search", asked, principal=principal, request_id=request_id)
        async with self._db.tenant(principal) as conn:
            found = await chat_messages.find_all(conn, [hit.id for hit in answer.hits])
            sessions = await chat_sessions.named(conn, [message.session_id for message in found.values()])
        return [
            FoundMessage(
                message=found[hit.id],
                session=sessions[found[hit.id].session_id],
                score=hit.score,
                spans=list(hit.highlight.spans) if hit.highlight else [],
            )
            for hit in answer.hits
            if hit.id in found and found[hit.id].user_id == principal.user_id
        ]


async def _store(
    conn: Connection, principal: Principal, items: dict[UUID, NewMemory], messages: dict[UUID, Message]
) -> int:
    """Store what is still wanted. Whoever deletes a message holds its session: either it is gone now, or what it is
    found by goes with it."""
    for session_id in sorted({messages[i].session_id for i in items}):
        await chat_sessions.lock(conn, session_id)
    there = await chat_messages.find_all(conn, list(items))
    known = {one.id for one in await memories.find(conn, org_id=principal.org_id, ids=list(items))}
    wanted = [i for i in items if i in there and i not in known]
    await memories.insert(
        conn, org_id=principal.org_id, user_id=principal.user_id, items=[items[i] for i in wanted], ids=wanted
    )
    return len(wanted)


def _memory(message: Message, text: str, embedded: Embedded) -> NewMemory:
    return NewMemory(
        content=text,
        embedding=embedded.vector,
        embedding_model=embedded.model,
        keywords=embedded.keywords,
        memory_type=CHAT_MESSAGE,
        metadata={"session_id": str(message.session_id), "role": message.role},
        visibility="private",
        occurred_at=message.created_at,
    )
