"""/v1/files as OpenAI's clients know them: upload, list, read, content, delete.

Ids are `file-` and 32 hexadecimal digits. Nothing is processed: what a file is for, its purpose, is kept with it.
"""

from datetime import timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from neuroedge.contract.errors import InvalidInput, NotFound
from neuroedge.http.auth import Reader, RequestId, ThePlatform, Writer
from neuroedge.http.openai.errors import OpenAIRoute
from neuroedge.http.uploads import form_schema, receive
from neuroedge.services.files import PURPOSES
from neuroedge.stores.files import StoredFile

router = APIRouter(prefix="/v1/files", tags=["openai"], route_class=OpenAIRoute)
FIELDS = {
    "purpose": f"One of {', '.join(PURPOSES)}.",
    "expires_after[anchor]": "created_at",
    "expires_after[seconds]": "3600 to 2592000; without it the file is kept until it is deleted.",
}
_MARK = "file-"


class FileOut(BaseModel):
    """A file without its content."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int = Field(description="Seconds since 1970.")
    expires_at: int | None = None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"

    @classmethod
    def of(cls, file: StoredFile) -> "FileOut":
        """From the stored row."""
        return cls(
            id=f"{_MARK}{file.id.hex}",
            bytes=file.bytes,
            created_at=int(file.created_at.timestamp()),
            expires_at=None if file.expires_at is None else int(file.expires_at.timestamp()),
            filename=file.filename,
            purpose=file.purpose,
        )


class FileList(BaseModel):
    """A page of files."""

    object: Literal["list"] = "list"
    data: list[FileOut]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = Field(default=None, description="Give it as `after` to get the next page.")


class FileDeleted(BaseModel):
    """It is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


@router.post("", summary="Keep a file (OpenAI)", openapi_extra=form_schema("file", FIELDS))
async def upload(request: Request, principal: Writer, platform: ThePlatform, request_id: RequestId) -> FileOut:
    """Keep a file of at most 128 MiB; only its user sees it."""
    async with receive(request, file_field="file", fields=tuple(FIELDS)) as received:
        kept = await platform.files.add(
            principal,
            received.upload,
            purpose=received.fields.get("purpose", ""),
            life=_life(received.fields),
            request_id=request_id,
        )
    return FileOut.of(kept)


@router.get("", summary="List files (OpenAI)")
async def list_files(
    principal: Reader,
    platform: ThePlatform,
    purpose: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(max_length=100, description="`last_id` of the page before.")] = None,
) -> FileList:
    """The caller's files by time."""
    found = await platform.files.page(
        principal,
        limit=limit + 1,
        after=None if after is None else file_id_of(after),
        ascending=order == "asc",
        purpose=purpose,
    )
    data = [FileOut.of(file) for file in found[:limit]]
    return FileList(
        data=data,
        has_more=len(found) > limit,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


@router.get("/{file_id}", summary="Read what is known of a file (OpenAI)")
async def read(file_id: str, principal: Reader, platform: ThePlatform) -> FileOut:
    """One file without its content."""
    return FileOut.of(await platform.files.get(principal, file_id_of(file_id)))


@router.get("/{file_id}/content", summary="Read a file (OpenAI)", response_class=Response)
async def content(file_id: str, principal: Reader, platform: ThePlatform) -> Response:
    """Its bytes as they were sent."""
    _, data = await platform.files.content(principal, file_id_of(file_id))
    # No media type of the sender's choice, and no name: a browser must not show it as a page of this server.
    return Response(data, media_type="application/octet-stream", headers={"Content-Disposition": "attachment"})


@router.delete("/{file_id}", summary="Delete a file (OpenAI)")
async def delete(file_id: str, principal: Writer, platform: ThePlatform, request_id: RequestId) -> FileDeleted:
    """Delete a file for good."""
    found = file_id_of(file_id)
    await platform.files.delete(principal, found, request_id=request_id)
    return FileDeleted(id=f"{_MARK}{found.hex}")


def file_id_of(text: str) -> UUID:
    """The id behind the name clients use. Raises NotFound: no file has a name that is none."""
    try:
        return UUID(text.removeprefix(_MARK))
    except ValueError:
        raise NotFound(f"there is no file {text[:100]!r}", hint="GET /v1/files lists them") from None


def _life(fields: dict[str, str]) -> timedelta | None:
    seconds, anchor = fields.get("expires_after[seconds]"), fields.get("expires_after[anchor]", "created_at")
    if anchor != "created_at":
        raise InvalidInput("expires_after counts from created_at only", hint="leave the anchor out")
    if seconds is None:
        return None
    if not seconds.isascii() or not seconds.isdigit() or len(seconds) > 9:
        raise InvalidInput("expires_after[seconds] is no number of seconds", hint="3600 to 2592000")
    return timedelta(seconds=int(seconds))
