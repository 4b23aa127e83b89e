"""Errors as gRPC tells them: a status, and what to do about it in the trailing metadata."""

from typing import Final

import grpc

from neuroedge.contract.errors import InvalidInput, NeuroEdgeError
from neuroedge.grpc.brain_pb2 import Problem

_MAX_FIELD_ERRORS: Final = 20
_MAX_TEXT: Final = 500
"""Characters of a text in the metadata, which clients take 8 KiB of."""
_STATUS: Final = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    402: grpc.StatusCode.RESOURCE_EXHAUSTED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
}
Metadata = tuple[tuple[str, str | bytes], ...]


def status_of(error: NeuroEdgeError) -> grpc.StatusCode:
    """The status an error is told by."""
    return _STATUS.get(error.status, grpc.StatusCode.INTERNAL)


def problem_of(error: NeuroEdgeError, request_id: str) -> Problem:
    """The error with all that a caller may know of it."""
    fields = error.errors[:_MAX_FIELD_ERRORS] if isinstance(error, InvalidInput) else ()
    after_s = error.usual_retry_after_s if error.retry_after_s is None else error.retry_after_s
    return Problem(
        code=error.code,
        detail=error.detail[:_MAX_TEXT],
        hint=(error.hint or "")[:_MAX_TEXT],
        errors=[
            Problem.FieldError(
                field=".".join(map(str, wrong["loc"]))[:200], message=str(wrong["msg"])[:200], type=str(wrong["type"])
            )
            for wrong in fields
        ],
        request_id=request_id,
        retry_after_s=after_s,
    )


def metadata_of(problem: Problem) -> Metadata:
    """For the end of a call; texts as ASCII, since metadata hold nothing else, and all of it in a Problem."""
    told: list[tuple[str, str | bytes]] = [("neuroedge-code", problem.code), ("x-request-id", problem.request_id)]
    if problem.hint:
        told.append(("neuroedge-hint", _ascii(problem.hint)))
    if problem.HasField("retry_after_s"):
        told.append(("retry-after", str(problem.retry_after_s)))
    told.append(("neuroedge-problem-bin", problem.SerializeToString()))
    return tuple(told)


def _ascii(text: str) -> str:
    """The printable ASCII of a text, a question mark for every other character."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)
