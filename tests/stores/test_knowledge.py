"""The graph in the database: sealed, bound to its tenant and to memories one may see, gone with the last mention."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import psycopg
import pytest

from neuroedge.contract.errors import NotFound
from neuroedge.contract.ports import MemoryFilter
from neuroedge.contract.principal import Principal
from neuroedge.stores import knowledge, knowledge_walks, sealing
from neuroedge.stores.ids import new_id
from neuroedge.stores.knowledge import Facts, FoundRelation, FoundThing
from neuroedge.stores.postgres import Database
from tests.stores.conftest import Migrated, new_principal

pytestmark = pytest.mark.anyio

TABLES = ("knowledge_sources", "entities", "entity_words", "mentions", "relations")
READER = "test/1"


async def remember(db: Database, caller: Principal, content: str, *, visibility: str = "organisation") -> UUID:
    """A stored memory, with no more than its columns ask for."""
    memory_id = new_id()
    async with db.tenant(caller) as conn:
        await conn.execute(
            "INSERT INTO memories (org_id, id, user_id, memory_type, visibility, sealed, content_mac, terms)"
            " VALUES (%s, %s, %s, 'note', %s, %s, %s, '{}/1000000000')",
            [
                caller.org_id,
                memory_id,
                caller.user_id,
                visibility,
                conn.vault.seal({"content": content}, sealing.memory(memory_id)),
                sealing.content_mac(conn.vault, content),
            ],
        )
    return memory_id


async def _mac(db: Database, caller: Principal, memory_id: UUID) -> int:
    async with db.tenant(caller) as conn:
        return (await knowledge.contents(conn, org_id=caller.org_id, ids=[memory_id]))[0].mac


async def _say(
    db: Database, caller: Principal, *statements: tuple[str, str, str], visibility: str = "organisation"
) -> UUID:
    """A memory of some statements, read into the graph."""
    content = ". ".join(" ".join(statement) for statement in statements)
    memory_id = await remember(db, caller, content, visibility=visibility)
    await _read(db, caller, memory_id, statements)
    return memory_id


async def _read(db: Database, caller: Principal, memory_id: UUID, statements: Sequence[tuple[str, str, str]]) -> None:
    names = list(dict.fromkeys(name for subject, _, object_ in statements for name in (subject, object_)))
    facts = Facts(
        memory_id=memory_id,
        content_mac=await _mac(db, caller, memory_id),
        things=[
            FoundThing(key=name.casefold(), name=name, type="person", surfaces=[name], places=[(0, len(name))])
            for name in names
        ],
        relations=[
            FoundRelation(
                subject=names.index(subject),
                predicate=predicate,
                object=names.index(object_),
                negated=False,
                modal=None,
                reported=False,
                sentence=f"{subject} {predicate} {object_}",
                start=0,
                end=9,
            )
            for subject, predicate, object_ in statements
        ],
    )
    async with db.tenant(caller) as conn:
        await knowledge.replace(conn, org_id=caller.org_id, extractor=READER, read=[facts])


async def _names(db: Database, caller: Principal, key: str | None = None) -> dict[str, int]:
    async with db.tenant(caller) as conn:
        found = await knowledge.entities(conn, org_id=caller.org_id, key=key, type_=None, limit=100, offset=0)
    return {entity.name: entity.memories for entity in found}


async def _id(db: Database, caller: Principal, key: str) -> UUID:
    async with db.tenant(caller) as conn:
        return knowledge.entity_id(conn, caller.org_id, key)


async def _colleague(db: Database, caller: Principal, migrated: Migrated) -> Principal:
    """Another member of the caller's organisation."""
    other = await new_principal(db)
    async with await psycopg.AsyncConnection.connect(migrated.owner_url) as conn:
        await conn.execute(
            "INSERT INTO memberships (org_id, user_id, role) VALUES (%s, %s, 'member')", [caller.org_id, other.user_id]
        )
    return replace(other, org_id=caller.org_id)


async def test_what_was_read_comes_back_with_its_evidence(db: Database) -> None:
    """Things counted by memory, mentions with their places, relations with predicate and sentence."""
    caller = await new_principal(db)
    memory_id = await _say(db, caller, ("Ada Lovelace", "meet", "Babbage"))
    await _say(db, caller, ("Ada Lovelace", "admire", "Somerville"))
    assert await _names(db, caller) == {"Ada Lovelace": 2, "Babbage": 1, "Somerville": 1}
    assert await _names(db, caller, "lovelace") == {"Ada Lovelace": 2}
    assert await _names(db, caller, "ada babbage") == {}
    async with db.tenant(caller) as conn:
        babbage = knowledge.entity_id(conn, caller.org_id, "babbage")
        [mention] = await knowledge.mentions(conn, org_id=caller.org_id, entity=babbage, limit=10)
        assert (mention.memory_id, mention.surfaces, mention.places) == (memory_id, ["Babbage"], [(0, 7)])
        [said] = await knowledge.relations_of(conn, org_id=caller.org_id, entity=babbage, predicate=None, limit=10)
        assert (said.predicate, said.object_id, said.memory_id) == ("meet", babbage, memory_id)
        assert said.sentence == "Ada Lovelace meet Babbage"
        assert await knowledge.relations_of(conn, org_id=caller.org_id, entity=babbage, predicate="sue", limit=9) == []


async def test_no_name_predicate_or_sentence_is_stored_in_plain_text(db: Database, migrated: Migrated) -> None:
    """As the owner sees the tables, who sees all there is."""
    caller = await new_principal(db)
    await _say(db, caller, ("Zaphod", "pilot", "Heartofgold"))
    async with await psycopg.AsyncConnection.connect(migrated.owner_url) as conn:
        for table in TABLES:
            rows = await (await conn.execute(f"SELECT t::text FROM {table} t")).fetchall()
            text = " ".join(row[0] for row in rows).lower()
            for word in ("zaphod", "pilot", "heartofgold"):
                assert word not in text
                assert word.encode().hex() not in text


async def test_a_tenant_sees_and_changes_its_own_graph_only(db: Database) -> None:
    """The same name is another thing elsewhere; SQL that names no tenant reaches its own rows; unbound, none."""
    first, second = await new_principal(db), await new_principal(db)
    await _say(db, first, ("Alice", "know", "Bob"))
    await _say(db, second, ("Alice", "hate", "Carol"))
    assert await _id(db, first, "alice") != await _id(db, second, "alice")
    assert set(await _names(db, first)) == {"Alice", "Bob"}
    async with db.tenant(first) as conn:
        for table in TABLES:
            rows = await (await conn.execute(f"SELECT org_id FROM {table}")).fetchall()
            assert {row["org_id"] for row in rows} == {first.org_id}, table
        theirs = knowledge.entity_id(conn, second.org_id, "carol")
        assert await knowledge.by_ids(conn, org_id=second.org_id, ids=[theirs]) == {}
        await conn.execute("DELETE FROM knowledge_sources")
    assert await _names(db, first) == {}
    assert set(await _names(db, second)) == {"Alice", "Carol"}
    async with db.unbound() as conn:
        for table in TABLES:
            assert await (await conn.execute(f"SELECT 1 FROM {table}")).fetchall() == [], table


async def test_a_row_cannot_be_written_into_another_tenant(db: Database) -> None:
    """Neither by its organisation's id nor by a memory of another organisation."""
    first, second = await new_principal(db), await new_principal(db)
    theirs = await remember(db, second, "x")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with db.tenant(first) as conn:
            await conn.execute(
                "INSERT INTO entities (org_id, id, type, sealed) VALUES (%s, %s, 'person', '')",
                [second.org_id, new_id()],
            )
    mac = await _mac(db, second, theirs)
    with pytest.raises((NotFound, psycopg.errors.InsufficientPrivilege)):
        async with db.tenant(first) as conn:
            await conn.execute(
                "INSERT INTO knowledge_sources (org_id, memory_id, extractor, content_mac) VALUES (%s, %s, %s, %s)",
                [first.org_id, theirs, READER, mac],
            )
    async with db.tenant(first) as conn:
        read = [Facts(memory_id=theirs, content_mac=mac, things=[], relations=[])]
        await knowledge.replace(conn, org_id=first.org_id, extractor=READER, read=read)
        assert await (await conn.execute("SELECT 1 FROM knowledge_sources")).fetchall() == []


async def test_a_private_memory_adds_nothing_to_a_colleagues_graph(db: Database, migrated: Migrated) -> None:
    """Things, counts, relations, neighbours and paths come from memories one may see."""
    caller = await new_principal(db)
    colleague = await _colleague(db, caller, migrated)
    await _say(db, caller, ("Alice", "know", "Bob"))
    await _say(db, caller, ("Bob", "owe", "Mallory"), visibility="private")
    assert await _names(db, caller) == {"Bob": 2, "Alice": 1, "Mallory": 1}
    assert await _names(db, colleague) == {"Alice": 1, "Bob": 1}
    alice, mallory = await _id(db, caller, "alice"), await _id(db, caller, "mallory")
    for who, found in ((caller, 3), (colleague, 0)):
        async with db.tenant(who) as conn:
            way = await knowledge_walks.path(conn, org_id=who.org_id, start=alice, end=mallory, depth=4)
            assert len(way) == found
            assert bool(await knowledge.by_ids(conn, org_id=who.org_id, ids=[mallory])) == bool(found)
            assert bool(await knowledge_walks.memories_about(conn, org_id=who.org_id, names=["mallory"], limit=5)) == (
                bool(found)
            )


async def test_a_thing_kept_by_an_unseen_memory_outlives_the_seen_one(db: Database, migrated: Migrated) -> None:
    """Whoever deletes the last mention they see does not take it from others; naming it again is no conflict."""
    caller = await new_principal(db)
    colleague = await _colleague(db, caller, migrated)
    await _say(db, caller, ("Alice", "know", "Bob"), visibility="private")
    theirs = await _say(db, colleague, ("Alice", "know", "Eve"))
    async with db.tenant(colleague) as conn:
        await conn.execute("DELETE FROM memories WHERE org_id = %s AND id = %s", [colleague.org_id, theirs])
    assert await _names(db, caller) == {"Alice": 1, "Bob": 1}
    assert await _names(db, colleague) == {}


async def test_mentions_deleted_by_hand_take_things_only_when_nobody_mentions_them(
    db: Database, migrated: Migrated
) -> None:
    """Also those in memories that the one who deletes cannot see; nobody deletes a thing itself."""
    caller = await new_principal(db)
    colleague = await _colleague(db, caller, migrated)
    await _say(db, caller, ("Alice", "know", "Bob"), visibility="private")
    await _say(db, colleague, ("Alice", "know", "Eve"))
    async with db.tenant(colleague) as conn:
        assert (await conn.execute("DELETE FROM entities")).rowcount == 0
        assert (await conn.execute("DELETE FROM mentions")).rowcount == 2
    async with await psycopg.AsyncConnection.connect(migrated.owner_url) as conn:
        cursor = await conn.execute("SELECT count(*) FROM entities WHERE org_id = %s", [caller.org_id])
        assert await cursor.fetchone() == (2,)
    assert await _names(db, caller) == {"Alice": 1, "Bob": 1}


async def test_a_deleted_memory_takes_its_facts_and_what_only_it_named(db: Database, migrated: Migrated) -> None:
    """Mentions, relations, words, and things without another mention, in the same transaction."""
    caller = await new_principal(db)
    gone = await _say(db, caller, ("Alice", "know", "Bob"))
    await _say(db, caller, ("Alice", "know", "Carol"))
    async with db.tenant(caller) as conn:
        await conn.execute("DELETE FROM memories WHERE org_id = %s AND id = %s", [caller.org_id, gone])
        found = await knowledge.entities(conn, org_id=caller.org_id, key=None, type_=None, limit=9, offset=0)
        assert {entity.name for entity in found} == {"Alice", "Carol"}
    async with await psycopg.AsyncConnection.connect(migrated.owner_url) as conn:
        for table, count in (("entities", 2), ("entity_words", 2), ("mentions", 2), ("relations", 1)):
            cursor = await conn.execute(f"SELECT count(*) FROM {table} WHERE org_id = %s", [caller.org_id])
            assert await cursor.fetchone() == (count,), table


async def test_reading_again_replaces_what_was_read(db: Database) -> None:
    """No fact twice, none left over; a memory whose content changed counts as unread."""
    caller = await new_principal(db)
    memory_id = await _say(db, caller, ("Alice", "know", "Bob"))
    await _read(db, caller, memory_id, [("Alice", "know", "Dave")])
    assert await _names(db, caller) == {"Alice": 1, "Dave": 1}
    async with db.tenant(caller) as conn:
        standing = await knowledge.standing(conn, org_id=caller.org_id, extractor=READER)
        assert (standing.memories, standing.read, standing.entities, standing.relations) == (1, 1, 2, 1)
        ask = {"org_id": caller.org_id, "after": None, "limit": 9}
        assert await knowledge.unread(conn, extractor=READER, **ask) == []
        assert await knowledge.unread(conn, extractor="test/2", **ask) == [memory_id]
        await conn.execute("UPDATE memories SET content_mac = content_mac + 1 WHERE org_id = %s", [caller.org_id])
        assert await knowledge.unread(conn, extractor=READER, **ask) == [memory_id]


async def test_neighbours_come_nearest_first_and_no_farther_than_asked(db: Database) -> None:
    """Along relations in both directions, through circles."""
    caller = await new_principal(db)
    await _say(db, caller, ("A", "r", "B"), ("C", "r", "B"), ("C", "r", "D"), ("D", "r", "A"), ("D", "r", "E"))
    ids = {name: await _id(db, caller, name.casefold()) for name in "ABCDE"}
    async with db.tenant(caller) as conn:

        async def around(depth: int, limit: int = 9) -> dict[UUID, int]:
            return dict(
                await knowledge_walks.neighbours(conn, org_id=caller.org_id, start=ids["A"], depth=depth, limit=limit)
            )

        assert await around(1) == {ids["B"]: 1, ids["D"]: 1}
        assert await around(2) == {ids["B"]: 1, ids["D"]: 1, ids["C"]: 2, ids["E"]: 2}
        assert await around(99) == await around(2)
        assert len(await around(2, limit=3)) == 3


async def test_the_shortest_path_is_found_or_none(db: Database) -> None:
    """Fewest relations; nothing beyond the depth, between things apart, or for unknown ones."""
    caller = await new_principal(db)
    await _say(db, caller, ("A", "r", "B"), ("B", "r", "C"), ("C", "r", "D"), ("E", "r", "A"), ("D", "r", "E"))
    await _say(db, caller, ("X", "r", "Y"))
    ids = {name: await _id(db, caller, name.casefold()) for name in "ABCDEX"}
    async with db.tenant(caller) as conn:

        async def way(start: str, end: str, depth: int = 6) -> str:
            found = await knowledge_walks.path(conn, org_id=caller.org_id, start=ids[start], end=ids[end], depth=depth)
            return "".join(name for id_ in found for name, known in ids.items() if known == id_)

        assert await way("A", "D") == "AED"
        assert await way("A", "C") == "ABC"
        assert await way("A", "A") == "A"
        assert await way("A", "D", depth=1) == ""
        assert await way("A", "X") == ""


async def test_a_hub_does_not_make_a_walk_read_everything(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recursion ends at MAX_STEPS."""
    caller = await new_principal(db)
    await _say(db, caller, *((f"N{n}", "r", "Hub") for n in range(60)))
    monkeypatch.setattr(knowledge_walks, "MAX_STEPS", 20)
    hub = await _id(db, caller, "hub")
    async with db.tenant(caller) as conn:
        found = await knowledge_walks.neighbours(conn, org_id=caller.org_id, start=hub, depth=4, limit=1000)
    assert len(found) == 19


async def test_memories_about_a_name_come_before_those_about_its_neighbours(db: Database) -> None:
    """The thing itself, then what it is related to; names nobody has and unrelated memories are left out."""
    caller = await new_principal(db)
    itself = await _say(db, caller, ("Ada Lovelace", "meet", "Babbage"))
    neighbour = await _say(db, caller, ("Babbage", "build", "Engine"))
    await _say(db, caller, ("Mozart", "visit", "Prague"))
    async with db.tenant(caller) as conn:
        found = await knowledge_walks.memories_about(
            conn, org_id=caller.org_id, names=["when did ada lovelace", "ada lovelace", "ada"], limit=10
        )
        assert found == [itself, neighbour]
        assert await knowledge_walks.memories_about(conn, org_id=caller.org_id, names=["nobody"], limit=10) == []
        where = MemoryFilter(memory_type="segment")
        assert (
            await knowledge_walks.memories_about(
                conn, org_id=caller.org_id, names=["ada lovelace"], limit=10, where=where
            )
            == []
        )
        assert await knowledge_walks.memories_about(conn, org_id=caller.org_id, names=[], limit=10) == []
