"""/v1/admin/index and /v1/index: the index of memories, and the model they are embedded with."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.principal import MANAGE_ORG, Principal
from neuroedge.http.auth import Operator, Reader, RequestId, Requires, ThePlatform
from neuroedge.stores.indexes import Kind

router = APIRouter(tags=["index"])
Manager = Annotated[Principal, Depends(Requires(MANAGE_ORG))]


class IndexOrder(BaseModel):
    """What to build."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind = Field(
        description="hnsw: the default; hnsw_binary: one bit a dimension first, then exact order: a smaller index for"
        " large installations; ivfflat: built fast, less exact. The present kind is built anew."
    )


class IndexStanding(BaseModel):
    """Which kind answers, and what is being built."""

    model_config = ConfigDict(from_attributes=True)

    kind: Kind | None = Field(description="Kind that answers; null: none is complete, rows are compared one by one.")
    building: Kind | None = Field(description="Kind that is being built, or was when a build was cut off.")
    done: int = Field(description="Partitions whose index is complete.")
    total: int = Field(description="Partitions.")


@router.get("/v1/admin/index", summary="Kind of the index")
async def index_standing(principal: Operator, platform: ThePlatform) -> IndexStanding:
    """Which kind of index all organisations' memories are searched by, and how far a change is."""
    return IndexStanding.model_validate(await platform.memory_index.standing())


@router.post("/v1/admin/index", status_code=202, summary="Change or rebuild the index")
async def build_index(order: IndexOrder, principal: Operator, platform: ThePlatform) -> IndexStanding:
    """Build the index in the background while searches and writes go on; then the old one is dropped."""
    return IndexStanding.model_validate(await platform.memory_index.order(order.kind))


class RebuildOrder(BaseModel):
    """What to rebuild with."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Catalogue id of the embedding model to search with from then on. Without one, words are weighed"
        " anew by today's average length, and what has no vector is embedded.",
    )


class RebuildOut(BaseModel):
    """A rebuild of what the organisation's memories are found by."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    model: str = Field(description="Catalogue id of the embedding model.")
    state: Literal["running", "done", "failed"]
    stage: str = Field(description="weighing, embedding or switching.")
    done: int = Field(description="Memories that are through this stage.")
    total: int = Field(description="Memories of the organisation.")
    error: str | None = Field(description="Why it failed.")
    requested_at: datetime
    finished_at: datetime | None


class OrganisationIndex(BaseModel):
    """What the organisation's memories are found by."""

    embedding_model: str | None = Field(description="Model they are searched with; null: the platform's default.")
    rebuild: RebuildOut | None = Field(description="The last rebuild; null: there was none.")


@router.get("/v1/index", summary="Model of the index")
async def organisation_index(principal: Reader, platform: ThePlatform) -> OrganisationIndex:
    """Which model your organisation's memories are searched with, and how far a rebuild is."""
    model, rebuild = await platform.reembedding.standing(principal)
    return OrganisationIndex(
        embedding_model=model, rebuild=None if rebuild is None else RebuildOut.model_validate(rebuild)
    )


@router.post("/v1/index/rebuild", status_code=202, summary="Rebuild the index")
async def rebuild_index(
    order: RebuildOrder, principal: Manager, platform: ThePlatform, request_id: RequestId
) -> RebuildOut:
    """Embed all memories of your organisation anew, in the background; searches answer from the old vectors until
    all have new ones. GET /v1/index tells how far it is."""
    return RebuildOut.model_validate(
        await platform.reembedding.order(principal, model=order.model, request_id=request_id)
    )
