"""Around every call: who calls, how often, how long, how large, what is told of errors; as http/middleware.py does.

The message is read only when its caller is known and has calls left: nobody else can make the server hold it.
"""

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
import structlog
import uuid_utils
from google.protobuf.message import DecodeError, Message
from prometheus_client import CollectorRegistry, Histogram

from neuroedge.contract.errors import (
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    NeuroEdgeError,
    Unauthenticated,
)
from neuroedge.contract.principal import RUN_ENGINES, Principal
from neuroedge.contract.scope import call_scope
from neuroedge.grpc.problems import metadata_of, problem_of, status_of
from neuroedge.infra.limits import RateLimits
from neuroedge.infra.tokens import AccessTokens
from neuroedge.services import callers
from neuroedge.services.api_keys import MARK, ApiKeys
from neuroedge.services.callers import ENGINE_CALLS, PREDICTIONS

log = structlog.get_logger("neuroedge.grpc")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_ROUNDED_UP_S: Final = 0.001
"""gRPC counts deadlines in whole milliseconds, up: no call may outlast its caller by that."""
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, and the id of the call."""

    principal: Principal
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """Calls an organisation may make a minute; 0: no limit."""

    engines: int
    predictions: int


class Gate:
    """Lets calls of known callers through."""

    def __init__(
        self,
        *,
        tokens: AccessTokens,
        api_keys: ApiKeys,
        limits: RateLimits,
        quotas: Quotas,
        registry: CollectorRegistry,
        longest_s: float,
    ) -> None:
        self._tokens = tokens
        self._api_keys = api_keys
        self._limits = limits
        self._quotas = quotas
        self._longest_s = longest_s
        self._seconds = Histogram(
            "neuroedge_grpc_request_seconds",
            "Time of a gRPC call by the status of its answer.",
            ("method", "status"),
            buckets=_SECONDS,
            registry=registry,
        )

    def handler(
        self,
        name: str,
        request: type[Message],
        answer: Callable[[Any, Caller], Awaitable[Message]],
        *,
        prediction: bool = False,
    ) -> "grpc.RpcMethodHandler[bytes, Message]":
        """A method that takes one message; `prediction`: it counts against the organisation's predictions too."""

        async def call(messages: AsyncIterator[bytes], context: Context) -> Message:
            started = time.perf_counter()
            request_id = _request_id(context)
            status, principal = grpc.StatusCode.CANCELLED, None
            structlog.contextvars.bind_contextvars(request_id=request_id)  # of this task: the server makes one a call
            try:
                await context.send_initial_metadata((("x-request-id", request_id),))
                principal = await self._caller(context)
                await self._count(principal, prediction=prediction)
                caller = Caller(principal=principal, request_id=request_id)
                with call_scope(timeout_s=self._patience_s(context)):
                    made = await answer(await _only(messages, request), caller)
                status = grpc.StatusCode.OK
                return made
            except NeuroEdgeError as error:
                status = status_of(error)
                if status in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE):
                    log.error("request_failed", code=error.code, detail=error.detail)
                await _refuse(context, error, request_id)
            except Exception as error:
                status = grpc.StatusCode.INTERNAL
                log.error("request_crashed", exc_info=error)
                unexpected = NeuroEdgeError("an unexpected error; the request id finds it in the log")
                await _refuse(context, unexpected, request_id)
            finally:
                seconds = time.perf_counter() - started
                self._seconds.labels(name, status.name).observe(seconds)
                log.info(
                    "grpc_request",
                    method=name,
                    status=status.name,
                    seconds=round(seconds, 4),
                    tenant_id=principal and str(principal.org_id),
                )

        # A client that sends one message and one that may send many look the same on the wire; a method of the second
        # kind decides itself when the message is read.
        return grpc.stream_unary_rpc_method_handler(
            call,
            response_serializer=lambda message: message.SerializeToString(),
        )

    async def _caller(self, context: Context) -> Principal:
        """Whom the call's metadata name. Raises Unauthenticated, Forbidden, Overloaded, Unavailable."""
        token = _token(context)
        if token is None:
            raise Unauthenticated(
                "this call needs an access token or an API key", hint="send metadata 'authorization: Bearer <token>'"
            )
        address = _address(context)
        principal = await callers.principal_of(token, tokens=self._tokens, api_keys=self._api_keys, address=address)
        if not principal.may(RUN_ENGINES):
            raise Forbidden(f"this needs the permission {RUN_ENGINES}")
        return principal

    async def _count(self, principal: Principal, *, prediction: bool) -> None:
        """Take one of the organisation's calls. Raises Overloaded."""
        counted = [(ENGINE_CALLS, self._quotas.engines)]
        if prediction:
            counted.append((PREDICTIONS, self._quotas.predictions))
        for allowance, per_minute in counted:
            callers.granted(await callers.spend(self._limits, allowance, per_minute, principal), allowance)

    def _patience_s(self, context: Context) -> float:
        """How long the caller waits. Raises DeadlineExceeded when that is over."""
        remaining_s = context.time_remaining()
        if remaining_s is None:
            return self._longest_s
        left_s = remaining_s - _ROUNDED_UP_S
        if left_s <= 0:
            raise DeadlineExceeded("the call's deadline has passed", hint="give it more time")
        return float(min(left_s, self._longest_s))


async def _only(messages: AsyncIterator[bytes], kind: type[Message]) -> Message:
    """The message of a call. Raises InvalidInput for none, and for what is no such message."""
    async for data in messages:
        try:
            return kind.FromString(data)
        except DecodeError as error:
            raise InvalidInput(
                f"the bytes are no {kind.DESCRIPTOR.full_name}", hint="brain.proto has the fields"
            ) from error
    raise InvalidInput("the call holds no message, or one over the limit", hint="send exactly one, and less")


async def _refuse(context: Context, error: NeuroEdgeError, request_id: str) -> NoReturn:
    problem = problem_of(error, request_id)
    await context.abort(status_of(error), problem.detail, metadata_of(problem))
    raise AssertionError  # abort raises


def _metadata(context: Context, name: str) -> str:
    """The first value of a name, empty when there is none."""
    for key, value in context.invocation_metadata() or ():
        if key == name:
            return value.decode("latin-1") if isinstance(value, bytes) else value
    return ""


def _token(context: Context) -> str | None:
    scheme, _, token = _metadata(context, "authorization").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    key = _metadata(context, "x-api-key").strip()
    return key if key.startswith(MARK) else None


def _request_id(context: Context) -> str:
    given = _metadata(context, "x-request-id")
    return given if _REQUEST_ID.fullmatch(given) else str(uuid_utils.uuid7())


def _address(context: Context) -> str:
    """Where the call comes from: ipv4:127.0.0.1:50123 without its port."""
    return context.peer().rpartition(":")[0] or "unknown"
