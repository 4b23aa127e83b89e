"""Multipart uploads streamed to the data directory as they arrive: never in memory, and gone when the request ends."""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
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


def form_schema(file_field: str, fields: dict[str, str]) -> dict[str, Any]:
    """OpenAPI of a multipart body with one file; `fields` maps the names of text fields to their descriptions."""
    properties: dict[str, Any] = {file_field: {"type": "string", "format": "binary"}}
    properties |= {name: {"type": "string", "description": text} for name, text in fields.items()}
    schema = {"type": "object", "required": [file_field], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@asynccontextmanager
async def receive(request: Request, *, file_field: str, fields: Sequence[str] = ()) -> AsyncIterator[Received]:
    """The file of `file_field` on disk and the text fields. Raises UnsupportedMedia, InvalidInput, EmptyMedia or
    TooLarge; whatever happens, the file is gone afterwards."""
    from streaming_form_data import StreamingFormDataParser
    from streaming_form_data.targets import FileTarget, ValueTarget
    from streaming_form_data.validators import MaxSizeValidator

    settings = platform_of(request).settings
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise UnsupportedMedia("send the file as multipart/form-data", hint=f"curl -F {file_field}=@path/to/file")
    folder = settings.data_dir / "tmp" / str(new_id())
    folder.mkdir()
    path = folder / "upload"
    try:
        file = FileTarget(str(path))
        values = {name: ValueTarget(validator=MaxSizeValidator(_MAX_FIELD_BYTES)) for name in fields}
        parser = _parser(StreamingFormDataParser, request)
        parser.register(file_field, file)
        for name, target in values.items():
            parser.register(name, target)
        await _feed(parser, request)
        if file.multipart_filename is None or not path.exists():
            raise InvalidInput(
                f"the form has no file in the field {file_field!r}", hint=f"-F {file_field}=@path/to/file"
            )
        size = path.stat().st_size
        if size == 0:
            raise EmptyMedia("the file is empty", hint="check the path; nothing was sent")
        if size > settings.max_upload_bytes:
            raise TooLarge(f"the file is larger than {settings.max_upload_bytes} bytes")
        yield Received(
            upload=Upload(path=path, filename=_safe_name(file.multipart_filename), bytes=size),
            fields={name: target.value.decode("utf-8", "replace") for name, target in values.items() if target.value},
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parser(kind: Any, request: Request) -> Any:
    try:
        return kind(headers=dict(request.headers))
    except Exception as error:  # the library raises its own and built-in errors for a missing boundary
        raise InvalidInput("the multipart body has no boundary", hint="let the HTTP client set Content-Type") from error


async def _feed(parser: Any, request: Request) -> None:
    from streaming_form_data.parser import ParseFailedException
    from streaming_form_data.validators import ValidationError

    try:
        async for chunk in request.stream():
            parser.data_received(chunk)
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
