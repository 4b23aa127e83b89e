"""/v1/memories: remember, read, change, delete, list, count, merge, import, export; /v1/search finds them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.contract.principal import Principal
from neuroedge.engines.knowledge import search as search_engine
from neuroedge.http.auth import Reader, RequestId, Runner, ThePlatform, Writer, platform_of
from neuroedge.http.json_lines import JsonLines
from neuroedge.http.memory_schemas import (
    ImportEnd,
    LineOut,
    ListQuery,
    MemoryOut,
    MemoryPage,
    MemoryStatistics,
    MergeIn,
    MergeOut,
    Selection,
    Timeline,
    TimelineQuery,
    periods,
    place,
)
from neuroedge.http.schemas import Failure
from neuroedge.http.uploads import form_schema, receive
from neuroedge.services.memory_drafts import MemoryChanges, MemoryDraft

router = APIRouter(tags=["memories"])
_LINES: dict[int | str, dict[str, Any]] = {200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}}


class QueryIn(search_engine.Input):
    """A question and what to restrict it to."""


class SearchOut(search_engine.Output):
    """The best hits, best first."""


@router.post("/v1/search", summary="Search what is remembered", response_model=SearchOut)
async def search(body: QueryIn, principal: Runner, platform: ThePlatform, request_id: RequestId) -> Response:
    """By meaning and by words, fused, on request put in order by a reranker; the engine `search`."""
    answer = await platform.runner.run(
        "search", body.model_dump(exclude_unset=True), principal=principal, request_id=request_id
    )
    return Response(answer.model_dump_json(), media_type="application/json")


@router.post("/v1/memories", status_code=201, summary="Remember a text")
async def create(
    body: MemoryDraft, response: Response, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> MemoryOut:
    """Embed and keep a text; it can be found at once."""
    memory = await platform.memories.create(principal, body, request_id=request_id)
    response.headers["Location"] = f"/v1/memories/{memory.id}"
    return MemoryOut.model_validate(memory)


@router.get("/v1/memories", summary="List memories")
async def list_memories(principal: Reader, platform: ThePlatform, asked: Annotated[ListQuery, Query()]) -> MemoryPage:
    """The memories the caller may see, the latest first by the time of what they tell."""
    found = await platform.memories.page(
        principal, limit=asked.limit + 1, before=place(asked.before) if asked.before else None, where=asked.filter()
    )
    return MemoryPage.of(found, limit=asked.limit)


@router.get("/v1/memories/timeline", summary="Count memories by day or month")
async def timeline(principal: Reader, platform: ThePlatform, asked: Annotated[TimelineQuery, Query()]) -> Timeline:
    """How many happened when."""
    counted = await platform.memories.timeline(principal, unit=asked.unit, limit=asked.limit, where=asked.filter())
    return Timeline(unit=asked.unit, periods=periods(counted))


@router.get("/v1/memories/statistics", summary="Count memories by kind")
async def statistics(principal: Reader, platform: ThePlatform) -> MemoryStatistics:
    """Types, tags, visibility, size, months, and which embedding models know how many."""
    return MemoryStatistics.of(*await platform.memories.statistics(principal))


@router.post("/v1/memories/merge", summary="Merge memories that say the same")
async def merge(body: MergeIn, principal: Writer, platform: ThePlatform, request_id: RequestId) -> MergeOut:
    """Check a page of memories, the oldest first, and merge younger ones that say the same into them. What may be
    merged is the caller's own; for who manages the organisation, all they see. Passages of documents and recordings
    are left alone."""
    done = await platform.memory_merge.run(
        principal,
        threshold=body.threshold,
        dry_run=body.dry_run,
        limit=body.limit,
        after=body.begin(),
        request_id=request_id,
    )
    return MergeOut.of(done, dry_run=body.dry_run)


@router.post(
    "/v1/memories/import",
    status_code=200,
    summary="Import memories (JSON lines)",
    openapi_extra=form_schema("file", {}),
    response_class=JsonLines,
    responses=_LINES,
)
async def import_lines(request: Request, principal: Writer, platform: ThePlatform, request_id: RequestId) -> JsonLines:
    """Remember each line of the file, an object like the body of POST /v1/memories, with an `external_id` if it shall
    not be remembered twice. The answer has a line for each (`created`, `exists` or `failed` with its error) and last
    the counts; when no line could be taken in, it is the first one's error."""
    return await JsonLines.of(_imported(request, principal, request_id))


async def _imported(request: Request, principal: Principal, request_id: str) -> AsyncGenerator[bytes, None]:
    end = ImportEnd()
    async with receive(request, file_field="file") as received:
        results = platform_of(request).memory_transfer.import_lines(
            principal, received.upload.path, request_id=request_id
        )
        async with aclosing(results):
            try:
                async for result in results:
                    setattr(end, result.status, getattr(end, result.status) + 1)
                    yield LineOut.of(result).model_dump_json(exclude_none=True).encode() + b"\n"
            except NeuroEdgeError as error:
                if not end.created + end.exists + end.failed:
                    raise  # nothing was sent yet: it can be the answer
                end.error = Failure(code=error.code, detail=error.detail, hint=error.hint)
    yield end.model_dump_json(exclude_none=True).encode() + b"\n"


@router.get(
    "/v1/memories/export",
    status_code=200,
    summary="Export memories (JSON lines)",
    response_class=JsonLines,
    responses=_LINES,
)
async def export(
    principal: Reader, platform: ThePlatform, request_id: RequestId, asked: Annotated[Selection, Query()]
) -> JsonLines:
    """Every memory the caller may see, one a line, the latest first; the file can be imported again."""
    lines = platform.memory_transfer.export(principal, where=asked.filter(), request_id=request_id)
    return await JsonLines.of(lines)


@router.get("/v1/memories/{memory_id}", summary="Read a memory")
async def read(memory_id: UUID, principal: Reader, platform: ThePlatform) -> MemoryOut:
    """One memory."""
    return MemoryOut.model_validate(await platform.memories.get(principal, memory_id))


@router.patch("/v1/memories/{memory_id}", summary="Change a memory")
async def update(
    memory_id: UUID, body: MemoryChanges, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> MemoryOut:
    """Change what is given; another content is embedded anew. For its owner and who manages the organisation."""
    return MemoryOut.model_validate(await platform.memories.update(principal, memory_id, body, request_id=request_id))


@router.delete("/v1/memories/{memory_id}", status_code=204, summary="Delete a memory")
async def delete(memory_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> Response:
    """Forget a memory. For its owner and who manages the organisation."""
    await platform.memories.delete(principal, memory_id, request_id=request_id)
    return Response(status_code=204)
