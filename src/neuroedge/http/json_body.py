"""A request's body as a JSON object, for routes whose schema is known only when they are called."""

import json
from email.message import Message
from typing import Any, NoReturn

from fastapi import Request

from neuroedge.contract.errors import InvalidInput, UnsupportedMedia

_HINT = "send a JSON object; GET /v1/engines/{name} shows an engine's schema and an example"


async def json_object(request: Request) -> dict[str, Any]:
    """The body. Raises UnsupportedMedia for another content type, InvalidInput for what is no JSON object.

    Names that stand twice are refused, as which one counts is anybody's guess, and so are NaN, Infinity and halves of
    surrogate pairs.
    """
    _check_type(request.headers.get("content-type", ""))
    body = await request.body()
    if not body:
        raise _invalid("the request has no body", "missing", 0)
    try:
        value = json.loads(body, object_pairs_hook=_unique, parse_constant=_no_number)
        if b"\\ud" in body or b"\\uD" in body:
            _refuse_halves(value)
    except json.JSONDecodeError as error:
        raise _invalid(f"the body is not JSON: {error.msg}", "json_invalid", error.pos) from error
    except (ValueError, RecursionError) as error:
        raise _invalid(f"the body is not JSON: {_reason(error)}", "json_invalid", 0) from error
    if not isinstance(value, dict):
        raise _invalid("the body is no JSON object", "dict_type", 0)
    return value


def _check_type(content_type: str) -> None:
    # The common case without a parser.
    if content_type == "application/json":
        return
    message = Message()
    message["content-type"] = content_type or "application/octet-stream"
    subtype = message.get_content_subtype()
    if message.get_content_maintype() != "application" or not (subtype == "json" or subtype.endswith("+json")):
        raise UnsupportedMedia("the body must be JSON", hint="send 'Content-Type: application/json'")


class _Refused(ValueError):
    """JSON that Python would take and we do not."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Refused(f"the name {twice[:100]!r} stands twice in one object")
    return found


def _refuse_halves(value: Any) -> None:
    """Half a surrogate pair is no character: nothing could store it or answer with it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _Refused("a text holds half a surrogate pair") from error


def _no_number(literal: str) -> NoReturn:
    raise _Refused(f"{literal} is no number of JSON")


def _reason(error: Exception) -> str:
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "it is no text in UTF-8" if isinstance(error, UnicodeError) else "a number is too long"


def _invalid(detail: str, kind: str, position: int) -> InvalidInput:
    return InvalidInput(detail, hint=_HINT, errors=[{"loc": ("body", position), "msg": detail, "type": kind}])
