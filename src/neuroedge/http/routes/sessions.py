"""/v1/sessions: begin, list, change, delete, read and branch messages, attach files, judge, follow, export.

Asking is POST /v1/sessions/{id}/messages, the assistant's own route.
"""

from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sse_starlette.sse import EventSourceResponse

from neuroedge.http import sse
from neuroedge.http.auth import Reader, RequestId, Runner, ThePlatform, Writer
from neuroedge.http.chat_schemas import (
    AttachmentList,
    AttachmentOut,
    AttachmentTextOut,
    BranchesOut,
    FeedbackIn,
    FoundMessageOut,
    FoundMessages,
    MessageEdit,
    MessageOut,
    MessagePageOut,
    SessionIn,
    SessionOut,
    SessionPage,
    SessionPatch,
    SessionQuery,
)
from neuroedge.http.memory_schemas import place
from neuroedge.http.uploads import form_schema, receive
from neuroedge.services.chat.search import MAX_HITS
from neuroedge.services.chat.transfer import ImportedSession

router = APIRouter(tags=["chat"])
_FILES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/markdown": {"schema": {"type": "string"}},
            "application/json": {"schema": {"type": "object"}},
        }
    }
}
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.post("/v1/sessions", status_code=201, summary="Begin a chat session")
async def create(
    body: SessionIn, response: Response, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> SessionOut:
    """Begin a session; it is private unless told otherwise."""
    session = await platform.chats.create(
        principal,
        request_id=request_id,
        title=body.title,
        model=body.model or None,
        settings=body.settings(),
        visibility=body.visibility,
    )
    response.headers["Location"] = f"/v1/sessions/{session.id}"
    return SessionOut.of(session)


@router.get("/v1/sessions", summary="List chat sessions")
async def list_sessions(
    principal: Reader, platform: ThePlatform, asked: Annotated[SessionQuery, Query()]
) -> SessionPage:
    """The caller's own by their last change, or those of others that the caller may read."""
    found = await platform.chats.page(
        principal,
        limit=asked.limit + 1,
        before=place(asked.before) if asked.before else None,
        archived=asked.archived,
        shared=asked.shared,
    )
    return SessionPage.of(found, limit=asked.limit)


@router.post("/v1/sessions/import", status_code=201, summary="Import a chat session")
async def import_session(
    body: ImportedSession, response: Response, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> SessionOut:
    """Make a private session of a JSON export, branches included. Attached files are not in an export."""
    session = await platform.chat_transfer.take_in(principal, body, request_id=request_id)
    response.headers["Location"] = f"/v1/sessions/{session.id}"
    return SessionOut.of(session)


@router.get("/v1/messages/search", summary="Search your own chat messages")
async def search(
    principal: Runner,
    platform: ThePlatform,
    request_id: RequestId,
    q: Annotated[str, Query(min_length=1, max_length=8000, description="What to look for, in plain words.")],
    limit: Annotated[int, Query(ge=1, le=MAX_HITS)] = 10,
    session_id: Annotated[UUID | None, Query(description="Only in this session.")] = None,
) -> FoundMessages:
    """By meaning and by words, questions and answers of all branches."""
    found = await platform.chat_search.find(principal, q, limit=limit, session_id=session_id, request_id=request_id)
    return FoundMessages(hits=[FoundMessageOut.of(one) for one in found])


@router.get("/v1/sessions/{session_id}", summary="Read a chat session")
async def read(session_id: UUID, principal: Reader, platform: ThePlatform) -> SessionOut:
    """The session without its messages."""
    return SessionOut.of(await platform.chats.get(principal, session_id))


@router.patch("/v1/sessions/{session_id}", summary="Change a chat session")
async def update(
    session_id: UUID, body: SessionPatch, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> SessionOut:
    """Change what is given."""
    return SessionOut.of(await platform.chats.update(principal, session_id, body.changes(), request_id=request_id))


@router.delete("/v1/sessions/{session_id}", status_code=204, summary="Delete a chat session")
async def delete(session_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> Response:
    """Delete a session with its messages and attachments; an answer that is being generated goes with it."""
    await platform.chats.delete(principal, session_id, request_id=request_id)
    return Response(status_code=204)


@router.get("/v1/sessions/{session_id}/messages", summary="Read a session's messages")
async def messages(
    session_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    leaf: Annotated[
        UUID | None, Query(description="The last message wanted; the end of the branch that is shown by default.")
    ] = None,
) -> MessagePageOut:
    """The last messages of a branch in their order, each with the ids of those in its place."""
    return MessagePageOut.of(await platform.chats.messages(principal, session_id, limit=limit, leaf=leaf))


@router.get("/v1/sessions/{session_id}/messages/{message_id}", summary="Read a message")
async def message(session_id: UUID, message_id: UUID, principal: Reader, platform: ThePlatform) -> MessageOut:
    """One message."""
    return MessageOut.of(await platform.chats.message(principal, session_id, message_id))


@router.get("/v1/sessions/{session_id}/messages/{message_id}/branches", summary="Read all versions of a message")
async def branches(session_id: UUID, message_id: UUID, principal: Reader, platform: ThePlatform) -> BranchesOut:
    """All messages in its place, the oldest first."""
    found = await platform.chats.branches(principal, session_id, message_id)
    ids = [one.id for one in found]
    return BranchesOut(messages=[MessageOut.of(one, branches=ids) for one in found])


@router.patch("/v1/sessions/{session_id}/messages/{message_id}", summary="Edit a message as a new branch")
async def edit(
    session_id: UUID, message_id: UUID, body: MessageEdit, principal: Writer, platform: ThePlatform
) -> MessageOut:
    """Put a message with other words beside this one and show its branch; the old one stays with all that followed."""
    return MessageOut.of(
        await platform.chats.edit(principal, session_id, message_id, content=body.content, attachments=body.attachments)
    )


@router.delete("/v1/sessions/{session_id}/messages/{message_id}", status_code=204, summary="Delete a message")
async def delete_message(session_id: UUID, message_id: UUID, principal: Writer, platform: ThePlatform) -> Response:
    """Delete a message with all that follows it."""
    await platform.chats.delete_message(principal, session_id, message_id)
    return Response(status_code=204)


@router.put("/v1/sessions/{session_id}/messages/{message_id}/feedback", summary="Judge an answer")
async def judge(
    session_id: UUID, message_id: UUID, body: FeedbackIn, principal: Writer, platform: ThePlatform
) -> MessageOut:
    """Say that an answer was good or bad, and why."""
    return MessageOut.of(await platform.chats.set_feedback(principal, session_id, message_id, body.feedback()))


@router.delete(
    "/v1/sessions/{session_id}/messages/{message_id}/feedback", status_code=204, summary="Take a judgement back"
)
async def unjudge(session_id: UUID, message_id: UUID, principal: Writer, platform: ThePlatform) -> Response:
    """Forget what was thought of an answer."""
    await platform.chats.set_feedback(principal, session_id, message_id, None)
    return Response(status_code=204)


@router.get(
    "/v1/sessions/{session_id}/export", summary="Export a chat session", response_class=Response, responses=_FILES
)
async def export(
    session_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    format: Annotated[Literal["markdown", "json"], Query(description="markdown: the branch shown; json: all.")] = (
        "markdown"
    ),
) -> Response:
    """The session as a file to keep; JSON can be imported again."""
    session, data = await platform.chat_transfer.export(principal, session_id, format=format)
    kind, ending = ("text/markdown; charset=utf-8", "md") if format == "markdown" else ("application/json", "json")
    return Response(data, media_type=kind, headers=_named(f"{session.title or 'chat'}.{ending}"))


@router.get(
    "/v1/sessions/{session_id}/events", summary="Follow a chat session (SSE)", response_class=EventSourceResponse
)
async def events(
    session_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    request: Request,
    last_event_id: sse.LastEventId = None,
) -> EventSourceResponse:
    """Server-sent events with ids, no content: `message.started`, `message.finished`, `message.deleted`,
    `session.changed`, `attachment.done`, `attachment.failed`, and `deleted` at the end; earlier ones are sent first."""
    followed = await platform.session_progress.follow(principal, session_id, after=last_event_id)
    return sse.answer(followed, request)


@router.post(
    "/v1/sessions/{session_id}/attachments",
    status_code=201,
    summary="Attach a file",
    openapi_extra=form_schema("file", {}),
)
async def attach(
    session_id: UUID,
    request: Request,
    response: Response,
    principal: Writer,
    platform: ThePlatform,
    request_id: RequestId,
) -> AttachmentOut:
    """Keep a file for messages of this session to name. A document's text is there at once; images, scans and sound
    are read in the background, and answered with 202."""
    await platform.chats.get(principal, session_id)  # before the file is received
    async with receive(request, file_field="file") as received:
        added = await platform.chat_attachments.add(received.upload, principal, session_id, request_id=request_id)
    if added.state != "done":
        response.status_code = 202
    response.headers["Location"] = f"/v1/sessions/{session_id}/attachments/{added.id}"
    return AttachmentOut.of(added)


@router.get("/v1/sessions/{session_id}/attachments", summary="List a session's attachments")
async def attachments(session_id: UUID, principal: Reader, platform: ThePlatform) -> AttachmentList:
    """In the order they came."""
    found = await platform.chat_attachments.of_session(principal, session_id)
    return AttachmentList(attachments=[AttachmentOut.of(one) for one in found])


@router.get("/v1/sessions/{session_id}/attachments/{attachment_id}", summary="Read an attachment")
async def attachment(
    session_id: UUID, attachment_id: UUID, principal: Reader, platform: ThePlatform
) -> AttachmentTextOut:
    """Where its reading stands, and its text."""
    return AttachmentTextOut.of_read(await platform.chat_attachments.get(principal, session_id, attachment_id))


@router.get(
    "/v1/sessions/{session_id}/attachments/{attachment_id}/file",
    summary="Download an attachment",
    response_class=Response,
    responses=_BYTES,
)
async def download(session_id: UUID, attachment_id: UUID, principal: Reader, platform: ThePlatform) -> Response:
    """The file as it was sent."""
    found = (await platform.chat_attachments.get(principal, session_id, attachment_id)).attachment
    data = await platform.chat_attachments.original(principal, found)
    # Never as what it says it is: a page of HTML must not run as one of ours.
    return Response(data, media_type="application/octet-stream", headers=_named(found.filename))


@router.delete("/v1/sessions/{session_id}/attachments/{attachment_id}", status_code=204, summary="Delete an attachment")
async def detach(session_id: UUID, attachment_id: UUID, principal: Writer, platform: ThePlatform) -> Response:
    """Delete a file; messages that name it stay."""
    await platform.chat_attachments.delete(principal, session_id, attachment_id)
    return Response(status_code=204)


def _named(filename: str) -> dict[str, str]:
    """A file to save, under a name of any script (RFC 6266)."""
    flat = "".join(c if c.isprintable() and c not in '/\\"' else "_" for c in filename)[:150]
    plain = flat.encode("ascii", "replace").decode().replace("?", "_")
    return {
        "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(flat, safe='')}",
    }
