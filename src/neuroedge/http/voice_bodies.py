"""Bodies that are JSON with audio in base64, or a form with a file: routes of voices take either."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from neuroedge.contract.errors import InvalidInput, TooLarge, UnsupportedMedia
from neuroedge.http.auth import platform_of
from neuroedge.http.uploads import receive
from neuroedge.services.voices import Sample

M = TypeVar("M", bound=BaseModel)
JSON_FIELDS = ("consent", "labels")
"""Fields of a form that hold JSON."""


def either(
    model: type[BaseModel], file_field: str, fields: dict[str, str], *, required: Sequence[str] = ()
) -> dict[str, Any]:
    """OpenAPI of a body that is JSON of the model or a form with one file and these text fields."""
    properties: dict[str, Any] = {file_field: {"type": "string", "format": "binary"}}
    properties |= {name: {"type": "string", "description": text} for name, text in fields.items()}
    form = {"type": "object", "required": [file_field, *required], "properties": properties}
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    content = {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


@asynccontextmanager
async def form_or_json(
    request: Request, model: type[M], *, file_field: str, fields: Sequence[str], audio: str
) -> AsyncIterator[tuple[M, list[Sample]]]:
    """The body as the model, and the samples in it: of a form its one file, which is gone on leaving.

    `audio` names the field of the model that holds an audio source, or a list of them; in a form the file stands for
    it. Raises InvalidInput with the fields that are wrong, UnsupportedMedia, TooLarge, EmptyMedia.
    """
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with receive(request, file_field=file_field, fields=fields) as received:
            told = form_values(received.fields)
            stand_in = {"blob": "the file of the form"}
            several = "list" in str(model.model_fields[audio].annotation)
            body = checked(model, {**told, audio: [stand_in] if several else stand_in})
            yield body, [received.upload]
        return
    body = checked(model, await limited_json(request))
    given = getattr(body, audio)
    yield body, given if isinstance(given, list) else [given]


async def limited_json(request: Request) -> Any:
    """The body as JSON, no larger than bodies may be that are held in memory. Raises InvalidInput, TooLarge."""
    if "json" not in request.headers.get("content-type", ""):
        raise UnsupportedMedia("send JSON or multipart/form-data", hint="curl -F file=@path/to/sample.wav")
    limit, parts, size = platform_of(request).settings.max_body_bytes, [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"JSON is limited to {limit} bytes here", hint="send the file as multipart/form-data")
        parts.append(chunk)
    try:
        return json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the body is not JSON", hint="send a JSON object") from error


def checked(model: type[M], value: Any) -> M:
    """The value as the model. Raises InvalidInput with the fields that are wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidInput(
            "the request is not what this route takes",
            hint="GET /openapi.json shows the schema",
            errors=error.errors(include_url=False, include_input=False, include_context=False),
        ) from error


def form_values(fields: dict[str, str]) -> dict[str, Any]:
    """The fields of a form, those that hold JSON read. Raises InvalidInput."""
    return {name: _value(name, text) for name, text in fields.items()}


def _value(name: str, text: str) -> Any:
    if name not in JSON_FIELDS:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"the field {name!r} is not JSON",
            hint=f'-F \'{name}={{"…": "…"}}\'',
            errors=[{"loc": (name,), "msg": "not JSON", "type": "json_invalid"}],
        ) from error
