"""/v1/recordings: take in, list, read, follow, give out as a file, delete."""

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
from neuroedge.kit.subtitles import MAX_CHARS, MAX_LINES
from neuroedge.services.recording_files import MEDIA_TYPES, Format, written

router = APIRouter(prefix="/v1/recordings", tags=["recordings"])

FIELDS = {
    "title": "Name of the recording; the file's name when not given.",
    "context": "What the recording is about, in the sender's words.",
    "language": "ISO 639-1 code; recognised from the audio when not given.",
    "hot_words": "Names and terms that may occur, separated by commas; at most 50 of 80 characters.",
}
MAX_TERMS = 50
MAX_TERM_CHARS = 80


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
            hot_words=terms_of(received.fields.get("hot_words", "")),
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


@router.get(
    "/{recording_id}/transcript",
    summary="Subtitles and transcripts",
    response_class=Response,
    responses={200: {"content": {media_type: {} for media_type in dict.fromkeys(MEDIA_TYPES.values())}}},
)
async def transcript(
    recording_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    format: Annotated[Format, Query(description="srt, vtt, rttm (who spoke when), txt or json.")] = "json",
    max_chars: Annotated[int, Query(ge=16, le=100, description="Of a line of subtitles.")] = MAX_CHARS,
    max_lines: Annotated[int, Query(ge=1, le=4, description="Of a subtitle.")] = MAX_LINES,
    names: Annotated[bool, Query(description="Whether subtitles say who speaks.")] = True,
) -> Response:
    """A finished recording as a file: subtitles of readable length and time, NIST's RTTM, plain text, or JSON."""
    detail = await platform.recordings.get(principal, recording_id)
    content = written(detail, format, max_chars=max_chars, max_lines=max_lines, names=names)
    return Response(
        content,
        media_type=MEDIA_TYPES[format],
        headers={"Content-Disposition": f'attachment; filename="{recording_id}.{format}"'},
    )


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
    """Server-sent events: `queued`, `progress`, `step`, then `done`, `failed` or `deleted`; earlier ones come first."""
    followed = await platform.recording_progress.follow(principal, recording_id, after=last_event_id)
    return sse.answer(followed, request)


def terms_of(text: str) -> list[str]:
    """Terms of a form field, separated by commas, semicolons or line ends. Raises InvalidInput for too many."""
    terms = [term for part in re.split(r"[,;\n]", text) if (term := " ".join(part.split()))]
    if len(terms) > MAX_TERMS or any(len(term) > MAX_TERM_CHARS for term in terms):
        raise InvalidInput(
            f"hot_words are at most {MAX_TERMS} of {MAX_TERM_CHARS} characters",
            hint="choose the names and terms that matter most",
            errors=[{"loc": ("hot_words",), "msg": "too many, or too long", "type": "value_error"}],
        )
    return terms


def language_of(text: str | None) -> str | None:
    """A language code from a form field; None for empty or "auto". Raises InvalidInput."""
    if text is None or text.strip().lower() in ("", "auto"):
        return None
    code = text.strip().lower()
    if not re.fullmatch("[a-z]{2,3}", code):
        raise InvalidInput(f"{text!r} is no language code", hint="ISO 639-1, for example en, or auto")
    return code
