"""Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}` and their status.

The clients choose their exception class by the status alone, so that of our own errors is changed where they differ:
422 and 415 become 400, 402 becomes 429 with `insufficient_quota` and `x-should-retry: false`.
"""

from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from neuroedge.contract.errors import (
    BudgetExceeded,
    ContentBlocked,
    ContextTooLong,
    Forbidden,
    InvalidInput,
    NeuroEdgeError,
    NotFound,
    Overloaded,
    Unauthenticated,
)
from neuroedge.http.departure import CLIENT_LEFT, ClientLeft
from neuroedge.http.openai.limits_headers import openai_headers

log = structlog.get_logger(__name__)
Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]
_SERVER = 500
_TYPES: tuple[tuple[type[NeuroEdgeError], int, str, str | None], ...] = (
    (ContextTooLong, 400, "invalid_request_error", "context_length_exceeded"),
    (ContentBlocked, 400, "invalid_request_error", "content_policy_violation"),
    (InvalidInput, 400, "invalid_request_error", None),
    (BudgetExceeded, 429, "insufficient_quota", "insufficient_quota"),
    (Overloaded, 429, "requests", "rate_limit_exceeded"),
    (Unauthenticated, 401, "invalid_request_error", "invalid_api_key"),
    (Forbidden, 403, "permission_error", None),
)
"""Class, status, type, code (None: our own); the first that fits."""


class ModelNotFound(NotFound):
    """The request names a model nobody offers."""

    code = "model_not_found"


def error_body(error: NeuroEdgeError) -> dict[str, Any]:
    """The body, also of an event within a stream."""
    _, kind, code = _judged(error)
    return {"error": {"message": message_of(error), "type": kind, "param": param_of(error), "code": code}}


def openai_error(request: Request, error: NeuroEdgeError) -> Response:
    """The answer to one of our own errors; what is our fault stands in the log."""
    status, _, _ = _judged(error)
    if error.status >= _SERVER:
        log.error("request_failed", code=error.code, detail=error.detail)
    headers = {**openai_headers(request.scope.get("quota")), **retry_headers(error)}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return Response(to_json(error_body(error)), status, headers=headers, media_type="application/json")


def retry_headers(error: NeuroEdgeError) -> dict[str, str]:
    """Whether and when to try again."""
    wait_s = error.usual_retry_after_s if error.retry_after_s is None else error.retry_after_s
    headers = {} if wait_s is None else {"retry-after": str(wait_s)}
    if isinstance(error, BudgetExceeded):
        # A client would try a 429 again at once; nothing changes until somebody raises the budget.
        headers["x-should-retry"] = "false"
    return headers


def message_of(error: NeuroEdgeError) -> str:
    """The detail, what is wrong with the first field, and the hint, in one text: these clients show nothing else."""
    text = error.detail
    if isinstance(error, InvalidInput) and error.errors:
        place, first = param_of(error), error.errors[0]
        text += f": {place}: {first.get('msg')}" if place else f": {first.get('msg')}"
    return f"{text} ({error.hint})" if error.hint else text


def param_of(error: NeuroEdgeError) -> str | None:
    """The field at fault, as `messages.0.content`."""
    if isinstance(error, ModelNotFound):
        return "model"
    if isinstance(error, ContextTooLong):
        return "messages"
    if isinstance(error, InvalidInput) and error.errors:
        place = [str(part) for part in error.errors[0].get("loc", ()) if part != "body"]
        return ".".join(place) or None
    return None


def _judged(error: NeuroEdgeError) -> tuple[int, str, str | None]:
    for kind, status, name, code in _TYPES:
        if isinstance(error, kind):
            return status, name, code or error.code
    return error.status, "server_error" if error.status >= _SERVER else "invalid_request_error", error.code


def ours(error: Exception) -> NeuroEdgeError:
    """Any exception of a route as one of our own; a defect is logged and tells nothing internal."""
    if isinstance(error, NeuroEdgeError):
        return error
    if isinstance(error, RequestValidationError):
        errors = [{key: e[key] for key in ("loc", "msg", "type")} for e in error.errors()]
        return InvalidInput("the request is not what this route takes", errors=errors)
    if isinstance(error, HTTPException) and error.status_code < _SERVER:
        return InvalidInput(str(error.detail))
    log.error("request_crashed", exc_info=error)
    return NeuroEdgeError("an unexpected error; the request id finds it in the log")


def with_errors(endpoint: Endpoint, answer: Callable[[Request, NeuroEdgeError], Response] = openai_error) -> Endpoint:
    """The endpoint; what it raises is answered as this API's clients expect."""

    async def handle(request: Request) -> Response:
        try:
            return await endpoint(request)
        except (ClientLeft, ClientDisconnect):
            return Response(status_code=CLIENT_LEFT)
        except Exception as error:
            return answer(request, ours(error))

    return handle


class OpenAIRoute(APIRoute):
    """A route of the framework whose errors are answered as OpenAI's clients expect.

    `APIRouter(route_class=OpenAIRoute)` makes every route of a router one.
    """

    def get_route_handler(self) -> Endpoint:
        """The framework's handler, errors and rate limit headers in OpenAI's shape."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            answer = await handler(request)
            answer.headers.update(openai_headers(request.scope.get("quota")))
            return answer

        return with_errors(handle)


class RawRoute(APIRoute):
    """A route whose endpoint gets the request alone and answers everything itself, errors too.

    FastAPI's dependencies and validation cost as much as all the rest of a small call; what is given of them here only
    stands in OpenAPI.
    """

    def get_route_handler(self) -> Endpoint:
        """The endpoint."""
        return self.endpoint
