"""/v1/artifacts: store or generate, list, read, change, compare, restore, find, download, follow, delete."""

import re
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from sse_starlette.sse import EventSourceResponse

from neuroedge.contract.errors import Conflict, InvalidInput, NotFound
from neuroedge.http import sse
from neuroedge.http.artifact_schemas import (
    ArtifactDiff,
    ArtifactFull,
    ArtifactHit,
    ArtifactHits,
    ArtifactOut,
    ArtifactPage,
    ArtifactVersionFull,
    ArtifactVersionOut,
    ArtifactVersionPage,
    disposition,
    media_type,
)
from neuroedge.http.artifact_stream import streamed, wants_events
from neuroedge.http.auth import Reader, RequestId, Runner, ThePlatform, Writer
from neuroedge.kit.artifact_checks import Type
from neuroedge.services.artifact_drafts import ArtifactChanges, ArtifactDraft
from neuroedge.services.artifact_versions import Detail
from neuroedge.stores.artifacts import State

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"])

Number = Annotated[int, Query(ge=1, le=2**31 - 1)]
IfMatch = Annotated[str | None, Header(description='409 unless the present version has this ETag, for example "3".')]
_TAG = re.compile(r'(?:W/)?"?(\d{1,9})"?')


@router.post("", status_code=201, summary="Store or generate an artifact", response_model=ArtifactFull)
async def create(
    body: ArtifactDraft,
    request: Request,
    response: Response,
    principal: Writer,
    platform: ThePlatform,
    request_id: RequestId,
) -> Any:
    """Keep `content` as it is, or have a language model write it by `instruction`. Either way it is opened and checked;
    what fails a check is kept with `valid: false`. With `background` the answer is 202 and the artifact `generating`;
    its events tell how far it is. With `Accept: text/event-stream` the answer is a stream of `progress` events that
    ends with `ready` and the artifact, or with `failed`."""
    if wants_events(request) and not body.background:
        return streamed(lambda told: platform.artifacts.create(principal, body, request_id=request_id, progress=told))
    detail = await platform.artifacts.create(principal, body, request_id=request_id)
    if detail.version is None:
        response.status_code = 202
    response.headers["Location"] = f"/v1/artifacts/{detail.artifact.id}"
    return _answer(detail, response)


@router.get("", summary="List artifacts")
async def list_artifacts(
    principal: Reader,
    platform: ThePlatform,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    type: Annotated[Type | None, Query(description="Only these.")] = None,
    state: Annotated[State | None, Query(description="Only these.")] = None,
    session_id: Annotated[UUID | None, Query(description="Only those of this conversation.")] = None,
) -> ArtifactPage:
    """Artifacts the caller may see, newest first, without their content."""
    found = await platform.artifacts.page(
        principal, limit=limit + 1, before=before, type_=type, state=state, session_id=session_id
    )
    page = found[:limit]
    return ArtifactPage(
        artifacts=[ArtifactOut.of(artifact) for artifact in page], next=page[-1].id if len(found) > limit else None
    )


@router.get("/search", summary="Search artifacts")
async def search(
    principal: Runner,
    platform: ThePlatform,
    request_id: RequestId,
    q: Annotated[str, Query(min_length=1, max_length=8000, description="What to look for, in plain words.")],
    limit: Annotated[int, Query(ge=1, le=50)] = 10,
) -> ArtifactHits:
    """By meaning and by words, in the present versions of the artifacts the caller may see."""
    found = await platform.artifacts.search(principal, q, limit=limit, request_id=request_id)
    return ArtifactHits(hits=[ArtifactHit.of(one) for one in found])


@router.get("/{artifact_id}", summary="Read an artifact")
async def read(artifact_id: UUID, response: Response, principal: Reader, platform: ThePlatform) -> ArtifactFull:
    """The artifact with the content of its present version; its number is the ETag."""
    return _answer(await platform.artifact_versions.get(principal, artifact_id), response)


@router.patch("/{artifact_id}", summary="Change an artifact", response_model=ArtifactFull)
async def change(
    artifact_id: UUID,
    body: ArtifactChanges,
    request: Request,
    response: Response,
    principal: Writer,
    platform: ThePlatform,
    request_id: RequestId,
    if_match: IfMatch = None,
) -> Any:
    """Rename or share it, or make a new version: from `content`, or by an `instruction` to a language model. For its
    owner and who manages the organisation. 409 when it is not at the version expected. With
    `Accept: text/event-stream` the answer is a stream as that of POST /v1/artifacts."""
    change_it = partial(
        platform.artifacts.change,
        principal,
        artifact_id,
        body,
        expected=_expected(if_match, body.expected_version),
        request_id=request_id,
    )
    if wants_events(request) and not body.background:
        return streamed(lambda told: change_it(progress=told))
    detail = await change_it()
    if detail.artifact.state == "generating":
        response.status_code = 202
    return _answer(detail, response)


@router.delete("/{artifact_id}", status_code=204, summary="Delete an artifact")
async def delete(artifact_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> Response:
    """Delete an artifact with all its versions. For its owner and who manages the organisation."""
    await platform.artifacts.delete(principal, artifact_id, request_id=request_id)
    return Response(status_code=204)


@router.get("/{artifact_id}/versions", summary="List an artifact's versions")
async def versions(
    artifact_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="`next` of the page before.")] = None,
) -> ArtifactVersionPage:
    """Newest first, without their content."""
    found = await platform.artifact_versions.page(principal, artifact_id, limit=limit + 1, before=before)
    page = found[:limit]
    return ArtifactVersionPage(
        versions=[ArtifactVersionOut.of(version) for version in page],
        next=page[-1].version if len(found) > limit else None,
    )


@router.get("/{artifact_id}/versions/{number}", summary="Read a version of an artifact")
async def version(artifact_id: UUID, number: int, principal: Reader, platform: ThePlatform) -> ArtifactVersionFull:
    """One version with its content."""
    return ArtifactVersionFull.of_detail(
        await platform.artifact_versions.get(principal, artifact_id, _number(artifact_id, number))
    )


@router.post("/{artifact_id}/versions/{number}/restore", summary="Restore a version of an artifact")
async def restore(
    artifact_id: UUID,
    number: int,
    response: Response,
    principal: Writer,
    platform: ThePlatform,
    request_id: RequestId,
    if_match: IfMatch = None,
) -> ArtifactFull:
    """Make an older version the present one: its content becomes a new version."""
    detail = await platform.artifact_versions.restore(
        principal,
        artifact_id,
        _number(artifact_id, number),
        expected=_expected(if_match, None),
        request_id=request_id,
    )
    return _answer(detail, response)


@router.get("/{artifact_id}/diff", summary="Compare two versions of an artifact")
async def diff(
    artifact_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    before: Annotated[
        int | None, Query(alias="from", ge=1, le=2**31 - 1, description="The one before `to` by default.")
    ] = None,
    after: Annotated[
        int | None, Query(alias="to", ge=1, le=2**31 - 1, description="The present one by default.")
    ] = None,
) -> ArtifactDiff:
    """A unified diff; of json, slides and tables the changes by their place too."""
    return ArtifactDiff.of(await platform.artifact_versions.diff(principal, artifact_id, before=before, after=after))


@router.get(
    "/{artifact_id}/download",
    summary="Download an artifact",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def download(
    artifact_id: UUID, principal: Reader, platform: ThePlatform, version: Number | None = None
) -> Response:
    """The content as a file with the media type of its format; the present version unless another is named."""
    detail = await platform.artifact_versions.get(principal, artifact_id, version)
    if detail.version is None:
        raise NotFound("the artifact has no version yet", hint="wait until its state is ready")
    kind = media_type(detail.artifact)
    return Response(
        (detail.content or "").encode(),
        media_type=kind if kind == "application/json" else f"{kind}; charset=utf-8",
        headers={
            "Content-Disposition": disposition(detail.artifact, detail.version.version),
            "ETag": f'"{detail.version.version}"',
        },
    )


@router.get(
    "/{artifact_id}/events", summary="Follow an artifact's generation (SSE)", response_class=EventSourceResponse
)
async def events(
    artifact_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    request: Request,
    last_event_id: sse.LastEventId = None,
) -> EventSourceResponse:
    """Server-sent events of a generation in the background: `generating`, `progress`, then `ready` or `failed`;
    earlier ones are sent first."""
    followed = await platform.artifact_progress.follow(principal, artifact_id, after=last_event_id)
    return sse.answer(followed, request)


def _answer(detail: Detail, response: Response) -> ArtifactFull:
    response.headers["ETag"] = f'"{detail.artifact.version}"'
    return ArtifactFull.of_detail(detail)


def _expected(if_match: str | None, named: int | None) -> int | None:
    """The version a change is meant for; None: any. Raises InvalidInput, Conflict."""
    if if_match is None or if_match.strip() == "*":
        return named
    found = _TAG.fullmatch(if_match.strip())
    if found is None:
        raise InvalidInput("If-Match is no version's ETag", hint='send the ETag of the artifact, such as "3"')
    if named is not None and named != int(found[1]):
        raise Conflict("If-Match and expected_version name different versions", hint="send one of them")
    return int(found[1])


def _number(artifact_id: UUID, number: int) -> int:
    if not 1 <= number < 2**31:
        raise NotFound(f"the artifact has no version {number}", hint=f"GET /v1/artifacts/{artifact_id}/versions")
    return number
