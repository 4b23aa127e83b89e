"""Checkpoints: what LangGraph saves comes back, sealed, to its own caller only, and goes with its session."""

from typing import Any
from uuid import UUID

import pytest

from neuroedge.contract.errors import NotFound
from neuroedge.contract.principal import Principal
from neuroedge.services.chat.checkpoints import TenantSaver
from neuroedge.stores import chat_sessions, checkpoints, turns
from neuroedge.stores.chat_sessions import Said
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio
SECRET = "the launch code is forty-two"


async def begun(db: Database, caller: Principal) -> tuple[UUID, UUID]:
    """A session with a turn."""
    session_id, turn_id = new_id(), new_id()
    async with db.tenant(caller) as conn:
        await chat_sessions.insert(
            conn,
            org_id=caller.org_id,
            user_id=caller.user_id,
            session_id=session_id,
            said=Said(title="t"),
            visibility="private",
        )
        await turns.insert(
            conn,
            org_id=caller.org_id,
            user_id=caller.user_id,
            turn_id=turn_id,
            session_id=session_id,
            worker=new_id(),
            idempotency_key=None,
            fingerprint=b"f",
        )
    return session_id, turn_id


def config(turn_id: UUID, checkpoint_id: str | None = None) -> Any:
    """Where a checkpoint is."""
    place = {"thread_id": str(turn_id), "checkpoint_ns": ""}
    return {"configurable": {**place, "checkpoint_id": checkpoint_id} if checkpoint_id else place}


def checkpoint(checkpoint_id: str, **values: Any) -> Any:
    """A state as LangGraph gives it."""
    return {
        "v": 4,
        "id": checkpoint_id,
        "ts": "2030-01-01T00:00:00+00:00",
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, f"{1:032}"),
        "versions_seen": {},
        "updated_channels": None,
    }


async def test_a_state_comes_back_with_what_was_written_after_it(db: Database) -> None:
    """Zero bytes and all."""
    caller = await new_principal(db)
    _, turn_id = await begun(db, caller)
    saver = TenantSaver(db, caller)
    first = await saver.aput(config(turn_id), checkpoint("a", text=f"{SECRET}\0", n=0), {"step": 1}, {})
    second = await saver.aput(first, checkpoint("b", text="next"), {"step": 2}, {})
    await saver.aput_writes(second, [("text", "more"), ("n", {"deep": [0, 1]})], "task")
    await saver.aput_writes(second, [("text", "not twice")], "task")
    last = await saver.aget_tuple(config(turn_id))
    assert last is not None
    assert last.checkpoint["channel_values"] == {"text": "next"}
    assert last.pending_writes == [("task", "text", "more"), ("task", "n", {"deep": [0, 1]})]
    assert last.parent_config == config(turn_id, "a")
    assert (await saver.aget_tuple(config(turn_id, "a"))).checkpoint["channel_values"]["text"] == f"{SECRET}\0"  # type: ignore[union-attr]
    assert [found.checkpoint["id"] async for found in saver.alist(config(turn_id))] == ["b", "a"]
    assert [f.checkpoint["id"] async for f in saver.alist(config(turn_id), filter={"step": 1})] == ["a"]
    assert [f.checkpoint["id"] async for f in saver.alist(config(turn_id), before=config(turn_id, "b"))] == ["a"]


async def test_pruning_keeps_the_last_state(db: Database) -> None:
    """Without what was written."""
    caller = await new_principal(db)
    _, turn_id = await begun(db, caller)
    saver = TenantSaver(db, caller)
    for name in "abc":
        place = await saver.aput(config(turn_id), checkpoint(name), {}, {})
    await saver.aput_writes(place, [("x", 1)], "task")
    async with db.tenant(caller) as conn:
        await checkpoints.prune(conn, turn_id)
    left = [found async for found in saver.alist(config(turn_id))]
    assert [found.checkpoint["id"] for found in left] == ["c"]
    assert left[0].pending_writes == []
    await saver.adelete_thread(str(turn_id))
    assert await saver.aget_tuple(config(turn_id)) is None


async def test_others_see_nothing_and_the_database_no_words(db: Database) -> None:
    """Neither another organisation nor another member."""
    caller, stranger = await new_principal(db), await new_principal(db)
    _, turn_id = await begun(db, caller)
    await TenantSaver(db, caller).aput(config(turn_id), checkpoint("a", text=SECRET), {}, {})
    colleague = Principal(
        user_id=new_id(), org_id=caller.org_id, username="c", role="owner", permissions=caller.permissions
    )
    for other in (stranger, colleague):
        assert await TenantSaver(db, other).aget_tuple(config(turn_id)) is None
    async with db.tenant(caller) as conn:
        row = await (await conn.execute("SELECT sealed FROM checkpoints WHERE thread_id = %s", [turn_id])).fetchone()
    assert row is not None
    assert b"launch" not in bytes(row["sealed"])


async def test_nothing_is_saved_of_a_deleted_session(db: Database) -> None:
    """Its states go with it, and later ones are refused."""
    caller = await new_principal(db)
    session_id, turn_id = await begun(db, caller)
    saver = TenantSaver(db, caller)
    place = await saver.aput(config(turn_id), checkpoint("a"), {}, {})
    async with db.tenant(caller) as conn:
        await chat_sessions.delete(conn, session_id)
    assert await saver.aget_tuple(config(turn_id)) is None
    with pytest.raises(NotFound):
        await saver.aput(place, checkpoint("b"), {}, {})
    with pytest.raises(NotFound):
        await saver.aput_writes(place, [("x", 1)], "task")


async def test_a_turn_is_taken_over_only_when_its_worker_is_silent(db: Database) -> None:
    """And the one before hears that it is not its own any more."""
    caller = await new_principal(db)
    _, turn_id = await begun(db, caller)
    mine, other = new_id(), new_id()
    async with db.tenant(caller) as conn:
        await conn.execute("UPDATE turns SET worker = %s WHERE id = %s", [mine, turn_id])
        assert not await turns.take_over(conn, turn_id, worker=other)
        assert await turns.seen(conn, turn_id, worker=mine) == "mine"
        await turns.cancel(conn, turn_id)
        assert await turns.seen(conn, turn_id, worker=mine) == "cancelled"
        await conn.execute("UPDATE turns SET seen_at = now() - interval '1 minute' WHERE id = %s", [turn_id])
        found = await turns.find(conn, turn_id)
        assert found is not None
        assert found.abandoned
        assert await turns.take_over(conn, turn_id, worker=other)
        assert await turns.seen(conn, turn_id, worker=mine) == "gone"
        assert await turns.finish(conn, turn_id, worker=other)
        assert not await turns.take_over(conn, turn_id, worker=mine)


async def test_a_key_begins_one_turn_of_its_user(db: Database) -> None:
    """The second one stores nothing; another user's key is another one."""
    caller = await new_principal(db)
    session_id, _ = await begun(db, caller)

    async def insert() -> bool:
        return await turns.insert(
            conn,
            org_id=caller.org_id,
            user_id=caller.user_id,
            turn_id=new_id(),
            session_id=session_id,
            worker=new_id(),
            idempotency_key="k",
            fingerprint=b"f",
        )

    async with db.tenant(caller) as conn:
        assert await insert()
        assert not await insert()
        assert (await turns.of_key(conn, caller.user_id, "k")) is not None
        assert (await turns.of_key(conn, new_id(), "k")) is None
