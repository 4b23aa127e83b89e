"""/v1/recordings: take in, list, read, follow, delete."""

import re
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sse_starlette.sse import EventSourceResponse

from neuroedge.contract.errors import InvalidInput
from neuroedge.http import sse
from neuroedge.http.auth import Reader, RequestId, ThePlatform, Writer
from neuroedge.http.schemas import RecordingDetailOut, RecordingOut, RecordingPage
from neuroedge.http.uploads import form_schema, receive

router = APIRouter(prefix="/v1/recordings", tags=["recordings"])

FIELDS = {
    "title": "Name of the recording; the file's name when not given.",
    "context": "What the recording is about, in the sender's words.",
    "language": "ISO 639-1 code; recognised from the audio when not given.",
}


@router.post(
    "",
    status_code=202,
    summary="Send a recording",
    openapi_extra=form_schema("file", FIELDS),
)
async def create(request: Request, principal: Writer, platform: ThePlatform, request_id: RequestId) -> RecordingOut:
    """Check and keep the file, and process it in the background: transcribe, tell speakers apart, remember."""
    async with receive(request, file_field="file", fields=tuple(FIELDS)) as received:
        recording = await platform.recordings.add(
            received.upload,
            principal=principal,
            request_id=request_id,
            title=received.fields.get("title", "")[:200] or None,
            context=received.fields.get("context"),
            language=language_of(received.fields.get("language")),
        )
    return RecordingOut.of(recording)


@router.get("", summary="List recordings")
async def list_recordings(
    principal: Reader,
    platform: ThePlatform,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
) -> RecordingPage:
    """The organisation's recordings, newest first."""
    found = await platform.recordings.list(principal, limit=limit + 1, before=before)
    page = found[:limit]
    return RecordingPage(
        recordings=[RecordingOut.of(recording) for recording in page],
        next=page[-1].id if len(found) > limit else None,
    )


@router.get("/{recording_id}", summary="Read a recording")
async def read(recording_id: UUID, principal: Reader, platform: ThePlatform) -> RecordingDetailOut:
    """A recording with transcript, speakers, segments and emotions, as far as they are known."""
    return RecordingDetailOut.of_detail(await platform.recordings.get(principal, recording_id))


@router.delete("/{recording_id}", status_code=204, summary="Delete a recording")
async def delete(recording_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> Response:
    """Delete a recording with audio, transcript and memories."""
    await platform.recordings.delete(principal, recording_id, request_id=request_id)
    return Response(status_code=204)


@router.get(
    "/{recording_id}/events",
    summary="Follow a recording's progress (SSE)",
    response_class=EventSourceResponse,
)
async def events(
    recording_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    request: Request,
    last_event_id: sse.LastEventId = None,
) -> EventSourceResponse:
    """Server-sent events: `queued`, `progress`, `step`, then `done` or `failed`; earlier ones are sent first."""
    followed = await platform.recording_progress.follow(principal, recording_id, after=last_event_id)
    return sse.answer(followed, request)


def language_of(text: str | None) -> str | None:
    """A language code from a form field; None for empty or "auto". Raises InvalidInput."""
    if text is None or text.strip().lower() in ("", "auto"):
        return None
    code = text.strip().lower()
    if not re.fullmatch("[a-z]{2,3}", code):
        raise InvalidInput(f"{text!r} is no language code", hint="ISO 639-1, for example en, or auto")
    return code
