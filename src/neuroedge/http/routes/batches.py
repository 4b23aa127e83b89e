"""/v1/batches: many engine calls in one order: submit, list, follow, read, download, cancel, run anew, delete."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sse_starlette.sse import EventSourceResponse

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.models import Priority
from neuroedge.http import sse
from neuroedge.http.auth import Reader, RequestId, Runner, ThePlatform, Writer
from neuroedge.http.json_lines import JsonLines
from neuroedge.http.routes.tasks import IdempotencyKey
from neuroedge.services.batches import MAX_ITEMS, told
from neuroedge.stores.batches import ItemState, NewItem, State

router = APIRouter(prefix="/v1/batches", tags=["batches"])


class EngineBatchItemIn(BaseModel):
    """One call of a batch."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = Field(
        default=None, min_length=1, max_length=200, description="Your own name for it, unique in the batch."
    )
    engine: str | None = Field(default=None, max_length=200, description="Name of the engine; the batch's if not set.")
    payload: dict[str, Any] = Field(description="The engine's input, at most 1 MiB of JSON.")


class EngineBatchIn(BaseModel):
    """Engine calls to run in the background."""

    model_config = ConfigDict(extra="forbid")

    engine: str | None = Field(
        default=None, max_length=200, description="Engine of the items that name none.", examples=["simplification"]
    )
    items: list[EngineBatchItemIn] = Field(min_length=1, max_length=MAX_ITEMS, description="The calls.")
    priority: Priority = Field(default="normal", description="Who goes first when several jobs wait.")


class EngineBatchOut(BaseModel):
    """A batch and how far it is."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    state: State = Field(
        description="done: every item has its outcome, whichever; failed: the user who ordered it is gone."
    )
    priority: Priority
    total: int = Field(description="Items ordered.")
    succeeded: int = Field(description="Items with a result.")
    failed: int = Field(description="Items with an error.")
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class EngineBatchPage(BaseModel):
    """Batches, newest first."""

    batches: list[EngineBatchOut]
    next: UUID | None = Field(default=None, description="Give it as `before` to get the next page.")


class EngineBatchItemOut(BaseModel):
    """One call of a batch and what came of it."""

    position: int = Field(description="Place in the order, from 0.")
    id: str | None = Field(description="The name it was given.")
    engine: str
    state: str = Field(description="waiting, succeeded or failed.")
    result: dict[str, Any] | None = Field(default=None, description="The engine's output.")
    error: dict[str, Any] | None = Field(
        default=None, description="code, detail, hint; of a payload that is wrong also `errors` with the fields."
    )


class EngineBatchItemPage(BaseModel):
    """Items in the order they were given."""

    items: list[EngineBatchItemOut]
    next: int | None = Field(default=None, description="Give it as `after` to get the next page.")


@router.post("", status_code=202, summary="Run many engine calls in the background")
async def submit(
    body: EngineBatchIn,
    response: Response,
    principal: Runner,
    platform: ThePlatform,
    request_id: RequestId,
    idempotency_key: IdempotencyKey = None,
) -> EngineBatchOut:
    """Keep the calls and run them as workers are free; each has an outcome of its own, and a crash loses none."""
    batch = await platform.batches.submit(
        [
            NewItem(name=item.id, engine=_engine(body, place), payload=item.payload)
            for place, item in enumerate(body.items)
        ],
        priority=body.priority,
        principal=principal,
        request_id=request_id,
        idempotency_key=idempotency_key,
    )
    response.headers["Location"] = f"/v1/batches/{batch.id}"
    return EngineBatchOut.model_validate(batch)


@router.get("", summary="List batches")
async def list_batches(
    principal: Reader,
    platform: ThePlatform,
    state: Annotated[State | None, Query(description="Only those in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
) -> EngineBatchPage:
    """The organisation's batches, newest first."""
    found = await platform.batches.recent(principal, limit=limit + 1, before=before, state=state)
    page = [EngineBatchOut.model_validate(batch) for batch in found[:limit]]
    return EngineBatchPage(batches=page, next=page[-1].id if len(found) > limit else None)


@router.get("/{batch_id}", summary="Read a batch")
async def read(batch_id: UUID, principal: Reader, platform: ThePlatform) -> EngineBatchOut:
    """How many items have which outcome."""
    return EngineBatchOut.model_validate(await platform.batches.get(principal, batch_id))


@router.get("/{batch_id}/items", summary="List a batch's items")
async def items(
    batch_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    state: Annotated[ItemState | None, Query(description="Only those with this outcome.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    after: Annotated[int, Query(ge=-1, le=MAX_ITEMS, description="`next` of the page before.")] = -1,
) -> EngineBatchItemPage:
    """Items with their outcomes so far, in the order they were given."""
    found = await platform.batches.items(principal, batch_id, after=after, limit=limit + 1, state=state)
    page = found[:limit]
    return EngineBatchItemPage(
        items=[EngineBatchItemOut(**told(item)) for item in page],
        next=page[-1].position if len(found) > limit else None,
    )


@router.get(
    "/{batch_id}/results",
    status_code=200,
    summary="Download a batch's outcomes",
    response_class=JsonLines,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
async def results(
    batch_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    state: Annotated[ItemState | None, Query(description="Only those with this outcome.")] = None,
) -> JsonLines:
    """JSON Lines: {position, id, engine, state, result | error} of each item that has an outcome by now."""
    await platform.batches.get(principal, batch_id)
    return await JsonLines.of(platform.batches.outcomes(principal, batch_id, state=state))


@router.post("/{batch_id}/cancel", summary="Cancel a batch")
async def cancel(batch_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> EngineBatchOut:
    """End a batch that waits or runs; outcomes it has by now stay."""
    return EngineBatchOut.model_validate(await platform.batches.cancel(principal, batch_id, request_id=request_id))


@router.post("/{batch_id}/retry", status_code=202, summary="Run a batch's failed items anew")
async def retry(batch_id: UUID, principal: Runner, platform: ThePlatform, request_id: RequestId) -> EngineBatchOut:
    """Queue the items that failed, or that a cancellation left; results that are there stay."""
    return EngineBatchOut.model_validate(await platform.batches.retry(principal, batch_id, request_id=request_id))


@router.delete("/{batch_id}", status_code=204, summary="Delete a batch")
async def delete(batch_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> Response:
    """Delete a finished batch with its items."""
    await platform.batches.delete(principal, batch_id, request_id=request_id)
    return Response(status_code=204)


@router.get("/{batch_id}/events", summary="Follow a batch's progress (SSE)", response_class=EventSourceResponse)
async def events(
    batch_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    request: Request,
    last_event_id: sse.LastEventId = None,
) -> EventSourceResponse:
    """Server-sent events: `queued`, `started`, `progress`, then `done`, `cancelled`, `failed` or `deleted`."""
    followed = await platform.batch_progress.follow(principal, batch_id, after=last_event_id)
    return sse.answer(followed, request)


def _engine(body: EngineBatchIn, place: int) -> str:
    engine = body.items[place].engine or body.engine
    if engine is None:
        raise InvalidInput(
            f"item {place} names no engine",
            hint="name one in the item, or one for the whole batch",
            errors=[{"loc": ("body", "items", place, "engine"), "msg": "Field required", "type": "missing"}],
        )
    return engine
