"""Memories as the canonical API shows and asks for them."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.ports import Memory, MemoryFilter, Visibility
from neuroedge.http.schemas import Failure
from neuroedge.services.memory_drafts import Source, Tag, Time, Type
from neuroedge.services.memory_merge import Group, Pass
from neuroedge.services.memory_transfer import LineResult
from neuroedge.stores.memory_lists import Counts, Place, Unit

CURSOR: Final = re.compile(r"(-?\d{1,18})_([0-9a-f]{32})")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
Scalar = str | int | float | bool


def cursor(at: datetime, memory_id: UUID) -> str:
    """Where a page ended: microseconds since 1970 and the last row."""
    return f"{(at - _EPOCH) // _MICROSECOND}_{memory_id.hex}"


def place(text: str) -> tuple[datetime, UUID]:
    """Time and row of a cursor. Raises ValueError."""
    found = CURSOR.fullmatch(text)
    try:
        if found is not None:
            return _EPOCH + int(found[1]) * _MICROSECOND, UUID(found[2])
    except OverflowError:
        pass  # a time no calendar has
    raise ValueError("give `next` of the page before")


def _cursor(text: str) -> str:
    place(text)
    return text


Cursor = Annotated[str, AfterValidator(_cursor)]


class MemoryOut(BaseModel):
    """A memory."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    user_id: UUID = Field(description="Who remembered it.")
    content: str
    title: str | None
    tags: list[str]
    keywords: list[str] = Field(description="Of the content, the best first.")
    memory_type: str
    metadata: dict[str, Any]
    source: str | None
    recording_id: UUID | None = Field(description="Recording it was said in.")
    document_id: UUID | None = Field(description="Document it stands in.")
    position: int | None = Field(description="Its place in the document, from 0.")
    visibility: Visibility
    importance: float
    occurred_at: datetime
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


class MemoryPage(BaseModel):
    """Memories, the latest first by the time of what they tell."""

    memories: list[MemoryOut]
    next: str | None = Field(default=None, description="Give it as `before` to get the next page.")

    @classmethod
    def of(cls, found: list[Memory], *, limit: int) -> "MemoryPage":
        """From one memory more than the page holds."""
        page = found[:limit]
        last = page[-1] if len(found) > limit else None
        return cls(
            memories=[MemoryOut.model_validate(memory) for memory in page],
            next=cursor(last.occurred_at, last.id) if last else None,
        )


class Selection(BaseModel):
    """Which memories; what is not given restricts nothing."""

    model_config = ConfigDict(extra="forbid")

    memory_type: Type | None = Field(default=None, description="Only this type.")
    tags: list[Tag] = Field(default_factory=list, max_length=50, description="Only with all of these tags.")
    metadata: str | None = Field(
        default=None, max_length=4000, description='Only with these scalars: a JSON object, {"speaker": "Ann"}.'
    )
    speaker: str | None = Field(default=None, max_length=200, description="Only what this speaker said.")
    source: Source | None = Field(default=None, description="Only what comes from here.")
    recording_id: UUID | None = None
    document_id: UUID | None = None
    user_id: UUID | None = Field(default=None, description="Only what this user remembered.")
    since: Time | None = Field(default=None, description="Only what happened at this time or later.")
    until: Time | None = Field(default=None, description="Only what happened before this time.")

    @model_validator(mode="after")
    def _scalars(self) -> "Selection":
        self._metadata()
        return self

    def filter(self) -> MemoryFilter:
        """As the stores take it."""
        return MemoryFilter(
            recording_id=self.recording_id,
            document_id=self.document_id,
            memory_type=self.memory_type,
            tags=self.tags or None,
            metadata=self._metadata() or None,
            source=self.source,
            user_id=self.user_id,
            since=self.since,
            until=self.until,
        )

    def _metadata(self) -> dict[str, Scalar]:
        try:
            asked = json.loads(self.metadata) if self.metadata else {}
            json.dumps(asked, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except (ValueError, RecursionError) as error:
            raise ValueError("metadata is no JSON object") from error
        if not isinstance(asked, dict) or not all(isinstance(value, Scalar) for value in asked.values()):
            raise ValueError("metadata is no JSON object of texts, numbers and booleans")
        return asked | ({"speaker": self.speaker} if self.speaker is not None else {})


class ListQuery(Selection):
    """A page of memories."""

    limit: int = Field(default=50, ge=1, le=200)
    before: Cursor | None = Field(default=None, description="`next` of the page before.")


class TimelineQuery(Selection):
    """Counts by time."""

    unit: Unit = "month"
    limit: int = Field(default=366, ge=1, le=5000, description="Days or months, the latest.")


class Period(BaseModel):
    """A day or month in UTC."""

    begin: datetime
    memories: int


class Timeline(BaseModel):
    """Days or months that have any memory, the latest first."""

    unit: Unit
    periods: list[Period]


class MemoryStatistics(BaseModel):
    """What there is, of what the caller may see."""

    memories: int
    sealed_bytes: int = Field(description="Encrypted size of titles, contents, labels and metadata.")
    oldest: datetime | None = Field(description="Of what they tell.")
    newest: datetime | None
    expiring: int = Field(description="How many have a time at which they are forgotten.")
    by_type: dict[str, int]
    by_visibility: dict[str, int]
    by_month: list[Period] = Field(description="The latest 120 months that have any.")
    by_model: dict[str, int] = Field(description="How many have a vector of each embedding model.")
    embedding_model: str | None = Field(description="Model they are searched with; null: the platform's default.")
    tags: dict[str, int] = Field(description="The 100 commonest tags.")

    @classmethod
    def of(cls, counts: Counts, months: list[tuple[datetime, int]], embedding_model: str | None) -> "MemoryStatistics":
        """From what was counted."""
        return cls(
            memories=counts.memories,
            sealed_bytes=counts.sealed_bytes,
            oldest=counts.oldest,
            newest=counts.newest,
            expiring=counts.expiring,
            by_type=counts.by_type,
            by_visibility=counts.by_visibility,
            by_month=periods(months),
            by_model=counts.by_model,
            embedding_model=embedding_model,
            tags=counts.tags,
        )


def periods(counted: list[tuple[datetime, int]]) -> list[Period]:
    """As the API shows them."""
    return [Period(begin=begin, memories=rows) for begin, rows in counted]


class MergeIn(BaseModel):
    """A page of a pass over the memories the caller may change, the oldest first."""

    model_config = ConfigDict(extra="forbid")

    threshold: float = Field(
        default=0.95, ge=0.5, le=1, description="Cosine from which two memories say the same; equal contents always do."
    )
    dry_run: bool = Field(default=True, description="Only tell what would be merged.")
    limit: int = Field(default=500, ge=1, le=1000, description="Memories to check in this call.")
    after: Cursor | None = Field(default=None, description="`next` of the page before.")

    def begin(self) -> Place | None:
        """Where the page begins."""
        if self.after is None:
            return None
        created_at, memory_id = place(self.after)
        return Place(created_at=created_at, id=memory_id)


class TwinOut(BaseModel):
    """A memory that says what an older one says."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(validation_alias="other")
    similarity: float = Field(description="Cosine; 1 for equal contents.")
    exact: bool = Field(description="The contents are equal.")


class GroupOut(BaseModel):
    """Memories that say the same."""

    kept: UUID = Field(description="The oldest; it takes over the others' tags, metadata and importance.")
    merged: list[TwinOut]

    @classmethod
    def of(cls, group: Group) -> "GroupOut":
        """From the service."""
        return cls(kept=group.kept, merged=[TwinOut.model_validate(twin) for twin in group.others])


class MergeOut(BaseModel):
    """What was merged, or would be."""

    dry_run: bool
    groups: list[GroupOut]
    checked: int = Field(description="Memories of this page.")
    remaining: int = Field(description="Memories after it.")
    next: str | None = Field(default=None, description="Give it as `after` to go on; null: all are checked.")

    @classmethod
    def of(cls, done: Pass, *, dry_run: bool) -> "MergeOut":
        """From the service."""
        return cls(
            dry_run=dry_run,
            groups=[GroupOut.of(group) for group in done.groups],
            checked=done.checked,
            remaining=done.remaining,
            next=cursor(done.next.created_at, done.next.id) if done.next else None,
        )


class LineOut(BaseModel):
    """What became of a line of an import."""

    line: int
    status: Literal["created", "exists", "failed"]
    id: UUID | None = None
    external_id: str | None = None
    error: Failure | None = None

    @classmethod
    def of(cls, result: LineResult) -> "LineOut":
        """From the service."""
        error = result.error
        return cls(
            line=result.line,
            status=result.status,
            id=result.id,
            external_id=result.external_id,
            error=Failure(code=error.code, detail=error.detail, hint=error.hint) if error else None,
        )


class ImportEnd(BaseModel):
    """The last line of an import's answer; `error` when it broke off, and then it can be sent again."""

    created: int = 0
    exists: int = 0
    failed: int = 0
    error: Failure | None = None
