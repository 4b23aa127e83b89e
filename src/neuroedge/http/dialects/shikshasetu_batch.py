"""ShikshaSetu's bulk route over the canonical bulk jobs (/v1/batches)."""

from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.http.auth import Reader, RequestId, Runner, ThePlatform, Writer
from neuroedge.http.dialects.shikshasetu import ShikshaRoute
from neuroedge.http.json_lines import JsonLines
from neuroedge.services.batches import MAX_ITEMS
from neuroedge.stores.batches import Batch, NewItem

router = APIRouter(prefix="/api/v2/batch", tags=["ShikshaSetu dialect"], route_class=ShikshaRoute)
_ENGINES: Final = {"simplify": "simplification", "translate": "translation", "speech": "synthesis"}


class ShikshaBatchIn(BaseModel):
    """Many calls of one operation."""

    model_config = ConfigDict(extra="forbid")

    operation: str = Field(
        min_length=1, max_length=200, description="simplify, translate, speech, or the name of any engine."
    )
    items: list[dict[str, Any]] = Field(
        min_length=1, max_length=MAX_ITEMS, description="Inputs of the operation's engine (simplification, …)."
    )


class ShikshaBatchOut(BaseModel):
    """A bulk job and how far it is."""

    batch_id: UUID
    status: str = Field(description="queued, running, done, cancelled or failed.")
    total: int
    completed: int = Field(description="Items with a result.")
    failed: int = Field(description="Items with an error.")
    progress: float = Field(description="Share of the items that have an outcome, 0 to 1.")
    request_id: str


@router.post("", status_code=202, summary="Run an operation on many inputs")
async def submit(
    body: ShikshaBatchIn, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> ShikshaBatchOut:
    """Keep the inputs and answer at once; each has an outcome of its own."""
    engine = _ENGINES.get(body.operation, body.operation)
    batch = await platform.batches.submit(
        [NewItem(name=None, engine=engine, payload=payload) for payload in body.items],
        priority="normal",
        principal=principal,
        request_id=request_id,
    )
    return _told(batch, request_id)


@router.get("/{batch_id}", summary="Read a bulk job")
async def read(batch_id: UUID, principal: Reader, platform: ThePlatform, request_id: RequestId) -> ShikshaBatchOut:
    """How far it is."""
    return _told(await platform.batches.get(principal, batch_id), request_id)


@router.get(
    "/{batch_id}/results",
    status_code=200,
    summary="Download a bulk job's outcomes",
    response_class=JsonLines,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
async def results(batch_id: UUID, principal: Reader, platform: ThePlatform) -> JsonLines:
    """JSON Lines: {position, id, engine, state, result | error} of each item that has an outcome by now."""
    await platform.batches.get(principal, batch_id)
    return await JsonLines.of(platform.batches.outcomes(principal, batch_id))


@router.post("/{batch_id}/cancel", summary="Cancel a bulk job")
async def cancel(batch_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> ShikshaBatchOut:
    """End it; outcomes it has by now stay."""
    return _told(await platform.batches.cancel(principal, batch_id, request_id=request_id), request_id)


def _told(batch: Batch, request_id: str) -> ShikshaBatchOut:
    return ShikshaBatchOut(
        batch_id=batch.id,
        status=batch.state,
        total=batch.total,
        completed=batch.succeeded,
        failed=batch.failed,
        progress=round((batch.succeeded + batch.failed) / batch.total, 4),
        request_id=request_id,
    )
