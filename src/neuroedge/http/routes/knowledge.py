"""/v1/knowledge: the things memories name, what they say of them, and the ways between them."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.engines.knowledge.knowledge import EntityType
from neuroedge.http.auth import Reader, RequestId, Runner, ThePlatform
from neuroedge.services.knowledge import EntityDetail, Path
from neuroedge.stores.knowledge import Entity, Relation

router = APIRouter(prefix="/v1/knowledge", tags=["knowledge"])


class GraphStanding(BaseModel):
    """How far the memories you may see have been read into the graph, and what was found in them."""

    model_config = ConfigDict(from_attributes=True)

    memories: int = Field(description="Memories you may see.")
    read: int = Field(description="Those read as they are now, by the present model.")
    entities: int
    relations: int


class GraphEntity(BaseModel):
    """A named thing."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    type: str = Field(description="person, organisation, place, group, product, event, work or language.")
    memories: int = Field(description="Memories you may see that mention it.")


class GraphEntities(BaseModel):
    """Named things, the most mentioned first."""

    entities: list[GraphEntity]


class GraphMention(BaseModel):
    """A memory that mentions a thing."""

    model_config = ConfigDict(from_attributes=True)

    memory_id: UUID
    surfaces: list[str] = Field(description="Its spellings there.")
    places: list[tuple[int, int]] = Field(description="Characters of the memory's content.")


class GraphEvidence(BaseModel):
    """The sentence a relation was read from."""

    memory_id: UUID
    sentence: str
    start: int = Field(description="First character in the memory's content.")
    end: int = Field(description="Character after the last one.")


class GraphRelation(BaseModel):
    """What a memory says of two things."""

    id: UUID
    subject: GraphEntity
    predicate: str = Field(description="In base form: 'be born in', 'give lesson to'.")
    object: GraphEntity
    negated: bool = Field(description="The sentence denies it.")
    modal: str | None = Field(description="The word that makes it possible only: may, could, if …")
    reported: bool = Field(description="The sentence gives it as what somebody says or believes.")
    evidence: GraphEvidence


class GraphNeighbour(GraphEntity):
    """A thing near another one."""

    distance: int = Field(description="Relations between the two.")


class GraphEntityDetail(GraphEntity):
    """A named thing with what is known of it."""

    mentions: list[GraphMention] = Field(description="Newest memories first.")
    relations: list[GraphRelation] = Field(description="As subject or object, newest memories first.")
    neighbours: list[GraphNeighbour] = Field(description="Nearest first.")


class GraphPath(BaseModel):
    """The shortest way between two things; empty when there is none within the depth."""

    entities: list[GraphEntity] = Field(description="From the first to the last.")
    relations: list[GraphRelation] = Field(description="What is said of each with the next.")


Limit = Annotated[int, Query(ge=1, le=200)]


@router.get("", summary="State of the knowledge graph")
async def standing(principal: Reader, platform: ThePlatform) -> GraphStanding:
    """How far the memories have been read: `read` of `memories`."""
    return GraphStanding.model_validate(await platform.knowledge.standing(principal))


@router.post("/extract", status_code=202, summary="Read memories into the graph")
async def extract(principal: Runner, platform: ThePlatform, request_id: RequestId) -> GraphStanding:
    """Read, in the background, all memories you may see that are new or changed; GET /v1/knowledge tells how far."""
    return GraphStanding.model_validate(await platform.knowledge.extract(principal, request_id=request_id))


@router.get("/entities", summary="List named things")
async def list_entities(
    principal: Reader,
    platform: ThePlatform,
    name: Annotated[str | None, Query(max_length=200, description="Words its name must hold.")] = None,
    type: Annotated[EntityType | None, Query(description="Only things of this type.")] = None,
    limit: Limit = 50,
    offset: Annotated[int, Query(ge=0, le=100_000)] = 0,
) -> GraphEntities:
    """Things named in memories you may see, the most mentioned first."""
    found = await platform.knowledge.entities(principal, name=name, type_=type, limit=limit, offset=offset)
    return GraphEntities(entities=[GraphEntity.model_validate(entity) for entity in found])


@router.get("/path", summary="Shortest way between two things")
async def path(
    principal: Reader,
    platform: ThePlatform,
    start: Annotated[UUID, Query(alias="from", description="Id of a thing.")],
    end: Annotated[UUID, Query(alias="to", description="Id of another.")],
    depth: Annotated[int, Query(ge=1, le=6, description="Most relations between them.")] = 4,
) -> GraphPath:
    """Things from one to the other, and the sentences that connect each with the next."""
    return _path(await platform.knowledge.path(principal, start=start, end=end, depth=depth))


@router.get("/entities/{entity_id}", summary="Read a named thing")
async def read(
    entity_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    predicate: Annotated[str | None, Query(max_length=200, description="Only relations of this predicate.")] = None,
    depth: Annotated[int, Query(ge=1, le=4, description="How far neighbours may be.")] = 1,
    limit: Limit = 50,
) -> GraphEntityDetail:
    """A thing with its mentions, its relations with their evidence, and the things around it."""
    return _detail(await platform.knowledge.entity(principal, entity_id, predicate=predicate, depth=depth, limit=limit))


def _detail(detail: EntityDetail) -> GraphEntityDetail:
    named = {detail.entity.id: detail.entity, **detail.others}
    return GraphEntityDetail(
        **_fields(detail.entity),
        mentions=[GraphMention.model_validate(mention) for mention in detail.mentions],
        relations=_relations(detail.relations, named),
        neighbours=[GraphNeighbour(**_fields(near.entity), distance=near.distance) for near in detail.neighbours],
    )


def _path(path: Path) -> GraphPath:
    named = {entity.id: entity for entity in path.entities}
    return GraphPath(
        entities=[GraphEntity.model_validate(entity) for entity in path.entities],
        relations=_relations(path.relations, named),
    )


def _relations(relations: list[Relation], named: dict[UUID, Entity]) -> list[GraphRelation]:
    return [
        GraphRelation(
            id=relation.id,
            subject=GraphEntity.model_validate(named[relation.subject_id]),
            predicate=relation.predicate,
            object=GraphEntity.model_validate(named[relation.object_id]),
            negated=relation.negated,
            modal=relation.modal,
            reported=relation.reported,
            evidence=GraphEvidence(
                memory_id=relation.memory_id, sentence=relation.sentence, start=relation.start, end=relation.end
            ),
        )
        for relation in relations
        if relation.subject_id in named and relation.object_id in named
    ]


def _fields(entity: Entity) -> dict[str, Any]:
    return {"id": entity.id, "name": entity.name, "type": entity.type, "memories": entity.memories}
