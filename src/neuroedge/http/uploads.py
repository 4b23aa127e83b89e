"""Multipart uploads streamed to the data directory as they arrive: never in memory, and gone when the request ends."""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from neuroedge.contract.errors import EmptyMedia, InvalidInput, TooLarge, Unavailable, UnsupportedMedia
from neuroedge.http.auth import platform_of
from neuroedge.services.recordings import Upload
from neuroedge.stores.ids import new_id

_MAX_FIELD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """An upload with the form's other fields."""

    upload: Upload
    fields: dict[str, str]


def form_schema(file_field: str, fields: dict[str, str], *, several: bool = False) -> dict[str, Any]:
    """OpenAPI of a multipart body with one file, or `several`; `fields` maps names of text fields to descriptions."""
    file = {"type": "string", "format": "binary"}
    properties: dict[str, Any] = {file_field: {"type": "array", "items": file} if several else file}
    properties |= {name: {"type": "string", "description": text} for name, text in fields.items()}
    schema = {"type": "object", "required": [file_field], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedFiles:
    """Several uploads, in the order they were sent, with the form's other fields."""

    uploads: list[Upload]
    fields: dict[str, str]


@asynccontextmanager
async def receive(
    request: Request, *, file_field: str, fields: Sequence[str] = (), strict: bool = False
) -> AsyncIterator[Received]:
    """The file of `file_field` on disk and the text fields; others are refused when `strict`. Raises UnsupportedMedia,
    InvalidInput, EmptyMedia or TooLarge; whatever happens, the file is gone afterwards."""
    async with receive_files(request, file_field=file_field, most=1, fields=fields, strict=strict) as received:
        upload = received.uploads[0]
        if upload.bytes == 0:
            raise EmptyMedia("the file is empty", hint="check the path; nothing was sent")
        yield Received(upload=upload, fields=received.fields)


@asynccontextmanager
async def receive_files(
    request: Request, *, file_field: str, most: int, fields: Sequence[str] = (), strict: bool = False
) -> AsyncIterator[ReceivedFiles]:
    """As `receive`, of up to `most` files in one field, each in a folder of its own; empty ones are among them."""
    from streaming_form_data import StreamingFormDataParser
    from streaming_form_data.targets import FileTarget, MultipleTargets, ValueTarget
    from streaming_form_data.validators import MaxSizeValidator

    class Files(MultipleTargets):  # type: ignore[misc]  # the library has no types
        def set_multipart_content_type(self, content_type: str) -> None:
            """Not kept: the library (2.1) takes it for the file's name."""

    settings = platform_of(request).settings
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise UnsupportedMedia("send the file as multipart/form-data", hint=f"curl -F {file_field}=@path/to/file")
    folder = settings.data_dir / "tmp" / str(new_id())
    folder.mkdir()
    paths: list[Path] = []

    def next_file() -> Any:
        if len(paths) == most:
            told = "more than one file" if most == 1 else f"more than {most} files"
            raise InvalidInput(f"the form has {told} in the field {file_field!r}", hint="send several requests")
        paths.append(folder / str(len(paths)) / "upload")
        paths[-1].parent.mkdir()
        return FileTarget(str(paths[-1]))

    try:
        files = Files(next_file)
        values = {name: ValueTarget(validator=MaxSizeValidator(_MAX_FIELD_BYTES)) for name in fields}
        parser = _parser(StreamingFormDataParser, request, strict=strict)
        parser.register(file_field, files)
        for name, target in values.items():
            parser.register(name, target)
        await _feed(parser, request, known=(file_field, *fields))
        names = [target.multipart_filename for target in files.targets]
        if not names or None in names:
            raise InvalidInput(
                f"the form has no file in the field {file_field!r}", hint=f"-F {file_field}=@path/to/file"
            )
        uploads = [
            Upload(path=path, filename=_safe_name(name), bytes=path.stat().st_size)
            for path, name in zip(paths, names, strict=True)
        ]
        if any(upload.bytes > settings.max_upload_bytes for upload in uploads):
            raise TooLarge(f"the file is larger than {settings.max_upload_bytes} bytes")
        yield ReceivedFiles(
            uploads=uploads,
            fields={name: target.value.decode("utf-8", "replace") for name, target in values.items() if target.value},
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parser(kind: Any, request: Request, *, strict: bool) -> Any:
    try:
        return kind(headers=dict(request.headers), strict=strict)
    except Exception as error:  # the library raises its own and built-in errors for a missing boundary
        raise InvalidInput("the multipart body has no boundary", hint="let the HTTP client set Content-Type") from error


async def _feed(parser: Any, request: Request, *, known: Sequence[str]) -> None:
    from streaming_form_data.parser import ParseFailedException, UnexpectedPartException
    from streaming_form_data.validators import ValidationError

    try:
        async for chunk in request.stream():
            parser.data_received(chunk)
    except UnexpectedPartException as error:
        raise InvalidInput(
            f"the form has a field {error.part_name!r}, which this route does not know",
            hint=f"it takes {', '.join(known)}",
        ) from error
    except (ParseFailedException, UnicodeDecodeError) as error:
        raise InvalidInput(
            "the multipart body is malformed", hint="let the HTTP client build the form: curl -F file=@path/to/file"
        ) from error
    except ValidationError as error:
        raise TooLarge(f"a text field is larger than {_MAX_FIELD_BYTES} bytes") from error
    except ClientDisconnect as error:
        raise InvalidInput("the upload broke off", hint="send it again") from error
    except OSError as error:
        raise Unavailable(
            "the upload could not be written to disk", hint="free disk space in the data directory"
        ) from error


def _safe_name(name: str) -> str:
    """The last part of whatever path the client named, printable, at most 200 characters."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return "".join(c for c in last if c.isprintable())[:200] or "upload"
