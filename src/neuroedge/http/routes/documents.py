"""/v1/documents: take in, list, read, follow, replace, delete."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from sse_starlette.sse import EventSourceResponse

from neuroedge.contract.ports import Visibility
from neuroedge.http import sse
from neuroedge.http.auth import Reader, RequestId, ThePlatform, Writer
from neuroedge.http.document_schemas import (
    AddedOut,
    BatchOut,
    ChunkPage,
    DocumentOut,
    DocumentPage,
    Tag,
    UrlsIn,
)
from neuroedge.http.form_labels import form_labels
from neuroedge.http.uploads import form_schema, receive, receive_files
from neuroedge.services.documents import MAX_FILES, Labels
from neuroedge.stores.documents import Status

router = APIRouter(prefix="/v1/documents", tags=["documents"])

FIELDS = {
    "title": "Name of the document; its own title or the file's name when not given.",
    "tags": "Labels a search can ask for, separated by commas.",
    "visibility": "private, division or organisation (default).",
    "metadata": "A JSON object to give back with each hit.",
    "extract": "true: also read its passages into the knowledge graph.",
}
SHARED_FIELDS = {name: said for name, said in FIELDS.items() if name != "title"}


@router.post("", status_code=202, summary="Send a document", openapi_extra=form_schema("file", FIELDS))
async def create(
    request: Request, response: Response, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> AddedOut:
    """Read the file at once, and cut, embed and remember it in the background. A file that is known already is
    answered with 200 and `duplicate_of`; sound becomes a recording, which takes no
    visibility, tags or metadata."""
    async with receive(request, file_field="file", fields=tuple(FIELDS), strict=True) as received:
        added = await platform.documents.add(
            received.upload, principal=principal, request_id=request_id, labels=_labels(received.fields)
        )
    if added.duplicate:
        response.status_code = 200
    return AddedOut.of(added)


@router.post(
    "/batch",
    status_code=202,
    summary="Send several documents",
    openapi_extra=form_schema("files", SHARED_FIELDS, several=True),
)
async def create_several(request: Request, principal: Writer, platform: ThePlatform, request_id: RequestId) -> BatchOut:
    """Take in up to 50 files as if each had been sent, with the same labels. The answer tells of each, in order; when
    none could be taken in, it is the first one's error."""
    fields = tuple(SHARED_FIELDS)
    async with receive_files(request, file_field="files", most=MAX_FILES, fields=fields, strict=True) as received:
        added = await platform.documents.add_files(
            received.uploads, principal=principal, request_id=request_id, labels=_labels(received.fields)
        )
    return BatchOut(results=[AddedOut.of(one) for one in added])


@router.post("/urls", status_code=202, summary="Fetch documents by URL")
async def fetch(body: UrlsIn, principal: Writer, platform: ThePlatform, request_id: RequestId) -> BatchOut:
    """Fetch each URL from a host the operator allows and take it in as if it had been sent. The answer tells of each;
    when none could be taken in, it is the first one's error."""
    labels = Labels(tags=body.tags, visibility=body.visibility, metadata=body.metadata, extract=body.extract)
    added = await platform.documents.add_urls(body.urls, principal=principal, request_id=request_id, labels=labels)
    return BatchOut(results=[AddedOut.of(one) for one in added])


@router.get("", summary="List documents")
async def list_documents(
    principal: Reader,
    platform: ThePlatform,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    status: Annotated[Status | None, Query(description="Only these.")] = None,
) -> DocumentPage:
    """Documents the caller may see, newest first."""
    found = await platform.documents.list(principal, limit=limit + 1, before=before, status=status)
    page = found[:limit]
    return DocumentPage(
        documents=[DocumentOut.of(document) for document in page], next=page[-1].id if len(found) > limit else None
    )


@router.get("/{document_id}", summary="Read a document")
async def read(document_id: UUID, principal: Reader, platform: ThePlatform) -> DocumentOut:
    """What the document is and where its processing stands."""
    return DocumentOut.of(await platform.documents.get(principal, document_id))


@router.get("/{document_id}/chunks", summary="Read a document's passages")
async def chunks(
    document_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[int, Query(ge=-1, le=2**31 - 1, description="`next` of the page before.")] = -1,
) -> ChunkPage:
    """Its passages in order; those of the file before while a replacement is processed."""
    found = await platform.documents.chunks(principal, document_id, limit=limit + 1, after=after)
    return ChunkPage.of(found, limit=limit)


@router.put(
    "/{document_id}", status_code=202, summary="Replace a document's file", openapi_extra=form_schema("file", {})
)
async def replace(
    document_id: UUID, request: Request, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> DocumentOut:
    """Take in a changed file: only passages that changed are embedded anew; the old ones are found until then."""
    async with receive(request, file_field="file", strict=True) as received:
        return DocumentOut.of(
            await platform.documents.replace(received.upload, document_id, principal=principal, request_id=request_id)
        )


@router.delete("/{document_id}", status_code=204, summary="Delete a document")
async def delete(document_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> Response:
    """Delete a document with its file and passages."""
    await platform.documents.delete(principal, document_id, request_id=request_id)
    return Response(status_code=204)


@router.get("/{document_id}/events", summary="Follow a document's progress (SSE)", response_class=EventSourceResponse)
async def events(
    document_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    request: Request,
    last_event_id: sse.LastEventId = None,
) -> EventSourceResponse:
    """Server-sent events: `queued`, `progress`, then `done` or `failed`; earlier ones are sent first."""
    followed = await platform.document_progress.follow(principal, document_id, after=last_event_id)
    return sse.answer(followed, request)


class _Fields(BaseModel):
    title: str | None = Field(default=None, max_length=200)
    tags: list[Tag] = Field(default_factory=list, max_length=50)
    visibility: Visibility = "organisation"
    metadata: dict[str, Any] = Field(default_factory=dict)
    extract: bool = False


def _labels(fields: dict[str, str]) -> Labels:
    """Raises InvalidInput with the fields that are wrong."""
    return Labels(**dict(form_labels(_Fields, fields)))
