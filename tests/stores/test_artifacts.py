"""Rows of artifacts and versions: who sees them, what is sealed, what stays when a conversation or a memory goes."""

import dataclasses
from typing import Any
from uuid import UUID

import psycopg
import pytest

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.principal import Principal
from neuroedge.kit.artifact_checks import Check
from neuroedge.stores import artifacts, chat_sessions, memories
from neuroedge.stores.artifacts import Named, New, Written
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from tests.everything_stored import unit_vector
from tests.stores.conftest import Migrated, new_principal

pytestmark = pytest.mark.anyio
NAMED = Named(title="secret title", tags=["t"], format="markdown", schema={"type": "object"}, slides=None)
CHECKS = [Check("parses", True, "fine"), Check("schema", None, "unchecked")]


async def _stored(db: Database, caller: Principal, *contents: str, **more: Any) -> UUID:
    new = New(
        **{
            "id": new_id(),
            "user_id": caller.user_id,
            "visibility": "private",
            "type": "document",
            "named": NAMED,
            **more,
        }
    )
    async with db.tenant(caller) as conn:
        await artifacts.insert(conn, org_id=caller.org_id, new=new)
        for content in contents:
            await artifacts.add_version(
                conn,
                org_id=caller.org_id,
                artifact=new.id,
                version_id=new_id(),
                author_id=caller.user_id,
                origin="given",
                written=Written(content=content, sha256="0", checks=CHECKS, models=["m"], note="secret note"),
                valid=True,
                blob=None,
            )
    return new.id


async def test_what_is_stored_comes_back_and_is_sealed(db: Database, migrated: Migrated) -> None:
    """Names, contents, checks and orders; no word of them stands in a row."""
    caller = await new_principal(db)
    artifact_id = await _stored(db, caller, "secret one", "secret two", request={"do": "secret order"})
    async with db.tenant(caller) as conn:
        artifact = await artifacts.find(conn, artifact_id)
        first = await artifacts.version(conn, artifact_id, 1)
        found = await artifacts.versions(conn, artifact_id, limit=9)
        none = await artifacts.version(conn, artifact_id, 3)
        await artifacts.set_request(conn, artifact_id, {"do": "secret order"})
        order = await artifacts.request(conn, artifact_id)
    assert artifact is not None
    assert first is not None
    assert (artifact.named, artifact.version, artifact.state) == (NAMED, 2, "ready")
    assert (first.content, first.checks, first.models, first.bytes) == ("secret one", CHECKS, ["m"], 10)
    assert [version.content for version in found] == ["secret two", "secret one"]
    assert none is None
    assert order == {"do": "secret order"}
    with psycopg.connect(migrated.owner_url) as conn:
        rows = conn.execute("SELECT to_jsonb(a)::text FROM artifacts a WHERE id = %s", [artifact_id]).fetchall()
        rows += conn.execute(
            "SELECT to_jsonb(v)::text FROM artifact_versions v WHERE artifact_id = %s", [artifact_id]
        ).fetchall()
    assert len(rows) == 3
    assert not any("secret" in row[0] for row in rows)


async def test_a_version_cannot_be_changed(db: Database) -> None:
    """The application's role may not write another content, number or origin into one."""
    caller = await new_principal(db)
    artifact_id = await _stored(db, caller, "one")
    for column in ("version", "origin", "bytes", "valid", "blob", "created_at", "artifact_id"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with db.tenant(caller) as conn:
                await conn.execute(
                    f"UPDATE artifact_versions SET {column} = {column} WHERE artifact_id = %s", [artifact_id]
                )


async def test_who_sees_an_artifact_sees_its_versions(db: Database) -> None:
    """Its owner; of a shared one the organisation; another tenant and, of a private one, a colleague nothing."""
    owner, stranger = await new_principal(db), await new_principal(db)
    colleague = dataclasses.replace(owner, user_id=new_id())
    private = await _stored(db, owner, "one")
    shared = await _stored(db, owner, "one", visibility="organisation")
    for caller, seen in ((owner, {private, shared}), (colleague, {shared}), (stranger, set())):
        async with db.tenant(caller) as conn:
            assert {artifact.id for artifact in await artifacts.recent(conn, limit=9)} == seen
            cursor = await conn.execute("SELECT artifact_id FROM artifact_versions")
            assert {row["artifact_id"] for row in await cursor.fetchall()} == seen
    with pytest.raises(InvalidInput, match="division"):
        await _stored(db, owner, "one", visibility="division")


async def test_lists_are_filtered_and_paged(db: Database) -> None:
    """By type, state and conversation; newest first."""
    caller = await new_principal(db)
    ids = [await _stored(db, caller, "x", type=kind) for kind in ("document", "code", "code")]
    waiting = await _stored(db, caller, request={"do": "it"})
    async with db.tenant(caller) as conn:
        page = await artifacts.recent(conn, limit=2)
        rest = await artifacts.recent(conn, limit=9, before=page[-1].id)
        code = await artifacts.recent(conn, limit=9, type_="code")
        generating = await artifacts.recent(conn, limit=9, state="generating")
        none = await artifacts.recent(conn, limit=9, session_id=new_id())
    assert [artifact.id for artifact in [*page, *rest]] == [waiting, *reversed(ids)]
    assert {artifact.id for artifact in code} == set(ids[1:])
    assert [artifact.id for artifact in generating] == [waiting]
    assert none == []


async def test_a_deleted_conversation_or_memory_leaves_the_artifact(db: Database) -> None:
    """Only the link to it goes."""
    caller = await new_principal(db)
    async with db.tenant(caller) as conn:
        session = await chat_sessions.insert(
            conn,
            org_id=caller.org_id,
            user_id=caller.user_id,
            session_id=new_id(),
            said=chat_sessions.Said(title="chat"),
            visibility="private",
        )
        item = memories.NewMemory(content="x", embedding=unit_vector(), embedding_model="m", visibility="private")
        (memory_id,) = await memories.insert(conn, org_id=caller.org_id, user_id=caller.user_id, items=[item])
    artifact_id = await _stored(db, caller, "one", session_id=session.id)
    async with db.tenant(caller) as conn:
        await artifacts.set_memory(conn, artifact_id, memory_id)
        assert await artifacts.sees_chat(conn, session_id=session.id, message_id=None)
        assert not await artifacts.sees_chat(conn, session_id=session.id, message_id=new_id())
        assert set(await artifacts.of_memories(conn, [memory_id])) == {memory_id}
        await memories.delete(conn, org_id=caller.org_id, ids=[memory_id])
        await conn.execute("DELETE FROM chat_sessions WHERE id = %s", [session.id])
        after = await artifacts.find(conn, artifact_id)
    assert after is not None
    assert (after.session_id, after.memory_id, after.version) == (None, None, 1)
    async with db.tenant(await new_principal(db)) as conn:
        assert not await artifacts.sees_chat(conn, session_id=session.id, message_id=None)


async def test_what_cannot_be_generated_keeps_what_it_has(db: Database) -> None:
    """Without a version it has failed, with one it is as ready as before; the reason stands in both."""
    caller = await new_principal(db)
    for contents, state in (([], "failed"), (["one"], "ready")):
        artifact_id = await _stored(db, caller, *contents, request={"do": "it"})
        async with db.tenant(caller) as conn:
            await artifacts.set_request(conn, artifact_id, {"do": "it"})
            await artifacts.start_attempt(conn, artifact_id)
            assert await artifacts.count_error(conn, artifact_id) == 1
            await artifacts.fail(conn, artifact_id, code="unavailable", detail="no model", hint=None)
            after = await artifacts.find(conn, artifact_id)
            assert await artifacts.request(conn, artifact_id) is None
        assert after is not None
        assert (after.state, after.error_code, after.attempts) == (state, "unavailable", 1)
