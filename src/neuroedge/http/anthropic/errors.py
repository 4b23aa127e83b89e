"""Errors as Anthropic's clients expect them: `{"type": "error", "error": {"type", "message"}, "request_id"}`.

Statuses are our own but for 422 and 415, which become 400, and 503 without more to say, which becomes 529 (overloaded).
"""

from typing import Any

import structlog
from fastapi import Request, Response
from pydantic_core import to_json

from neuroedge.contract.errors import (
    BudgetExceeded,
    Forbidden,
    InvalidInput,
    NeuroEdgeError,
    NotFound,
    Overloaded,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from neuroedge.http.auth import request_id_of
from neuroedge.http.openai.errors import message_of, retry_headers
from neuroedge.http.openai.limits_headers import anthropic_headers

log = structlog.get_logger(__name__)
_SERVER = 500
_OVERLOADED = 529
_BAD_GATEWAY = 502
_TYPES: tuple[tuple[type[NeuroEdgeError], int, str], ...] = (
    (InvalidInput, 400, "invalid_request_error"),
    (BudgetExceeded, 402, "billing_error"),
    (Unauthenticated, 401, "authentication_error"),
    (Forbidden, 403, "permission_error"),
    (NotFound, 404, "not_found_error"),
    (TooLarge, 413, "request_too_large"),
    (Overloaded, 429, "rate_limit_error"),
)


def judged(error: NeuroEdgeError) -> tuple[int, str]:
    """Status and type."""
    for kind, status, name in _TYPES:
        if isinstance(error, kind):
            return status, name
    if isinstance(error, Unavailable) and error.status != _BAD_GATEWAY:
        return _OVERLOADED, "overloaded_error"
    return error.status, "api_error" if error.status >= _SERVER else "invalid_request_error"


def error_body(error: NeuroEdgeError, request_id: str | None = None) -> dict[str, Any]:
    """The body, also of an event within a stream."""
    body: dict[str, Any] = {"type": "error", "error": {"type": judged(error)[1], "message": message_of(error)}}
    if request_id is not None:
        body["request_id"] = request_id
    return body


def anthropic_error(request: Request, error: NeuroEdgeError) -> Response:
    """The answer to one of our own errors; what is our fault stands in the log."""
    if error.status >= _SERVER:
        log.error("request_failed", code=error.code, detail=error.detail)
    request_id = request_id_of(request)
    headers = {**anthropic_headers(request.scope.get("quota"), request_id), **retry_headers(error)}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    body = to_json(error_body(error, request_id))
    return Response(body, judged(error)[0], headers=headers, media_type="application/json")
