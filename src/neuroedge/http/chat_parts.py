"""Pieces of a conversation that several APIs write alike: pictures, tools, schemas, what a caller prefers."""

import base64
import binascii
import io
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuroedge.contract.chat import Image, Tool
from neuroedge.contract.errors import InvalidInput, TooLarge, UnreadableMedia

B = TypeVar("B", bound=BaseModel)
MAX_TOKENS: Final = 2048
"""Of an answer, where the caller says nothing."""
MAX_TOOLS: Final = 128
MAX_STOPS: Final = 16
_MAX_PIXELS: Final = 50_000_000
_DATA_URL: Final = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)(?:;[\w=.-]+)*;base64,(?P<data>.*)", re.DOTALL)
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_MEDIA_TYPES: Final = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}


class Preferences(BaseModel):
    """NeuroEdge's own addition: which models may answer, and which should."""

    model_config = ConfigDict(extra="forbid")

    local_only: bool = Field(default=False, description="Nothing leaves the machine.")
    prefer: Literal["cost", "latency", "quality"] | None = None
    query_type: str | None = Field(default=None, max_length=50)
    fallback: bool = Field(default=True, description="Whether another model may answer when the first cannot.")


class Lenient(BaseModel):
    """What unknown fields may stand beside: clients are newer than servers."""

    model_config = ConfigDict(extra="ignore")


def understood(kind: type[B], body: Mapping[str, Any]) -> B:
    """The body as its schema says. Raises InvalidInput naming the fields."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        places: list[dict[str, Any]] = [
            {**e, "loc": tuple(part for part in e["loc"] if not _is_alternative(part))} for e in found
        ]
        # Of alternatives the one that got furthest is what was meant.
        places.sort(key=lambda e: -len(e["loc"]))
        raise InvalidInput("the request is not what this route takes", errors=places) from error


def _is_alternative(part: str | int) -> bool:
    """Whether a part of a place is pydantic's name for one of several types, which no caller knows."""
    return isinstance(part, str) and (part == "str" or part.startswith(("list[", "constrained-", "tagged-union[")))


def wrong(place: tuple[str | int, ...], message: str) -> InvalidInput:
    """A field that is well-formed and still not to be used."""
    return InvalidInput("the request cannot be served", errors=[{"loc": place, "msg": message, "type": "value_error"}])


def picture_at(url: str, place: tuple[str | int, ...]) -> Image:
    """The picture of a data URL. Raises InvalidInput for another URL, UnreadableMedia, TooLarge."""
    found = _DATA_URL.fullmatch(url)
    if found is None:
        raise wrong(place, "send the picture itself as data:image/png;base64,…: no URL is fetched")
    return picture_of(found["data"], place)


def picture_of(text: str, place: tuple[str | int, ...]) -> Image:
    """The picture of a base64 text, of the type its bytes say. Raises InvalidInput, UnreadableMedia, TooLarge."""
    from PIL import Image as Pillow

    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise wrong(place, "the picture is no base64") from error
    try:
        # The header only: whoever uses the pixels unpacks them.
        with Pillow.open(io.BytesIO(data), formats=tuple(_MEDIA_TYPES)) as picture:
            kind, size = str(picture.format), picture.size
    except (OSError, ValueError, SyntaxError, EOFError, Pillow.DecompressionBombError) as error:
        where = ".".join(str(part) for part in place)
        raise UnreadableMedia(f"{where} is no PNG, JPEG, WebP or GIF picture", hint="check the file") from error
    if size[0] * size[1] > _MAX_PIXELS:
        raise TooLarge(f"the picture has more than {_MAX_PIXELS} pixels", hint="send a smaller one")
    return Image(media_type=_MEDIA_TYPES[kind], data=data)


def tool_of(
    name: str, description: str | None, parameters: Mapping[str, Any] | None, *, place: tuple[str | int, ...]
) -> Tool:
    """A function the model may ask for. Raises InvalidInput for a bad name or schema."""
    if not _TOOL_NAME.fullmatch(name):
        raise wrong((*place, "name"), "1 to 128 of A-Z a-z 0-9 _ . -")
    if not parameters:
        return Tool(name=name, description=description or "")
    schema = schema_of(parameters, (*place, "parameters"))
    if schema.get("type", "object") != "object":
        raise wrong((*place, "parameters"), "the schema of a function's parameters must be that of an object")
    return Tool(name=name, description=description or "", parameters=schema)


def schema_of(schema: Mapping[str, Any], place: tuple[str | int, ...]) -> Mapping[str, Any]:
    """A JSON Schema. Raises InvalidInput for what is none."""
    if (problem := _schema_problem(json.dumps(schema))) is not None:
        raise wrong(place, f"is no JSON Schema: {problem}")
    return schema


@lru_cache(maxsize=256)
def _schema_problem(text: str) -> str | None:
    """What is wrong with a schema; callers send the same ones again and again, and judging one takes milliseconds."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for

    schema = json.loads(text)
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except (SchemaError, RecursionError) as error:
        if isinstance(error, RecursionError):
            return "nested too deeply"
        where = "/".join(str(part) for part in error.absolute_path)
        return f"{error.message[:200]} at {where or 'its root'}"
    return None


def inlined(kind: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON Schema without references, for OpenAPI's requestBody."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, list):
            return [resolved(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        if (reference := value.get("$ref")) is not None:
            rest = {key: inner for key, inner in value.items() if key != "$ref"}
            return resolved({**definitions[reference.rsplit("/", 1)[1]], **rest})
        # A discriminator's mapping refers to definitions that are not there any more.
        return {key: resolved(inner) for key, inner in value.items() if key != "discriminator"}

    inline: dict[str, Any] = resolved(schema)
    return inline
