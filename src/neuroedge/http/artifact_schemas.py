"""Artifacts as the canonical API shows them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import quote
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.ports import Visibility
from neuroedge.http.schemas import Failure
from neuroedge.kit.artifact_checks import Type
from neuroedge.services.artifact_versions import Detail, Difference
from neuroedge.services.artifacts import Found
from neuroedge.stores.artifacts import Artifact, Origin, State, Version

# Nothing that a browser would run: code in HTML or SVG is a text here.
_MEDIA_TYPES: Final[Mapping[str, str]] = {
    "markdown": "text/markdown",
    "mermaid": "text/vnd.mermaid",
    "csv": "text/csv",
    "json": "application/json",
    "python": "text/x-python",
}
_ENDINGS: Final[Mapping[str, str]] = {
    "markdown": "md",
    "mermaid": "mmd",
    "python": "py",
    "javascript": "js",
    "typescript": "ts",
    "rust": "rs",
    "ruby": "rb",
    "kotlin": "kt",
    "shell": "sh",
    "bash": "sh",
    "c++": "cpp",
    "c#": "cs",
}


class ArtifactCheck(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    ok: bool | None = Field(description="null: unchecked, the detail tells why.")
    detail: str


class ArtifactVersionOut(BaseModel):
    """A version, without its content."""

    version: int = Field(description="Counts from 1.")
    origin: Origin = Field(description="given, generated or restored from an older version.")
    author_id: UUID | None = Field(description="Who made it; null once that user's data was erased.")
    bytes: int = Field(description="Of the content in UTF-8.")
    sha256: str
    valid: bool = Field(description="Whether no check failed.")
    checks: list[ArtifactCheck]
    method: str | None = Field(description="How it was generated.")
    models: list[str] = Field(description="What generated it, as provider/model.")
    note: str | None = Field(description="The instruction, or its author's remark.")
    created_at: datetime

    @classmethod
    def of(cls, version: Version) -> "ArtifactVersionOut":
        """From the stored row."""
        names = set(cls.model_fields) - {"checks"}
        checks = [ArtifactCheck.model_validate(check) for check in version.checks]
        return cls(checks=checks, **{name: getattr(version, name) for name in names})


class ArtifactVersionFull(ArtifactVersionOut):
    """A version with its content."""

    content: str

    @classmethod
    def of_detail(cls, detail: Detail) -> "ArtifactVersionFull":
        """From what the service returns."""
        assert detail.version is not None
        return cls(**ArtifactVersionOut.of(detail.version).model_dump(), content=detail.content or "")


class ArtifactOut(BaseModel):
    """An artifact and where it stands."""

    id: UUID
    user_id: UUID = Field(description="Its owner.")
    type: Type
    format: str = Field(description="markdown, mermaid, json, csv, or the language of code.")
    title: str
    tags: list[str]
    visibility: Visibility
    state: State = Field(description="generating; ready; failed: its first version could not be generated.")
    version: int = Field(description="The present one's number; 0: none yet.")
    json_schema: dict[str, Any] | None = Field(description="What its versions must be valid by.")
    slides: int | None = Field(description="How many slides were asked for.")
    session_id: UUID | None = Field(description="The conversation it belongs to; null once that was deleted.")
    message_id: UUID | None
    error: Failure | None = Field(default=None, description="Why the last generation failed.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, artifact: Artifact) -> "ArtifactOut":
        """From the stored row."""
        return cls(**_fields(artifact))


class ArtifactFull(ArtifactOut):
    """An artifact with its present version; null while there is none."""

    current: ArtifactVersionFull | None = None

    @classmethod
    def of_detail(cls, detail: Detail) -> "ArtifactFull":
        """From what the service returns."""
        current = None if detail.version is None else ArtifactVersionFull.of_detail(detail)
        return cls(**_fields(detail.artifact), current=current)


class ArtifactPage(BaseModel):
    """Artifacts, newest first."""

    artifacts: list[ArtifactOut]
    next: UUID | None = Field(default=None, description="Give it as `before` to get the next page.")


class ArtifactVersionPage(BaseModel):
    """Versions, newest first."""

    versions: list[ArtifactVersionOut]
    next: int | None = Field(default=None, description="Give it as `before` to get the next page.")


class ArtifactHit(BaseModel):
    """An artifact a search found."""

    artifact: ArtifactOut
    score: float = Field(description="Orders the hits of one search.")
    excerpt: str = Field(description="Where the words of the query stand in it, or its beginning.")

    @classmethod
    def of(cls, found: Found) -> "ArtifactHit":
        """From what the service returns."""
        return cls(artifact=ArtifactOut.of(found.artifact), score=found.score, excerpt=found.excerpt)


class ArtifactHits(BaseModel):
    """What was found, the best first."""

    hits: list[ArtifactHit]


class ArtifactChange(BaseModel):
    """One change of a JSON value or a table."""

    model_config = ConfigDict(from_attributes=True)

    op: Literal["add", "remove", "replace"]
    path: str = Field(description="JSON pointer (RFC 6901); of a table /columns or /rows/n, n from 0.")
    before: Any = None
    after: Any = None


class ArtifactDiff(BaseModel):
    """What changed from one version to another."""

    model_config = ConfigDict(from_attributes=True)

    before: int = Field(description="The version compared from.")
    after: int = Field(description="The version compared to.")
    unified: str = Field(description="A unified diff; empty for equal texts.")
    changes: list[ArtifactChange] | None = Field(description="Of json, slides and tables that can be read.")
    truncated: bool = Field(description="Whether there are more changes than are listed.")

    @classmethod
    def of(cls, difference: Difference) -> "ArtifactDiff":
        """From what the service returns."""
        return cls.model_validate(difference)


def media_type(artifact: Artifact) -> str:
    """Of the content."""
    return _MEDIA_TYPES.get(artifact.named.format, "text/plain")


def disposition(artifact: Artifact, version: int) -> str:
    """Content-Disposition with a filename made of the title (RFC 6266)."""
    ending = _ENDINGS.get(artifact.named.format, artifact.named.format)
    ending = ending if ending.isascii() and ending.isalnum() and len(ending) <= 10 else "txt"
    words = "".join(c if c.isalnum() else " " for c in artifact.named.title).split()
    name = "-".join(words)[:100] or artifact.type
    plain = "".join(c if c.isascii() else "_" for c in name)
    return f"attachment; filename=\"{plain}-v{version}.{ending}\"; filename*=UTF-8''{quote(name)}-v{version}.{ending}"


def _fields(artifact: Artifact) -> dict[str, Any]:
    names = ("id", "user_id", "type", "visibility", "state", "version", "session_id", "message_id")
    error = None
    if artifact.error_code:
        error = Failure(code=artifact.error_code, detail=artifact.error_detail or "", hint=artifact.error_hint)
    named = artifact.named
    return {
        **{name: getattr(artifact, name) for name in (*names, "created_at", "updated_at")},
        "format": named.format,
        "title": named.title,
        "tags": list(named.tags),
        "json_schema": named.schema,
        "slides": named.slides,
        "error": error,
    }
