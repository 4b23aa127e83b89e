"""Chats in the database: seen by their user, read by those they are shared with, a tree that stays whole."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from neuroedge.contract.errors import NotFound
from neuroedge.contract.ports import MemoryFilter, NewMemory, Visibility
from neuroedge.contract.principal import Principal
from neuroedge.stores import chat_attachments, chat_messages, chat_sessions, knowledge, memories, memory_lists
from neuroedge.stores.chat_messages import Body, Feedback, Message, NewMessage
from neuroedge.stores.chat_sessions import Said, Session, SessionSettings
from neuroedge.stores.ids import new_id
from neuroedge.stores.memory_filters import CHAT_MESSAGE
from neuroedge.stores.postgres import Connection, Database
from neuroedge.stores.tenant_memories import TenantMemories
from tests.everything_stored import unit_vector
from tests.stores.conftest import colleague, new_principal

pytestmark = pytest.mark.anyio


async def _session(db: Database, caller: Principal, visibility: Visibility = "private", **said: Any) -> Session:
    async with db.tenant(caller) as conn:
        return await chat_sessions.insert(
            conn,
            org_id=caller.org_id,
            user_id=caller.user_id,
            session_id=new_id(),
            said=Said(**said),
            visibility=visibility,
        )


async def _message(
    db: Database, caller: Principal, session_id: UUID, parent_id: UUID | None = None, **change: Any
) -> UUID:
    values: dict[str, Any] = {"role": "user", "state": "done", "body": Body(content="words")}
    item = NewMessage(**{"id": new_id(), "session_id": session_id, "parent_id": parent_id, **values, **change})
    async with db.tenant(caller) as conn:
        await chat_messages.insert(conn, org_id=caller.org_id, user_id=caller.user_id, items=[item])
    return item.id


async def _find(db: Database, caller: Principal, message_id: UUID) -> Message | None:
    async with db.tenant(caller) as conn:
        return await chat_messages.find(conn, message_id)


async def _counts(conn: Connection) -> dict[str, int]:
    counts = {}
    for table in ("chat_sessions", "chat_messages", "chat_attachments", "memories"):
        row = await (await conn.execute(f"SELECT count(*) AS n FROM {table}")).fetchone()
        counts[table] = row["n"] if row else -1
    return counts


async def test_what_is_said_is_kept_sealed(db: Database) -> None:
    """It comes back whole, and stands in no column of the database."""
    caller = await new_principal(db)
    settings = SessionSettings(local_only=True, system_prompt="be brief, zebra")
    session = await _session(db, caller, title="the zebra plan", model="local/zebra", settings=settings)
    body = Body(
        content="zebra",
        attachments=[new_id()],
        citations=[{"quote": "zebra", "page": 3}],
        artifacts=[new_id()],
        tool_calls=[{"name": "zebra"}],
        usage=chat_messages.Usage(prompt_tokens=3, completion_tokens=4, cost="0.0001"),
        trace=[{"step": "zebra"}],
        model="local/zebra",
        error=chat_messages.Failure(code="c", detail="zebra"),
    )
    message_id = await _message(db, caller, session.id, role="assistant", body=body)
    feedback = Feedback(rating="down", reason="wrong", comment="no zebra")
    async with db.tenant(caller) as conn:
        await chat_messages.set_feedback(conn, message_id, feedback)
        found = await chat_messages.find(conn, message_id)
        assert await chat_sessions.find(conn, session.id) == session
        for table in ("chat_sessions", "chat_messages"):
            rows = await (await conn.execute(f"SELECT to_jsonb(t)::text AS row, t.sealed FROM {table} t")).fetchall()
            assert len(rows) == 1
            assert "zebra" not in rows[0]["row"]
            assert b"zebra" not in bytes(rows[0]["sealed"])
    assert (session.title, session.model, session.settings) == ("the zebra plan", "local/zebra", settings)
    assert found is not None
    assert {f.name: getattr(found, f.name) for f in dataclasses.fields(Body)} == {
        f.name: getattr(body, f.name) for f in dataclasses.fields(Body)
    }
    assert found.feedback == feedback


async def test_a_private_session_is_its_users_alone(db: Database) -> None:
    """A colleague's SQL sees, changes and deletes nothing of it, and adds nothing to it."""
    owner = await new_principal(db)
    other = colleague(owner)
    session = await _session(db, owner)
    message_id = await _message(db, owner, session.id)
    async with db.tenant(other) as conn:
        assert set((await _counts(conn)).values()) == {0}
        assert await chat_sessions.find(conn, session.id) is None
        assert await chat_sessions.lock(conn, session.id) is None
        assert (await conn.execute("UPDATE chat_messages SET state = 'failed'")).rowcount == 0
        assert (await conn.execute("DELETE FROM chat_sessions")).rowcount == 0
        assert not await chat_sessions.delete(conn, session.id)
    for parent_id in (None, message_id):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await _message(db, other, session.id, parent_id)
    assert await _find(db, owner, message_id) is not None


async def test_a_shared_session_is_read_and_not_written_by_others(db: Database) -> None:
    """Its messages too; and no longer when it is private again. Another organisation never sees it."""
    owner, stranger = await new_principal(db), await new_principal(db)
    other = colleague(owner)
    session = await _session(db, owner, "organisation", title="ours")
    message_id = await _message(db, owner, session.id)
    async with db.tenant(other) as conn:
        found = await chat_sessions.recent(
            conn, user_id=other.user_id, shared=True, archived=False, limit=9, before=None
        )
        assert [one.title for one in found] == ["ours"]
        assert await chat_messages.find(conn, message_id) is not None
        assert await chat_sessions.lock(conn, session.id) is None
        for change in ("UPDATE chat_sessions SET archived = true", "DELETE FROM chat_messages"):
            assert (await conn.execute(change)).rowcount == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await _message(db, other, session.id, message_id)
    assert await _find(db, stranger, message_id) is None
    async with db.tenant(owner) as conn:
        await chat_sessions.update(conn, session.id, said=Said(), archived=False, visibility="private", leaf_id=None)
    assert await _find(db, other, message_id) is None


async def test_a_division_reads_along(db: Database) -> None:
    """Members of the owner's division do, others of the organisation do not; without a division there is none."""
    owner = await new_principal(db)
    with pytest.raises(psycopg.errors.CheckViolation):
        await _session(db, owner, "division")
    division_id = new_id()
    async with db.tenant(owner) as conn:
        await conn.execute("INSERT INTO divisions (org_id, id, name) VALUES (%s, %s, 'd')", [owner.org_id, division_id])
        await conn.execute("UPDATE memberships SET division_id = %s", [division_id])
    session = await _session(db, owner, "division")
    async with db.tenant(colleague(owner)) as conn:
        assert await chat_sessions.find(conn, session.id) is None
    async with db.tenant(owner) as conn:
        assert await chat_sessions.find(conn, session.id) == session


async def test_paths_follow_one_branch(db: Database) -> None:
    """From any leaf up to its root, at most so many; another session's message is no leaf of this one."""
    caller = await new_principal(db)
    session, elsewhere = await _session(db, caller), await _session(db, caller)
    first = await _message(db, caller, session.id)
    answers = [await _message(db, caller, session.id, first, role="assistant") for _ in range(2)]
    last = await _message(db, caller, session.id, answers[0])
    async with db.tenant(caller) as conn:

        async def path(leaf_id: UUID, limit: int | None = None) -> list[UUID]:
            found = await chat_messages.path(conn, session_id=session.id, leaf_id=leaf_id, limit=limit)
            return [message.id for message in found]

        assert await path(last) == [first, answers[0], last]
        assert await path(answers[1]) == [first, answers[1]]
        assert await path(last, 2) == [answers[0], last]
        assert await chat_messages.path(conn, session_id=elsewhere.id, leaf_id=last) == []
        assert await chat_messages.siblings(conn, session_id=session.id, parent_ids=[None, first]) == {
            None: [first],
            first: answers,
        }
        assert await chat_messages.newest_below(conn, session_id=session.id, message_id=first) == answers[1]
        assert await chat_messages.newest_below(conn, session_id=session.id, message_id=answers[0]) == last
    with pytest.raises(NotFound):
        await _message(db, caller, elsewhere.id, last)


async def test_only_the_first_end_of_a_message_counts(db: Database) -> None:
    """A running message ends once; afterwards nothing changes it."""
    caller = await new_principal(db)
    session = await _session(db, caller)
    message_id = await _message(db, caller, session.id, role="assistant", state="running", body=Body())
    async with db.tenant(caller) as conn:
        assert await chat_messages.finish(conn, message_id, body=Body(content="yes"), state="done")
        assert not await chat_messages.finish(conn, message_id, body=Body(content="no"), state="failed")
    found = await _find(db, caller, message_id)
    assert found is not None
    assert (found.content, found.state) == ("yes", "done")


async def test_deleting_takes_all_below_and_what_it_was_found_by(db: Database) -> None:
    """A message with its answers; a session with everything."""
    caller = await new_principal(db)
    session = await _session(db, caller)
    ids: list[UUID] = []
    for _ in range(4):
        ids.append(await _message(db, caller, session.id, ids[-1] if ids else None))
    async with db.tenant(caller) as conn:
        await memories.insert(
            conn, org_id=caller.org_id, user_id=caller.user_id, items=[_memory("words") for _ in ids], ids=ids
        )
        await chat_attachments.insert(conn, org_id=caller.org_id, user_id=caller.user_id, item=_attachment(session.id))
        assert set(await chat_messages.delete(conn, session_id=session.id, message_id=ids[2])) == set(ids[2:])
        assert await _counts(conn) == {
            "chat_sessions": 1,
            "chat_messages": 2,
            "chat_attachments": 1,
            "memories": 2,
        }
        assert await chat_sessions.delete(conn, session.id)
        assert set((await _counts(conn)).values()) == {0}


def _memory(content: str, memory_type: str = CHAT_MESSAGE) -> NewMemory:
    return NewMemory(
        content=content,
        embedding=unit_vector(),
        embedding_model="m",
        memory_type=memory_type,
        metadata={"about": content},
        visibility="private",
    )


def _attachment(session_id: UUID) -> chat_attachments.NewAttachment:
    return chat_attachments.NewAttachment(
        id=new_id(),
        session_id=session_id,
        filename="a.png",
        unread_pages=[],
        kind="image",
        media_type="image/png",
        bytes=3,
        pages=None,
    )


async def test_messages_are_found_only_where_they_are_asked_for(db: Database) -> None:
    """Searches and lists that name no type, merging and reading for knowledge pass them over."""
    caller = await new_principal(db)
    port = TenantMemories(db, caller)
    message_id, note_id = await port.add([_memory("red planet"), _memory("red planet", "note")])
    for asked, expected in ((None, note_id), (CHAT_MESSAGE, message_id)):
        for metadata in (None, {"about": "red planet"}):
            where = MemoryFilter(memory_type=asked, metadata=metadata)
            found = await port.search(query="red planet", vector=unit_vector(), model="m", limit=9, where=where)
            assert [hit.id for hit in found.dense] == [expected]
            assert [hit.id for hit in found.keyword] == [expected]
    async with db.tenant(caller) as conn:
        org_id = caller.org_id
        listed = await memories.recent(conn, org_id=org_id, limit=9, before=None, where=MemoryFilter())
        assert [memory.id for memory in listed] == [note_id]
        assert await knowledge.unread(conn, org_id=org_id, extractor="e", after=None, limit=9) == [note_id]
        assert (await knowledge.standing(conn, org_id=org_id, extractor="e")).memories == 1
        rows, total = await memory_lists.by_age(conn, org_id=org_id, owner_id=None, after=None, limit=9)
        assert ([row.id for row in rows], total) == ([note_id], 1)


async def test_the_sweep_learns_which_organisations_have_something_unfinished(db: Database) -> None:
    """Answers and uploads that began long ago; not those begun or taken up a moment ago, and nothing of what they
    are."""
    answering, uploading, busy = [await new_principal(db) for _ in range(3)]
    for caller in (answering, busy):
        session = await _session(db, caller)
        await _message(db, caller, session.id, state="running", body=Body())
    session = await _session(db, uploading)
    async with db.tenant(uploading) as conn:
        await chat_attachments.insert(
            conn, org_id=uploading.org_id, user_id=uploading.user_id, item=_attachment(session.id)
        )
        await conn.execute("UPDATE chat_attachments SET created_at = now() - interval '2 hours'")
    async with db.tenant(busy) as conn:
        await conn.execute("UPDATE chat_messages SET created_at = now() - interval '2 hours'")
    async with db.tenant(answering) as conn:
        await conn.execute("UPDATE chat_messages SET updated_at = now() - interval '2 hours'")
    before = datetime.now(UTC) - timedelta(hours=1)
    async with db.unbound() as conn:
        found = set(await chat_sessions.organisations_with_unfinished(conn, before))
    assert {answering.org_id, uploading.org_id} <= found
    assert busy.org_id not in found


async def test_lists_use_an_index(db: Database) -> None:
    """No list of sessions sorts all of an organisation's."""
    caller = await new_principal(db)
    async with db.tenant(caller) as conn:
        await conn.execute("SET LOCAL enable_seqscan = off")
        rows = await (
            await conn.execute(
                "EXPLAIN SELECT id FROM chat_sessions WHERE user_id = %s AND NOT archived"
                " ORDER BY updated_at DESC, id DESC LIMIT 50",
                [caller.user_id],
            )
        ).fetchall()
    plan = "\n".join(row["QUERY PLAN"] for row in rows)
    assert "chat_sessions_by_user" in plan
    assert "Sort" not in plan
