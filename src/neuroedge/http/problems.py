"""Errors as application/problem+json (RFC 9457): code, hint, request id; a 500 tells nothing internal."""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from neuroedge.contract.errors import InvalidInput, NeuroEdgeError

log = structlog.get_logger(__name__)

MAX_FIELD_ERRORS = 20
"""A body with a hundred thousand wrong fields gets an answer about the first ones."""
_CODES = {404: "not_found", 405: "method_not_allowed", 406: "not_acceptable"}


class Problem(BaseModel):
    """An error answer (RFC 9457)."""

    type: str = Field(description="about:blank: the code says what it is.")
    title: str = Field(description="The status in words.")
    status: int
    code: str = Field(description="Stable name of the error.")
    detail: str
    hint: str | None = Field(default=None, description="What to do about it.")
    request_id: str
    errors: list[dict[str, Any]] | None = Field(default=None, description="Fields that are wrong: loc, msg, type.")


def problem(
    request_id: str,
    *,
    status: int,
    code: str,
    detail: str,
    hint: str | None = None,
    retry_after_s: int | None = None,
    errors: Any = None,
) -> JSONResponse:
    """The error answer."""
    body = Problem(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        code=code,
        detail=detail,
        hint=hint,
        request_id=request_id,
        errors=[{**e, "loc": list(e["loc"])} for e in errors[:MAX_FIELD_ERRORS]] if errors else None,
    )
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s is not None else {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(
        body.model_dump(exclude_none=True), status, headers=headers, media_type="application/problem+json"
    )


def of_error(request_id: str, error: NeuroEdgeError) -> JSONResponse:
    """The answer to one of our own errors."""
    return problem(
        request_id,
        status=error.status,
        code=error.code,
        detail=error.detail,
        hint=error.hint,
        retry_after_s=error.usual_retry_after_s if error.retry_after_s is None else error.retry_after_s,
        errors=error.errors if isinstance(error, InvalidInput) else None,
    )


def answer_to(request_id: str, error: NeuroEdgeError) -> JSONResponse:
    """The answer to one of our own errors raised by a route; what is our fault stands in the log."""
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request_failed", code=error.code, detail=error.detail)
    return of_error(request_id, error)


def install(app: FastAPI) -> None:
    """Let every error of the application become a problem."""

    def request_id(request: Request) -> str:
        return str(request.scope.get("request_id", ""))

    @app.exception_handler(NeuroEdgeError)
    async def ours(request: Request, error: NeuroEdgeError) -> JSONResponse:
        return answer_to(request_id(request), error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [{key: e[key] for key in ("loc", "msg", "type")} for e in error.errors()]
        return problem(
            request_id(request),
            status=422,
            code="invalid_input",
            detail="the request is not what this route takes",
            hint="the OpenAPI page shows its schema: /docs",
            errors=errors,
        )

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> JSONResponse:
        code = _CODES.get(error.status_code, "invalid_input" if error.status_code < 500 else "internal")
        answer = problem(request_id(request), status=error.status_code, code=code, detail=str(error.detail))
        answer.headers.update(error.headers or {})
        return answer
