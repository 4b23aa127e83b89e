"""What callers send of a memory: a new one, changes of one, a line of an import."""

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from neuroedge.contract.ports import Visibility

MAX_CONTENT: Final = 20_000
MAX_METADATA_BYTES: Final = 64 * 1024
EXTERNAL_ID: Final = "external_id"
_DATED: Final = re.compile(r"\d{4}-\d\d-\d\d")


def without_nul(text: str) -> str:
    """The text. Raises ValueError when it holds zero characters, which no database column and no log stands."""
    if "\0" in text:
        raise ValueError("leave out zero characters")
    return text


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    try:
        length = len(json.dumps(value, allow_nan=False).encode())
    except (ValueError, RecursionError) as error:
        raise ValueError("give plain JSON: no NaN, no Infinity, no endless nesting") from error
    if length > MAX_METADATA_BYTES:
        raise ValueError(f"give at most {MAX_METADATA_BYTES} bytes of JSON")
    return value


def _text(value: object) -> object:
    """Only text with a date: a bare number would be read as seconds since 1970."""
    if not isinstance(value, str) or not _DATED.match(value):
        raise ValueError("give an ISO 8601 time with its offset, for example 2030-01-31T08:00:00Z")
    return value


def _sane(value: datetime) -> datetime:
    # Years beside the calendar's ends leave it when they are moved to another time zone.
    if not 1000 <= value.year <= 9000:
        raise ValueError("give a time between the years 1000 and 9000")
    return value.astimezone(UTC)


Time = Annotated[AwareDatetime, BeforeValidator(_text), AfterValidator(_sane)]
Plain = AfterValidator(without_nul)
Content = Annotated[str, Plain, Field(min_length=1, max_length=MAX_CONTENT)]
Tag = Annotated[str, Plain, Field(min_length=1, max_length=100)]
Title = Annotated[str, Plain, Field(max_length=500)]
Type = Annotated[str, Plain, Field(min_length=1, max_length=50)]
Source = Annotated[str, Plain, Field(max_length=2000)]
Tags = Annotated[list[Tag], Field(max_length=50)]
Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]
Importance = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class MemoryDraft(BaseModel):
    """Something to remember."""

    model_config = ConfigDict(extra="forbid")

    content: Content = Field(description="The text, 1 to 20000 characters.")
    title: Title | None = Field(default=None, description="What the text belongs to.")
    tags: Tags = Field(default_factory=list, description="Labels a search can ask for.")
    memory_type: Type = Field(default="note", description="note, fact, event … in your words.")
    metadata: Metadata = Field(
        default_factory=dict, description="A JSON object to give back; a search can ask for its scalars."
    )
    source: Source | None = Field(default=None, description="Where it comes from: a URL, a file, an application.")
    visibility: Visibility = Field(default="organisation", description="Who may see it.")
    importance: Importance = Field(default=0.5, description="0 to 1.")
    occurred_at: Time | None = Field(
        default=None, description="When what it tells happened (ISO 8601 with offset); now when not given."
    )
    expires_at: Time | None = Field(default=None, description="After this it is found no more, and deleted.")


class MemoryChanges(BaseModel):
    """What to change; what is not given stays as it is."""

    model_config = ConfigDict(extra="forbid")

    content: Content | None = Field(default=None, description="A new text; it is embedded anew.")
    title: Title | None = Field(default=None, description="null removes it.")
    tags: Tags | None = None
    memory_type: Type | None = None
    metadata: Metadata | None = Field(default=None, description="Takes the place of all that was there.")
    source: Source | None = Field(default=None, description="null removes it.")
    visibility: Visibility | None = None
    importance: Importance | None = None
    occurred_at: Time | None = None
    expires_at: Time | None = Field(default=None, description="null: it does not expire.")

    @model_validator(mode="after")
    def _some(self) -> "MemoryChanges":
        """At least one change, and null only where nothing is a value."""
        if not self.model_fields_set:
            raise ValueError("name at least one field to change")
        nulls = [name for name in self.model_fields_set if getattr(self, name) is None]
        if wrong := sorted(set(nulls) - {"title", "source", "expires_at"}):
            raise ValueError(f"null is no value of {', '.join(wrong)}")
        return self

    def given(self) -> dict[str, Any]:
        """The fields to change with their new values."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Line(MemoryDraft):
    """A line of an import: a memory, with a name of its own so that it is not remembered twice.

    A line of an export is one: what an import cannot take over is read over.
    """

    external_id: Annotated[str, Plain, Field(min_length=1, max_length=200)] | None = None
    id: Annotated[str, Plain, Field(max_length=200)] | None = None
    keywords: Any = None
    recording_id: Any = None
    document_id: Any = None
    position: Any = None
    created_at: Any = None
    updated_at: Any = None

    def name(self) -> str | None:
        """What the sender calls it."""
        return self.external_id or self.id
