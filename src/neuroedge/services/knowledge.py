"""The graph of an organisation's memories: read into it by the knowledge engine, asked for things, relations, paths.

Memories are read by a job in batches, each of them stored at once, so that a job that is resumed goes on where it
stopped. It is ordered by a caller; and where the organisation's switch says so, or with a document whose sender asked
for it, by whatever stores something new. What a caller is told comes only from memories the caller may see.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final
from uuid import UUID

import structlog

from neuroedge.contract.errors import NeuroEdgeError, NotFound
from neuroedge.contract.models import ENTITIES
from neuroedge.contract.principal import ROLE_PERMISSIONS, RUN_ENGINES, Principal
from neuroedge.engines.knowledge.knowledge import Input, Output
from neuroedge.infra.queue import TASK_QUEUE, JobQueue
from neuroedge.kit.names import key_of
from neuroedge.services.run_engine import EngineRunner
from neuroedge.stores import accounts, knowledge, knowledge_walks, switches
from neuroedge.stores.knowledge import Content, Entity, Facts, FoundRelation, FoundThing, Mention, Relation, Standing
from neuroedge.stores.postgres import Connection, Database
from neuroedge.stores.switches import KNOWLEDGE_EXTRACTION

log = structlog.get_logger(__name__)

EXTRACT_TASK: Final = "extract_knowledge"
EXTRACT_DOCUMENT_TASK: Final = "extract_knowledge_of_document"
BATCH: Final = 16
"""Memories read at a time: what is lost when a job is cut off."""
_PIECE_CHARS: Final = 20_000
"""Longest text the engine takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A thing near another one; `distance` in relations."""

    entity: Entity
    distance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityDetail:
    """A thing with what is known of it; `others` are the things its relations name."""

    entity: Entity
    mentions: list[Mention]
    relations: list[Relation]
    others: dict[UUID, Entity]
    neighbours: list[Neighbour]


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Things from one to another, each said to have to do with the next; empty when there is no such way."""

    entities: list[Entity]
    relations: list[Relation]


class Knowledge:
    """The caller's graph."""

    def __init__(self, *, db: Database, runner: EngineRunner, queue: JobQueue) -> None:
        self._db = db
        self._runner = runner
        self._queue = queue

    async def extract(self, principal: Principal, *, request_id: str) -> Standing:
        """Queue the reading of all memories the caller may see that are not read yet; where it stands now."""
        async with self._db.tenant(principal) as conn:
            found = await knowledge.standing(conn, org_id=principal.org_id, extractor=self._extractor(principal))
            if found.read < found.memories:
                await self._order(conn, EXTRACT_TASK, principal, request_id=request_id)
        return found

    async def changed(self, principal: Principal, *, request_id: str) -> None:
        """Something was remembered or changed: queue its reading where the organisation's switch says so.

        Call it after the change is stored: an order that has not begun yet will read it, and is not given twice.
        """
        try:
            async with self._db.tenant(principal) as conn:
                if not await switches.is_allowed(conn, KNOWLEDGE_EXTRACTION, org_id=principal.org_id):
                    return
            waiting = await self._queue.waiting(EXTRACT_TASK, lock=_lock(principal.org_id))
            if any(args["user_id"] == str(principal.user_id) for args in waiting):
                return
            async with self._db.tenant(principal) as conn:
                await self._order(conn, EXTRACT_TASK, principal, request_id=request_id)
        except NeuroEdgeError as error:  # what was remembered is stored; the next change, or a caller, orders again
            log.warning("knowledge_not_ordered", detail=error.detail)

    async def document_stored(
        self, conn: Connection, principal: Principal, document_id: UUID, *, asked: bool, request_id: str
    ) -> None:
        """In the transaction that stores a document's passages, queue their reading: when its sender `asked` for it,
        or the organisation's switch says so."""
        if asked or await switches.is_allowed(conn, KNOWLEDGE_EXTRACTION, org_id=principal.org_id):
            more = {"document_id": str(document_id)}
            await self._order(conn, EXTRACT_DOCUMENT_TASK, principal, request_id=request_id, more=more)

    async def _order(
        self, conn: Connection, task: str, principal: Principal, *, request_id: str, more: Mapping[str, str] = {}
    ) -> None:
        await self._queue.defer(
            conn,
            task,
            lock=_lock(principal.org_id),
            args={
                "org_id": str(principal.org_id),
                "user_id": str(principal.user_id),
                "request_id": request_id,
                **more,
            },
            queue=TASK_QUEUE,
            priority="low",
        )

    async def standing(self, principal: Principal) -> Standing:
        """How far the reading is."""
        async with self._db.tenant(principal) as conn:
            return await knowledge.standing(conn, org_id=principal.org_id, extractor=self._extractor(principal))

    async def run(self, principal: Principal, *, request_id: str, document_id: UUID | None = None) -> int:
        """Read every memory not read yet, or every passage of one document, batch by batch; how many were."""
        extractor, after, count = self._extractor(principal), None, 0
        while True:
            async with self._db.tenant(principal) as conn:
                ids = await knowledge.unread(
                    conn,
                    org_id=principal.org_id,
                    extractor=extractor,
                    after=after,
                    limit=BATCH,
                    document_id=document_id,
                )
                texts = await knowledge.contents(conn, org_id=principal.org_id, ids=ids)
            if not ids:
                return count
            read = await self._read(texts, principal, request_id=request_id)
            async with self._db.tenant(principal) as conn:
                await knowledge.replace(conn, org_id=principal.org_id, extractor=extractor, read=read)
            after, count = ids[-1], count + len(read)

    async def caller(self, org_id: UUID, user_id: UUID) -> Principal | None:
        """The user a job works for, with the rights of today; None when it is no member that may run engines."""
        probe = Principal(user_id=user_id, org_id=org_id, username="", role="viewer", permissions=frozenset())
        async with self._db.tenant(probe) as conn:
            member = await accounts.member(conn, user_id)
        if member is None or RUN_ENGINES not in ROLE_PERMISSIONS[member.role]:
            return None
        return Principal(
            user_id=user_id,
            org_id=org_id,
            username=member.username,
            role=member.role,
            permissions=ROLE_PERMISSIONS[member.role],
        )

    async def entities(
        self, principal: Principal, *, name: str | None, type_: str | None, limit: int, offset: int
    ) -> list[Entity]:
        """Things, most mentioned first; with `name`, those whose name holds all its words."""
        key = None if name is None else key_of(name)
        if key == "":
            return []
        async with self._db.tenant(principal) as conn:
            return await knowledge.entities(
                conn, org_id=principal.org_id, key=key, type_=type_, limit=limit, offset=offset
            )

    async def entity(
        self, principal: Principal, entity_id: UUID, *, predicate: str | None, depth: int, limit: int
    ) -> EntityDetail:
        """A thing, what is said of it and where, and the things around it. Raises NotFound."""
        org_id = principal.org_id
        async with self._db.tenant(principal) as conn:
            relations = await knowledge.relations_of(
                conn, org_id=org_id, entity=entity_id, predicate=predicate, limit=limit
            )
            near = await knowledge_walks.neighbours(conn, org_id=org_id, start=entity_id, depth=depth, limit=limit)
            ids = {entity_id, *(id_ for id_, _ in near)}
            ids |= {id_ for relation in relations for id_ in (relation.subject_id, relation.object_id)}
            named = await knowledge.by_ids(conn, org_id=org_id, ids=list(ids))
            if entity_id not in named:
                raise NotFound(
                    "no such entity in your organisation's memories", hint="GET /v1/knowledge/entities lists them"
                )
            mentions = await knowledge.mentions(conn, org_id=org_id, entity=entity_id, limit=limit)
        return EntityDetail(
            entity=named[entity_id],
            mentions=mentions,
            relations=relations,
            others={id_: found for id_, found in named.items() if id_ != entity_id},
            neighbours=[Neighbour(entity=named[id_], distance=d) for id_, d in near if id_ in named],
        )

    async def path(self, principal: Principal, *, start: UUID, end: UUID, depth: int) -> Path:
        """The fewest relations that lead from one thing to another. Raises NotFound for an unknown one."""
        org_id = principal.org_id
        async with self._db.tenant(principal) as conn:
            ends = await knowledge.by_ids(conn, org_id=org_id, ids=[start, end])
            if not {start, end} <= set(ends):
                raise NotFound(
                    "no such entity in your organisation's memories", hint="GET /v1/knowledge/entities lists them"
                )
            ids = await knowledge_walks.path(conn, org_id=org_id, start=start, end=end, depth=depth)
            named = await knowledge.by_ids(conn, org_id=org_id, ids=ids)
            pairs = list(pairwise(ids))
            relations = await knowledge.relations_between(conn, org_id=org_id, pairs=pairs, limit=100)
        return Path(entities=[named[id_] for id_ in ids], relations=relations)

    def _extractor(self, principal: Principal) -> str:
        """What would read a text now: another model or version reads again what was read by this one."""
        engine = self._runner.registry.get("knowledge")
        status = self._runner.context(principal, request_id="knowledge").models.status(ENTITIES)
        return f"{engine.version}/{status.id}/{status.fingerprint}"

    async def _read(self, texts: Sequence[Content], principal: Principal, *, request_id: str) -> list[Facts]:
        pieces = [(number, start) for number, text in enumerate(texts) for start in _starts(text.text)]
        if not pieces:
            return [_facts(text, [], Output(entities=[], relations=[], method="")) for text in texts]
        given = Input(texts=[texts[number].text[start : start + _PIECE_CHARS] for number, start in pieces])
        said = await self._runner.run("knowledge", given, principal=principal, request_id=request_id)
        answer = Output.model_validate(said.model_dump())  # a reloaded engine has an Output of its own
        return [
            _facts(text, [(i, start) for i, (of, start) in enumerate(pieces) if of == number], answer)
            for number, text in enumerate(texts)
        ]


def _lock(org_id: UUID) -> str:
    """Readings of one organisation go one after the other."""
    return f"knowledge/{org_id}"


def _starts(text: str) -> range:
    return range(0, len(text), _PIECE_CHARS)


def _facts(text: Content, pieces: Sequence[tuple[int, int]], answer: Output) -> Facts:
    """What the engine found in one memory, given as pieces (index of the engine's text, where it starts)."""
    offsets = dict(pieces)
    things: dict[int, FoundThing] = {}
    for number, entity in enumerate(answer.entities):
        places = [
            (mention.start + offsets[mention.text], mention.end + offsets[mention.text])
            for mention in entity.mentions
            if mention.text in offsets
        ]
        if places:
            surfaces = dict.fromkeys(text.text[start:end] for start, end in places)
            things[number] = FoundThing(
                key=entity.key, name=entity.name, type=entity.type, surfaces=list(surfaces), places=places
            )
    order = {number: position for position, number in enumerate(things)}
    relations = [
        FoundRelation(
            subject=order[relation.subject],
            predicate=relation.predicate,
            object=order[relation.object],
            negated=relation.negated,
            modal=relation.modal,
            reported=relation.reported,
            sentence=relation.evidence.sentence,
            start=relation.evidence.start + offsets[relation.evidence.text],
            end=relation.evidence.end + offsets[relation.evidence.text],
        )
        for relation in answer.relations
        if relation.evidence.text in offsets
    ]
    return Facts(memory_id=text.memory_id, content_mac=text.mac, things=list(things.values()), relations=relations)
