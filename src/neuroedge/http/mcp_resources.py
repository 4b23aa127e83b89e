"""What can be read over the Model Context Protocol: documents, transcripts of recordings, memories.

Documents and recordings are listed, newest first, documents before recordings; memories are many and are found by
the tools.
"""

import re
from typing import TYPE_CHECKING, Final
from uuid import UUID

from neuroedge.contract.errors import InvalidInput, NotFound
from neuroedge.http.mcp_tools import ToolCall
from neuroedge.services.recordings import RecordingDetail

if TYPE_CHECKING:
    from mcp.types import Resource, ResourceTemplate

MAX_TEXT_CHARS: Final = 200_000
PAGE: Final = 50
_READ_AT_ONCE: Final = 200
_URI: Final = re.compile(r"neuroedge://(documents|recordings|memories)/([0-9a-f-]{36})")
_CURSOR: Final = re.compile(r"(documents|recordings):([0-9a-f-]{36})?")


def templates() -> "list[ResourceTemplate]":
    """The three kinds of things that have an address."""
    from mcp.types import ResourceTemplate

    kinds = {
        "documents": "A document's text, passage by passage.",
        "recordings": "The transcript of a recording: time, speaker and words.",
        "memories": "A remembered text.",
    }
    return [
        ResourceTemplate(
            name=kind, uri_template=f"neuroedge://{kind}/{{id}}", description=description, mime_type="text/plain"
        )
        for kind, description in kinds.items()
    ]


async def listed(cursor: str | None, call: ToolCall) -> "tuple[list[Resource], str | None]":
    """A page of resources and the cursor of the next. Raises InvalidInput for a cursor that is none."""
    kind, before = _place(cursor)
    if kind == "documents":
        page, last = await _documents(before, call)
        if last is not None:
            return page, f"documents:{last}"
        if page:
            return page, "recordings:"
    page, last = await _recordings(before if kind == "recordings" else None, call)
    return page, f"recordings:{last}" if last else None


async def read(uri: str, call: ToolCall) -> str:
    """The text of a resource. Raises NotFound."""
    found = _URI.fullmatch(uri)
    try:
        thing = UUID(found[2]) if found else None
    except ValueError:
        thing = None
    if found is None or thing is None:
        raise NotFound(f"there is no resource {uri[:200]!r}", hint="resources/list shows what there is")
    match found[1]:
        case "documents":
            return await _document(thing, call)
        case "recordings":
            return _transcript(await call.platform.recordings.get(call.principal, thing))
        case _:
            return (await call.platform.memories.get(call.principal, thing)).content


def _place(cursor: str | None) -> tuple[str, UUID | None]:
    found = _CURSOR.fullmatch(cursor or "documents:")
    try:
        if found is not None:
            return found[1], UUID(found[2]) if found[2] else None
    except ValueError:
        pass
    raise InvalidInput("this cursor is none", hint="give nextCursor of the page before")


async def _documents(before: UUID | None, call: ToolCall) -> "tuple[list[Resource], UUID | None]":
    from mcp.types import Resource

    found = await call.platform.documents.list(call.principal, limit=PAGE + 1, before=before, status="done")
    page = [
        Resource(
            name=document.described.title,
            uri=f"neuroedge://documents/{document.id}",
            description=f"{document.media_type}, {document.pages or 1} pages",
            mime_type="text/plain",
        )
        for document in found[:PAGE]
    ]
    return page, found[PAGE - 1].id if len(found) > PAGE else None


async def _recordings(before: UUID | None, call: ToolCall) -> "tuple[list[Resource], UUID | None]":
    from mcp.types import Resource

    found = await call.platform.recordings.list(call.principal, limit=PAGE + 1, before=before, status="done")
    page = [
        Resource(
            name=recording.title,
            uri=f"neuroedge://recordings/{recording.id}",
            description="Transcript of a recording",
            mime_type="text/plain",
        )
        for recording in found[:PAGE]
    ]
    return page, found[PAGE - 1].id if len(found) > PAGE else None


async def _document(document_id: UUID, call: ToolCall) -> str:
    parts: list[str] = []
    after, length = -1, 0
    while length <= MAX_TEXT_CHARS:
        found = await call.platform.documents.chunks(call.principal, document_id, limit=_READ_AT_ONCE, after=after)
        parts += [memory.content for memory in found]
        length += sum(len(memory.content) + 2 for memory in found)
        if len(found) < _READ_AT_ONCE or found[-1].position is None:
            break
        after = found[-1].position
    return _cut("\n\n".join(parts))


def _transcript(detail: RecordingDetail) -> str:
    return _cut(
        "\n".join(
            f"[{segment.start_s:.1f}-{segment.end_s:.1f} s] {segment.speaker}: {segment.text}"
            for segment in detail.segments
        )
    )


def _cut(text: str) -> str:
    if len(text) <= MAX_TEXT_CHARS:
        return text
    return f"{text[:MAX_TEXT_CHARS]}\n[cut after {MAX_TEXT_CHARS} characters; the tools read the rest]"
