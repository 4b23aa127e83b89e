"""Memories over a real database with an encoder under the test's control: who may see and change them, what an
outage leaves, what expires, what a merge may touch."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import anyio
import numpy as np
import psycopg
import pytest

from neuroedge.contract.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from neuroedge.contract.ports import Memory, MemoryFilter
from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal
from neuroedge.services.divisions import Divisions
from neuroedge.services.memory import MemoryService
from neuroedge.services.memory_drafts import MemoryChanges, MemoryDraft
from neuroedge.services.memory_merge import MemoryMerge, Pass
from neuroedge.services.memory_transfer import BATCH, LineResult, MemoryTransfer, id_of
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from tests.stores.conftest import Migrated, new_principal

pytestmark = pytest.mark.anyio
EVERYTHING = MemoryFilter()


class Encoder:
    """The runner's part: unit vectors whose direction the text's first word gives; breaks when told to."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.breaks_after: int | None = None

    async def run(self, name: str, payload: Any, *, principal: Principal, request_id: str) -> Any:
        """Embed."""
        assert name == "embedding"
        texts: Sequence[str] = payload["texts"]
        if self.breaks_after is not None and len(self.texts) >= self.breaks_after:
            raise Unavailable("no model now")
        self.texts += texts
        vectors = np.zeros((len(texts), 384), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            row[sum(text.split()[0].encode()) % 384] = 1
        return SimpleNamespace(vectors=vectors.tolist(), model="first-word")


class KnowledgeTold:
    """Counts how often it was told that something changed."""

    def __init__(self) -> None:
        self.times = 0

    async def changed(self, principal: Principal, *, request_id: str) -> None:
        """Told."""
        self.times += 1


class Bench:
    """The services over the test's database."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.db = db
        self.folder = folder
        self.encoder = Encoder()
        runner: Any = self.encoder
        self.knowledge = KnowledgeTold()
        self.memory = MemoryService(db=db, runner=runner, knowledge=cast(Any, self.knowledge))
        self.merging = MemoryMerge(db=db)
        self.transfer = MemoryTransfer(db=db, memory=self.memory)
        self.divisions = Divisions(db=db)

    async def remember(self, caller: Principal, content: str, **more: Any) -> Memory:
        """Keep a text."""
        return await self.memory.create(caller, MemoryDraft(content=content, **more), request_id="r")

    async def change(self, caller: Principal, memory: Memory, **changes: Any) -> Memory:
        """Change one."""
        return await self.memory.update(caller, memory.id, MemoryChanges(**changes), request_id="r")

    async def contents(self, caller: Principal) -> set[str]:
        """All the caller sees."""
        return {m.content for m in await self.memory.page(caller, limit=200, before=None, where=EVERYTHING)}

    async def merge(self, caller: Principal, *, threshold: float = 1.0) -> Pass:
        """Merge everything."""
        return await self.merging.run(
            caller, threshold=threshold, dry_run=False, limit=1000, after=None, request_id="r"
        )

    async def bring(
        self, caller: Principal, lines: Sequence[dict[str, Any]], told: list[LineResult] | None = None
    ) -> list[LineResult]:
        """Import; what was told until an error is in `told`."""
        path = self.folder / new_id().hex
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        told = [] if told is None else told
        async for result in self.transfer.import_lines(caller, path, request_id="r"):
            told.append(result)
        return told


@pytest.fixture
async def bench(db: Database, tmp_path: Path) -> Bench:
    """The services."""
    return Bench(db, tmp_path)


async def colleague(db: Database, owner: Principal, role: Any = "member") -> Principal:
    """Another user of the same organisation."""
    user_id = new_id()
    async with db.tenant(owner) as conn:
        await conn.execute(
            "INSERT INTO users (id, username, email, password_hash) VALUES (%s, %s, %s, '-')",
            [user_id, user_id.hex, f"{user_id.hex}@example.org"],
        )
        await conn.execute(
            "INSERT INTO memberships (org_id, user_id, role) VALUES (%s, %s, %s)", [owner.org_id, user_id, role]
        )
    return replace(owner, user_id=user_id, username=user_id.hex, role=role, permissions=ROLE_PERMISSIONS[role])


async def test_who_sees_what(bench: Bench, db: Database) -> None:
    """Private: the owner alone; division: its members; organisation: all; another organisation: none."""
    owner = await new_principal(db)
    near, far = await colleague(db, owner), await colleague(db, owner, "admin")
    plant = await bench.divisions.create(owner, name="Plant", request_id="r")
    for member in (owner, near):
        await bench.divisions.assign(owner, plant.id, member.user_id, request_id="r")
    private, division, all_ = [
        await bench.remember(owner, text, visibility=text) for text in ("private", "division", "organisation")
    ]
    assert await bench.contents(owner) == {"private", "division", "organisation"}
    assert await bench.contents(near) == {"division", "organisation"}
    assert await bench.contents(far) == {"organisation"}
    assert await bench.contents(await new_principal(db)) == set()
    for hidden in (private, division):
        with pytest.raises(NotFound):
            await bench.memory.get(far, hidden.id)
        with pytest.raises(NotFound):
            await bench.memory.delete(far, hidden.id, request_id="r")
    counted, _, _ = await bench.memory.statistics(near)
    assert (counted.memories, counted.by_visibility) == (2, {"division": 1, "organisation": 1})
    assert sum(counted.by_model.values()) == 2
    assert all_.visibility == "organisation"


async def test_another_members_memory_may_be_changed_by_managers_only(bench: Bench, db: Database) -> None:
    """403 for a colleague; an admin may change and delete, but not hide it from its organisation."""
    owner = await new_principal(db)
    author, other, admin = [await colleague(db, owner, role) for role in ("member", "member", "admin")]
    memory = await bench.remember(author, "The door code is written down.")
    with pytest.raises(Forbidden) as refused:
        await bench.change(other, memory, title="Mine")
    assert refused.value.hint
    with pytest.raises(Forbidden):
        await bench.memory.delete(other, memory.id, request_id="r")
    assert (await bench.change(admin, memory, title="Ours")).title == "Ours"
    with pytest.raises(Forbidden):
        await bench.change(admin, memory, visibility="private")
    assert (await bench.change(author, memory, visibility="private")).visibility == "private"
    with pytest.raises(NotFound):
        await bench.change(admin, memory, visibility="organisation")
    assert (await bench.change(author, memory, visibility="organisation", importance=1)).importance == 1
    await bench.memory.delete(admin, memory.id, request_id="r")
    with pytest.raises(NotFound):
        await bench.memory.get(author, memory.id)


async def test_division_needs_one(bench: Bench, db: Database) -> None:
    """Nothing is stored for a caller in no division; nothing changes either."""
    caller = await new_principal(db)
    with pytest.raises(InvalidInput):
        await bench.remember(caller, "Shared with nobody.", visibility="division")
    memory = await bench.remember(caller, "Shared with all.")
    with pytest.raises(InvalidInput):
        await bench.change(caller, memory, content="Other words.", visibility="division")
    assert await bench.contents(caller) == {"Shared with all."}


async def test_a_members_division_is_of_the_same_organisation(bench: Bench, db: Database) -> None:
    """Neither a foreign division nor a foreign user can be joined with one's own."""
    owner, stranger = await new_principal(db), await new_principal(db)
    plant = await bench.divisions.create(owner, name="Plant", request_id="r")
    with pytest.raises(NotFound):
        await bench.divisions.assign(stranger, plant.id, stranger.user_id, request_id="r")
    with pytest.raises(NotFound):
        await bench.divisions.assign(owner, plant.id, stranger.user_id, request_id="r")
    async with db.tenant(stranger) as conn:
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            async with conn.transaction():
                await conn.execute(
                    "UPDATE memberships SET division_id = %s WHERE org_id = %s", [plant.id, stranger.org_id]
                )


async def test_a_division_in_use_is_not_deleted(bench: Bench, db: Database) -> None:
    """Not with members, not with a hidden memory; without both it goes."""
    owner = await new_principal(db)
    plant = await bench.divisions.create(owner, name="Plant", request_id="r")
    await bench.divisions.assign(owner, plant.id, owner.user_id, request_id="r")
    memory = await bench.remember(owner, "Ours.", visibility="division")
    with pytest.raises(Conflict):
        await bench.divisions.delete(owner, plant.id, request_id="r")
    await bench.divisions.remove(owner, plant.id, owner.user_id, request_id="r")
    with pytest.raises(Conflict):
        await bench.divisions.delete(owner, plant.id, request_id="r")
    await bench.memory.delete(owner, memory.id, request_id="r")
    await bench.divisions.delete(owner, plant.id, request_id="r")
    assert (await bench.divisions.list(owner)).divisions == []


async def test_what_expired_is_not_found_and_swept(bench: Bench, db: Database, migrated: Migrated) -> None:
    """In every organisation, private rows too; the words it was counted by go with it."""
    one, two = await new_principal(db), await new_principal(db)
    later = datetime.now(UTC) + timedelta(days=1)
    kept = await bench.remember(one, "Stays.", expires_at=later.isoformat())
    gone = [
        await bench.remember(caller, "Goes soon.", visibility="private", expires_at=later.isoformat())
        for caller in (one, two)
    ]
    await _age(migrated, [memory.id for memory in gone])
    for caller, memory in zip((one, two), gone, strict=True):
        with pytest.raises(NotFound):
            await bench.memory.get(caller, memory.id)
        with pytest.raises(NotFound):
            await bench.memory.delete(caller, memory.id, request_id="r")
    assert await bench.contents(one) == {kept.content}
    assert (await bench.merge(one)).checked == 1
    assert await bench.memory.sweep() == 2
    assert await bench.memory.sweep() == 0
    async with db.tenant(two) as conn:
        cursor = await conn.execute("SELECT documents, words FROM corpus_stats")
        assert await cursor.fetchone() == {"documents": 0, "words": 0}
    assert await bench.contents(one) == {kept.content}


async def _age(migrated: Migrated, ids: list[UUID]) -> None:
    """Let the time of rows be over."""
    async with await psycopg.AsyncConnection.connect(migrated.owner_url) as conn:
        await conn.execute("UPDATE memories SET expires_at = now() - interval '1 s' WHERE id = ANY(%s)", [ids])


async def test_a_merge_takes_only_what_the_caller_may_change(bench: Bench, db: Database) -> None:
    """A member's own rows; never across visibility or type, never what is hidden from the caller."""
    owner = await new_principal(db)
    author = await colleague(db, owner)
    for caller in (owner, author):
        await bench.remember(caller, "Same words.")
        await bench.remember(caller, "Same words.", visibility="private")
    await bench.remember(author, "Same words.", memory_type="fact")
    assert (await bench.merge(author)).groups == []
    assert (await bench.merge(owner)).groups[0].others[0].exact
    left = await bench.memory.page(author, limit=10, before=None, where=EVERYTHING)
    assert sorted((m.visibility, m.memory_type) for m in left) == [
        ("organisation", "fact"),
        ("organisation", "note"),
        ("private", "note"),
    ]


async def test_a_merge_leaves_what_changed_meanwhile(bench: Bench, db: Database, monkeypatch: Any) -> None:
    """A row that says something else by now is not taken for the one that was compared."""
    caller = await new_principal(db)
    await bench.remember(caller, "Same words.")
    second = await bench.remember(caller, "Same words.")
    merge_group = bench.merging._merge

    async def late(*args: Any, **more: Any) -> bool:
        await bench.change(caller, second, content="Quite other words.")
        return await merge_group(*args, **more)

    monkeypatch.setattr(bench.merging, "_merge", late)
    assert (await bench.merge(caller)).groups == []
    assert await bench.contents(caller) == {"Same words.", "Quite other words."}


async def test_near_is_by_threshold(bench: Bench, db: Database) -> None:
    """The same direction counts as near, another one does not, whatever else is around."""
    caller = await new_principal(db)
    first = await bench.remember(caller, "alpha one")
    await bench.remember(caller, "alpha two")
    await bench.remember(caller, "beta three")
    told = await bench.merge(caller, threshold=0.9)
    assert [(group.kept, group.others[0].exact) for group in told.groups] == [(first.id, False)]
    assert told.groups[0].others[0].similarity == pytest.approx(1.0, abs=1e-3)
    assert await bench.contents(caller) == {"alpha one", "beta three"}


async def test_merged_words_and_counts_stay_right(bench: Bench, db: Database) -> None:
    """The statistics of words are those of the rows that are left."""
    caller = await new_principal(db)
    for _ in range(3):
        await bench.remember(caller, "Pumps and valves.", title="Plant")
    await bench.merge(caller)
    async with db.tenant(caller) as conn:
        cursor = await conn.execute(
            "SELECT c.documents, c.words, (SELECT sum(m.length) FROM memories m) AS length,"
            " (SELECT bool_and(t.documents IN (0, 1)) FROM term_stats t) AS once FROM corpus_stats c"
        )
        row = await cursor.fetchone()
    assert row is not None
    assert (row["documents"], row["words"] == row["length"], row["once"]) == (1, True, True)


async def test_an_import_broken_off_goes_on_where_it_stopped(bench: Bench, db: Database) -> None:
    """What was told as created is there; the second time only the rest is embedded."""
    caller = await new_principal(db)
    lines = [{"external_id": str(n), "content": f"Line {n}."} for n in range(3 * BATCH)]
    bench.encoder.breaks_after = 2 * BATCH
    seen: list[LineResult] = []
    with pytest.raises(Unavailable):
        await bench.bring(caller, lines, seen)
    assert [result.status for result in seen] == ["created"] * 2 * BATCH
    bench.encoder.breaks_after = None
    again = await bench.bring(caller, lines)
    assert [result.status for result in again] == ["exists"] * 2 * BATCH + ["created"] * BATCH
    assert len(bench.encoder.texts) == 3 * BATCH
    assert [result.id for result in again[: 2 * BATCH]] == [result.id for result in seen]


async def test_the_same_import_twice_at_once_stores_each_line_once(bench: Bench, db: Database) -> None:
    """Both are told the same ids."""
    caller = await new_principal(db)
    lines = [{"external_id": str(n), "content": f"Line {n}."} for n in range(2 * BATCH)]
    told: list[list[LineResult]] = []

    async def one() -> None:
        told.append(await bench.bring(caller, lines))

    async with anyio.create_task_group() as group:
        group.start_soon(one)
        group.start_soon(one)
    assert [r.id for r in told[0]] == [r.id for r in told[1]]
    statuses = [{a.status, b.status} for a, b in zip(*told, strict=True)]
    assert statuses == [{"created", "exists"}] * len(lines)
    counted, _, _ = await bench.memory.statistics(caller)
    assert counted.memories == len(lines)


async def test_one_line_the_database_refuses_does_not_cost_its_batch(bench: Bench, db: Database) -> None:
    """The others of the batch are stored, and it has its own error."""
    caller = await new_principal(db)
    lines: list[dict[str, Any]] = [{"external_id": str(n), "content": f"Line {n}."} for n in range(5)]
    lines[3]["visibility"] = "division"
    told = await bench.bring(caller, lines)
    assert [result.status for result in told] == ["created"] * 3 + ["failed", "created"]
    assert isinstance(told[3].error, InvalidInput)


async def test_the_graph_is_told_of_new_and_changed_texts(bench: Bench, db: Database) -> None:
    """Once for a memory, once for another content or type, once for an import that brought something; not for
    labels."""
    caller = await new_principal(db)
    memory = await bench.remember(caller, "one text")
    assert bench.knowledge.times == 1
    await bench.change(caller, memory, tags=["label"])
    assert bench.knowledge.times == 1
    await bench.change(caller, memory, content="another text")
    assert bench.knowledge.times == 2
    await bench.change(caller, memory, memory_type="fact")
    assert bench.knowledge.times == 3
    lines = [{"external_id": str(n), "content": f"line {n}"} for n in range(3)]
    await bench.bring(caller, lines)
    assert bench.knowledge.times == 4
    await bench.bring(caller, lines)
    assert bench.knowledge.times == 4


async def test_an_import_that_breaks_off_tells_the_graph_of_what_it_brought(bench: Bench, db: Database) -> None:
    """What was stored before the outage is new all the same."""
    caller = await new_principal(db)
    bench.encoder.breaks_after = BATCH
    lines = [{"external_id": str(n), "content": f"line {n}"} for n in range(2 * BATCH)]
    with pytest.raises(Unavailable):
        await bench.bring(caller, lines)
    assert bench.knowledge.times == 1


async def test_names_are_each_users_own(bench: Bench, db: Database) -> None:
    """Equal names of two users are two memories, and the id of a name tells nothing of it to another organisation."""
    owner, stranger = await new_principal(db), await new_principal(db)
    other = await colleague(db, owner)
    line = [{"external_id": "1", "content": "Named."}]
    ids = {(await bench.bring(caller, line))[0].id for caller in (owner, other, stranger)}
    assert len(ids) == 3
    ciphers = [(await db.known(caller.org_id)).cipher for caller in (owner, stranger)]
    assert id_of(ciphers[0], owner.user_id, "1") != id_of(ciphers[1], owner.user_id, "1")
    assert id_of(ciphers[0], owner.user_id, "1").version == 8
