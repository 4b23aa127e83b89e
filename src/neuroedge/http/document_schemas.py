"""Documents as the canonical API shows them."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.ports import Memory, Visibility
from neuroedge.http.schemas import Failure
from neuroedge.services.documents import MAX_URLS, Added
from neuroedge.stores.documents import Document

Tag = Annotated[str, Field(min_length=1, max_length=100)]


class DocumentOut(BaseModel):
    """A document and where its processing stands."""

    id: UUID
    title: str
    filename: str
    source: str | None = Field(default=None, description="The URL it was fetched from.")
    media_type: str = Field(description="What the file is by its bytes.")
    bytes: int
    pages: int | None = None
    unread_pages: list[int] = Field(description="Pages without text: empty, or scans that no OCR engine read.")
    chunks: int | None = Field(default=None, description="Passages it was cut into; known when it is done.")
    tags: list[str]
    metadata: dict[str, Any]
    visibility: Visibility
    extract: bool = Field(description="Whether its passages are read into the knowledge graph, as its sender asked.")
    version: int = Field(description="Counts the files it had, from 1.")
    status: Literal["queued", "running", "done", "failed"]
    error: Failure | None = None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None

    @classmethod
    def of(cls, document: Document) -> "DocumentOut":
        """From the stored row."""
        said = document.described
        error = None
        if document.error_code:
            error = Failure(code=document.error_code, detail=document.error_detail or "", hint=document.error_hint)
        return cls(
            id=document.id,
            title=said.title,
            filename=said.filename,
            source=said.source,
            media_type=document.media_type,
            bytes=document.bytes,
            pages=document.pages,
            unread_pages=list(said.unread_pages),
            chunks=document.chunks,
            tags=list(said.tags),
            metadata=said.metadata,
            visibility=document.visibility,
            extract=said.extract,
            version=document.version,
            status=document.status,
            error=error,
            created_at=document.created_at,
            updated_at=document.updated_at,
            finished_at=document.finished_at,
        )


class AddedOut(BaseModel):
    """What became of a file: `document`, or `recording_id` for sound, or `error`."""

    source: str = Field(description="The file's name, or its URL.")
    document: DocumentOut | None = None
    duplicate_of: UUID | None = Field(default=None, description="The document that has this very file already.")
    recording_id: UUID | None = Field(default=None, description="Sound is a recording: GET /v1/recordings/{id}.")
    error: Failure | None = None

    @classmethod
    def of(cls, added: Added) -> "AddedOut":
        """From what the service returns."""
        error = added.error
        return cls(
            source=added.source,
            document=DocumentOut.of(added.document) if added.document else None,
            duplicate_of=added.document.id if added.document and added.duplicate else None,
            recording_id=added.recording_id,
            error=Failure(code=error.code, detail=error.detail, hint=error.hint) if error else None,
        )


class UrlsIn(BaseModel):
    """URLs to fetch."""

    model_config = ConfigDict(extra="forbid")

    urls: list[Annotated[str, Field(min_length=1, max_length=4000)]] = Field(min_length=1, max_length=MAX_URLS)
    tags: list[Tag] = Field(default_factory=list, max_length=50)
    visibility: Visibility = "organisation"
    metadata: dict[str, Any] = Field(default_factory=dict)
    extract: bool = Field(default=False, description="Also read their passages into the knowledge graph.")


class BatchOut(BaseModel):
    """What became of each, in the order given."""

    results: list[AddedOut]


class DocumentPage(BaseModel):
    """Documents, newest first."""

    documents: list[DocumentOut]
    next: UUID | None = Field(default=None, description="Give it as `before` to get the next page.")


class ChunkOut(BaseModel):
    """A passage of a document, which is a memory too."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(description="Of the memory.")
    position: int
    title: str | None
    content: str
    metadata: dict[str, Any] = Field(
        description="heading_path, first_page, last_page; `suspicious` names signs of prompt injection."
    )


class ChunkPage(BaseModel):
    """Passages in the order of the document."""

    chunks: list[ChunkOut]
    next: int | None = Field(default=None, description="Give it as `after` to get the next page.")

    @classmethod
    def of(cls, found: list[Memory], *, limit: int) -> "ChunkPage":
        """From one memory more than the page holds."""
        page = [ChunkOut.model_validate(memory) for memory in found[:limit]]
        return cls(chunks=page, next=page[-1].position if len(found) > limit else None)
