"""What was read in memories: things, where they are mentioned, and what is said of two of them.

Names, predicates and sentences are sealed; a thing's id is made of the keyed hash of its name, so it is found by name
without its name being stored. Nothing here is older or younger than the memory it was read in: a memory that goes
takes its mentions and relations along, and a thing with its last mention.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid5

from neuroedge.stores import sealing
from neuroedge.stores.derived import ALL_TYPES
from neuroedge.stores.ids import new_id
from neuroedge.stores.memory_filters import CHAT_MESSAGE
from neuroedge.stores.postgres import Connection

MAX_PLACES = 100
"""Places of one name kept for each memory."""
_READ: Final = f"m.memory_type <> '{CHAT_MESSAGE}' AND NOT (m.memory_type = ANY(%(unhashed)s) OR %(none_hashed)s)"
"""What is said in chats, by the assistant too, is no knowledge; and a name in the graph is found by keyed hashes of its
words, which some types of memories must not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundThing:
    """A thing named in a text; `places` are spans of characters."""

    key: str
    name: str
    type: str
    surfaces: Sequence[str]
    places: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRelation:
    """What a sentence says of two things, by their position among the text's things."""

    subject: int
    predicate: str
    object: int
    negated: bool
    modal: str | None
    reported: bool
    sentence: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that was read in one memory; `content_mac` is that of the content it was read in."""

    memory_id: UUID
    content_mac: int
    things: Sequence[FoundThing]
    relations: Sequence[FoundRelation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a memory says, and the MAC that tells when that changes."""

    memory_id: UUID
    mac: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A thing, with the number of memories (those the caller may see) that mention it."""

    id: UUID
    name: str
    type: str
    memories: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A memory that mentions a thing: under which spellings, at which characters of its content."""

    memory_id: UUID
    surfaces: list[str]
    places: list[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """What a memory says of two things, with the sentence that says so."""

    id: UUID
    subject_id: UUID
    predicate: str
    object_id: UUID
    negated: bool
    modal: str | None
    reported: bool
    memory_id: UUID
    sentence: str
    start: int
    end: int


def entity_id(conn: Connection, org_id: UUID, key: str) -> UUID:
    """The id of the thing of a name (see kit/names.key_of), whether there is one or not."""
    return uuid5(org_id, f"{conn.vault.blind(f'knowledge/name/{key}'):x}")


def _place(table: str, *ids: UUID) -> str:
    """The context of what is sealed in a row."""
    return "/".join([table, *map(str, ids)])


def _word_key(conn: Connection, word: str) -> int:
    return conn.vault.blind(f"knowledge/word/{word}")


def _unhashed(conn: Connection) -> dict[str, Any]:
    types = conn.underived.words
    return {"unhashed": list(types), "none_hashed": ALL_TYPES in types}


def reads(conn: Connection, memory_type: str) -> bool:
    """Whether memories of this type are read into the graph."""
    return memory_type != CHAT_MESSAGE and conn.underived.hashes(memory_type)


async def forget(conn: Connection, *, org_id: UUID, memory_ids: Sequence[UUID]) -> None:
    """Drop what was read in some memories, and the things that nothing else names."""
    await conn.execute(
        "DELETE FROM knowledge_sources WHERE org_id = %s AND memory_id = ANY(%s)", [org_id, list(memory_ids)]
    )


async def replace(conn: Connection, *, org_id: UUID, extractor: str, read: Sequence[Facts]) -> None:
    """Keep what was read in some memories in place of what was read in them before.

    What was read in one that is gone by now, or says something else, is dropped: it would quote what is there no more.
    """
    read = await _unchanged(conn, org_id, read)
    memory_ids = [facts.memory_id for facts in read]
    await forget(conn, org_id=org_id, memory_ids=memory_ids)
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO knowledge_sources (org_id, memory_id, extractor, content_mac) VALUES (%s, %s, %s, %s)",
            [(org_id, facts.memory_id, extractor, facts.content_mac) for facts in read],
        )
        # After the rows above, which wait for whoever deletes these memories: the other order could wait in a circle.
        await cursor.execute("SELECT lock_knowledge(%s)", [org_id])
        things = {thing.key: thing for facts in reversed(read) for thing in facts.things}
        ids = {key: entity_id(conn, org_id, key) for key in things}
        # Bare ON CONFLICT: naming the columns would ask to see rows, and these may be mentioned out of sight.
        await cursor.executemany(
            "INSERT INTO entities (org_id, id, type, sealed) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [
                (org_id, ids[key], thing.type, conn.vault.seal({"name": thing.name}, _place("entities", ids[key])))
                for key, thing in sorted(things.items())
            ],
        )
        await cursor.executemany(
            "INSERT INTO entity_words (org_id, word_key, entity_id) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            [(org_id, _word_key(conn, word), ids[key]) for key in sorted(things) for word in set(key.split())],
        )
        await cursor.executemany(
            "INSERT INTO mentions (org_id, entity_id, memory_id, sealed) VALUES (%s, %s, %s, %s)",
            [_mention_row(conn, org_id, facts, thing, ids) for facts in read for thing in facts.things],
        )
        await cursor.executemany(
            "INSERT INTO relations (org_id, id, subject_id, object_id, predicate_key, memory_id, sealed)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [_relation_row(conn, org_id, facts, relation, ids) for facts in read for relation in facts.relations],
        )


async def _unchanged(conn: Connection, org_id: UUID, read: Sequence[Facts]) -> list[Facts]:
    """What was read in memories that still say it; nobody changes or deletes those until the transaction ends."""
    cursor = await conn.execute(
        # In one order, and before their facts: who changes a memory takes its row first and then forgets the facts.
        f"SELECT m.id, m.content_mac FROM memories m WHERE m.org_id = %(org)s AND m.id = ANY(%(ids)s) AND {_READ}"
        " ORDER BY m.id FOR SHARE",
        {"org": org_id, "ids": [facts.memory_id for facts in read], **_unhashed(conn)},
    )
    present = {row["id"]: row["content_mac"] for row in await cursor.fetchall()}
    return [facts for facts in read if present.get(facts.memory_id) == facts.content_mac]


def _mention_row(
    conn: Connection, org_id: UUID, facts: Facts, thing: FoundThing, ids: dict[str, UUID]
) -> tuple[Any, ...]:
    value = {"surfaces": list(thing.surfaces), "places": [list(place) for place in thing.places[:MAX_PLACES]]}
    place = _place("mentions", ids[thing.key], facts.memory_id)
    return org_id, ids[thing.key], facts.memory_id, conn.vault.seal(value, place)


def _relation_row(
    conn: Connection, org_id: UUID, facts: Facts, relation: FoundRelation, ids: dict[str, UUID]
) -> tuple[Any, ...]:
    relation_id = new_id()
    value = {
        "predicate": relation.predicate,
        "negated": relation.negated,
        "modal": relation.modal,
        "reported": relation.reported,
        "sentence": relation.sentence,
        "span": [relation.start, relation.end],
    }
    return (
        org_id,
        relation_id,
        ids[facts.things[relation.subject].key],
        ids[facts.things[relation.object].key],
        conn.vault.blind(f"knowledge/predicate/{relation.predicate}"),
        facts.memory_id,
        conn.vault.seal(value, _place("relations", relation_id)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How many of the memories the caller may see have been read, and what was found in them."""

    memories: int
    read: int
    entities: int
    relations: int


async def standing(conn: Connection, *, org_id: UUID, extractor: str) -> Standing:
    """Counts for the caller; a memory whose content or extractor changed since counts as not read."""
    row = await (
        await conn.execute(
            f"SELECT (SELECT count(*) FROM memories m WHERE m.org_id = %(org)s AND {_READ}) AS memories,"
            " (SELECT count(*) FROM memories m JOIN knowledge_sources s ON s.org_id = m.org_id AND s.memory_id = m.id"
            "   AND s.extractor = %(extractor)s AND s.content_mac = m.content_mac"
            f"  WHERE m.org_id = %(org)s AND {_READ}) AS read,"
            " (SELECT count(*) FROM entities WHERE org_id = %(org)s) AS entities,"
            " (SELECT count(*) FROM relations WHERE org_id = %(org)s) AS relations",
            {"org": org_id, "extractor": extractor, **_unhashed(conn)},
        )
    ).fetchone()
    assert row is not None
    return Standing(**row)


async def unread(
    conn: Connection, *, org_id: UUID, extractor: str, after: UUID | None, limit: int, document_id: UUID | None = None
) -> list[UUID]:
    """Memories, or passages of one document, not read by this extractor as they are now, in the order of their ids."""
    cursor = await conn.execute(
        "SELECT m.id FROM memories m WHERE m.org_id = %(org)s AND (%(after)s::uuid IS NULL OR m.id > %(after)s)"
        f" AND {_READ} AND (%(document)s::uuid IS NULL OR m.document_id = %(document)s)"
        " AND NOT EXISTS (SELECT 1 FROM knowledge_sources s WHERE s.org_id = m.org_id AND s.memory_id = m.id"
        "   AND s.extractor = %(extractor)s AND s.content_mac = m.content_mac) ORDER BY m.id LIMIT %(limit)s",
        {
            "org": org_id,
            "extractor": extractor,
            "after": after,
            "limit": limit,
            "document": document_id,
            **_unhashed(conn),
        },
    )
    return [row["id"] for row in await cursor.fetchall()]


async def contents(conn: Connection, *, org_id: UUID, ids: Sequence[UUID]) -> list[Content]:
    """What some memories say now; those gone meanwhile are missing."""
    cursor = await conn.execute(
        "SELECT id, content_mac, sealed FROM memories WHERE org_id = %s AND id = ANY(%s) ORDER BY id",
        [org_id, list(ids)],
    )
    return [
        Content(
            memory_id=row["id"],
            mac=row["content_mac"],
            text=conn.vault.open(row["sealed"], sealing.memory(row["id"]))["content"],
        )
        for row in await cursor.fetchall()
    ]


async def entities(
    conn: Connection, *, org_id: UUID, key: str | None, type_: str | None, limit: int, offset: int
) -> list[Entity]:
    """Things, most mentioned first; with `key`, those whose name holds all its words."""
    cursor = await conn.execute(
        "SELECT e.id, e.type, e.sealed, count(*) AS memories FROM entities e"
        " JOIN mentions m ON m.org_id = e.org_id AND m.entity_id = e.id"
        " WHERE e.org_id = %(org)s AND (%(type)s::text IS NULL OR e.type = %(type)s)"
        " AND (%(words)s::bigint[] IS NULL OR e.id IN (SELECT w.entity_id FROM entity_words w"
        "   WHERE w.org_id = %(org)s AND w.word_key = ANY(%(words)s)"
        "   GROUP BY w.entity_id HAVING count(*) = cardinality(%(words)s::bigint[])))"
        " GROUP BY e.org_id, e.id ORDER BY count(*) DESC, e.id LIMIT %(limit)s OFFSET %(offset)s",
        {
            "org": org_id,
            "type": type_,
            "words": None if key is None else [_word_key(conn, word) for word in sorted(set(key.split()))],
            "limit": limit,
            "offset": offset,
        },
    )
    return [_entity(conn, row) for row in await cursor.fetchall()]


async def by_ids(conn: Connection, *, org_id: UUID, ids: Sequence[UUID]) -> dict[UUID, Entity]:
    """Those of some things that the caller may see."""
    cursor = await conn.execute(
        "SELECT e.id, e.type, e.sealed, count(*) AS memories FROM entities e"
        " JOIN mentions m ON m.org_id = e.org_id AND m.entity_id = e.id"
        " WHERE e.org_id = %s AND e.id = ANY(%s) GROUP BY e.org_id, e.id",
        [org_id, list(ids)],
    )
    return {row["id"]: _entity(conn, row) for row in await cursor.fetchall()}


def _entity(conn: Connection, row: dict[str, Any]) -> Entity:
    name = conn.vault.open(row["sealed"], _place("entities", row["id"]))["name"]
    return Entity(id=row["id"], name=name, type=row["type"], memories=row["memories"])


async def mentions(conn: Connection, *, org_id: UUID, entity: UUID, limit: int) -> list[Mention]:
    """Memories that mention a thing, newest first."""
    cursor = await conn.execute(
        "SELECT memory_id, sealed FROM mentions WHERE org_id = %s AND entity_id = %s ORDER BY memory_id DESC LIMIT %s",
        [org_id, entity, limit],
    )
    found = []
    for row in await cursor.fetchall():
        value = conn.vault.open(row["sealed"], _place("mentions", entity, row["memory_id"]))
        places = [(start, end) for start, end in value["places"]]
        found.append(Mention(memory_id=row["memory_id"], surfaces=value["surfaces"], places=places))
    return found


async def relations_of(
    conn: Connection, *, org_id: UUID, entity: UUID, predicate: str | None, limit: int
) -> list[Relation]:
    """What is said of a thing, as subject or object, latest memories first; with `predicate`, only what has it."""
    predicate_key = None if predicate is None else conn.vault.blind(f"knowledge/predicate/{predicate}")
    return await _relations(
        conn,
        "(subject_id = %(entity)s OR object_id = %(entity)s)"
        " AND (%(predicate)s::bigint IS NULL OR predicate_key = %(predicate)s)",
        {"org": org_id, "entity": entity, "predicate": predicate_key, "limit": limit},
    )


async def relations_between(
    conn: Connection, *, org_id: UUID, pairs: Sequence[tuple[UUID, UUID]], limit: int
) -> list[Relation]:
    """What is said of pairs of things, in either direction."""
    return await _relations(
        conn,
        "(subject_id, object_id) IN (SELECT * FROM unnest(%(a)s::uuid[] || %(b)s, %(b)s::uuid[] || %(a)s))",
        {"org": org_id, "a": [a for a, _ in pairs], "b": [b for _, b in pairs], "limit": limit},
    )


async def _relations(conn: Connection, condition: str, values: dict[str, Any]) -> list[Relation]:
    cursor = await conn.execute(
        "SELECT id, subject_id, object_id, memory_id, sealed FROM relations"
        f" WHERE org_id = %(org)s AND {condition} ORDER BY memory_id DESC, id LIMIT %(limit)s",
        values,
    )
    return [_relation(conn, row) for row in await cursor.fetchall()]


def _relation(conn: Connection, row: dict[str, Any]) -> Relation:
    value = conn.vault.open(row.pop("sealed"), _place("relations", row["id"]))
    start, end = value.pop("span")
    return Relation(**row, **value, start=start, end=end)
