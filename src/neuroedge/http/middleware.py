"""Around every request: its id, the size limit, time, metrics, one log line."""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
import uuid_utils
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neuroedge.contract.errors import InvalidInput, NeuroEdgeError, TooLarge, Unauthenticated
from neuroedge.contract.scope import call_scope
from neuroedge.http.auth import principal_of
from neuroedge.http.budget_header import SCOPE as BUDGET
from neuroedge.http.problems import answer_to, of_error, problem
from neuroedge.infra.limits import Quota
from neuroedge.services.api_keys import MARK

log = structlog.get_logger("neuroedge.http")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_MULTIPART_OVERHEAD_BYTES = 1 << 20
_QUIET = ("/health", "/ready", "/metrics")
ANONYMOUS_BODY_BYTES = 64 * 1024
UPLOAD_ROUTES = {
    ("POST", "/v1/recordings"),
    ("POST", "/v1/documents"),
    ("POST", "/v1/documents/batch"),
    ("PUT", "/v1/documents/{document_id}"),
    ("POST", "/v1/memories/import"),
    ("POST", "/transcription/upload"),
    ("POST", "/transcription/enroll-speaker"),
    ("POST", "/v1/voices"),
    ("POST", "/v1/voices/{voice_id}/samples"),
    ("POST", "/v1/voices/verify"),
    ("POST", "/v1/voices/identify"),
    ("POST", "/v1/audio/diarization"),
    ("POST", "/emotion/analyze"),
    ("POST", "/v1/audio/transcriptions"),
    ("POST", "/v1/audio/translations"),
    ("POST", "/audio/transcribe"),
    ("POST", "/vision/process"),
    ("POST", "/v1/files"),
    ("POST", "/v1/images"),
    ("POST", "/v1/sessions/{session_id}/attachments"),
}
"""Routes that stream their body to disk; a test finds those that are missing here."""
_UPLOADS = re.compile(re.sub(r"{\w+}", "[^/]+", "|".join(map(" ".join, sorted(UPLOAD_ROUTES)))))


class RequestEnvelope:
    """Outermost middleware, plain ASGI: no buffering, so that streams stay streams."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        max_upload_bytes: int,
        refusals: Mapping[str, Callable[[Request, NeuroEdgeError], Response]] | None = None,
    ) -> None:
        self._app = app
        self._refusals = refusals or {}
        """How errors are told on paths whose clients expect others than problems."""
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid_utils.uuid7())
        scope["request_id"] = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id)  # of this task: the server makes one a request
        if scope["type"] == "websocket":
            await self._socket(scope, headers, receive, send)
            return
        exchange = _Exchange(scope, send, request_id, self._refusals.get(scope["path"]))
        await _recognise(scope, headers)
        limit = self._limit(scope)
        announced = headers.get(b"content-length", b"0")
        try:
            if announced.isdigit() and int(announced) > limit:
                await exchange.refuse(_refusal(scope, limit))
            elif (patience := headers.get(b"x-request-timeout")) is not None:
                await self._within(patience, scope, exchange.counted(receive, limit), exchange)
            else:
                await self._app(scope, exchange.counted(receive, limit), exchange.send)
        except Exception as error:
            log.error("request_crashed", exc_info=error)
            if exchange.started:
                raise  # too late for an answer: the connection has to break
            await exchange.crash()
        finally:
            exchange.finish()

    async def _socket(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        """Handle one WebSocket: its caller and its log line; what it may send, its route decides."""
        started = time.perf_counter()
        await _recognise(scope, headers)
        try:
            await self._app(scope, receive, send)
        finally:
            log.info(
                "websocket",
                route=getattr(scope.get("route"), "path", "unmatched"),
                path=scope["path"],
                seconds=round(time.perf_counter() - started, 4),
                tenant_id=scope.get("tenant_id"),
            )

    async def _within(self, patience: bytes, scope: Scope, receive: Receive, exchange: "_Exchange") -> None:
        """Let the caller's deadline travel with the call, into every queue it waits in."""
        try:
            timeout_s = float(patience)
        except ValueError:
            timeout_s = 0.0
        if not 0 < timeout_s < float("inf"):
            await exchange.refuse(
                InvalidInput("X-Request-Timeout is no number of seconds", hint="send for example 2.5")
            )
            return
        with call_scope(timeout_s=timeout_s):
            await self._app(scope, receive, exchange.send)

    def _limit(self, scope: Scope) -> int:
        """Most bytes of this body.

        Bodies are parsed before a route checks its caller, so a caller without a good token may send little.
        """
        if "principal" not in scope:
            return ANONYMOUS_BODY_BYTES
        if _UPLOADS.fullmatch(f"{scope['method']} {scope['path']}"):
            return self._max_upload_bytes + _MULTIPART_OVERHEAD_BYTES
        return self._max_body_bytes


def _refusal(scope: Scope, limit: int) -> NeuroEdgeError:
    """The error of a body over its limit."""
    if "principal" not in scope and not scope["path"].startswith("/auth/"):
        why: NeuroEdgeError | None = scope.get("caller_error")
        return why or Unauthenticated("a body of this size needs a valid access token", hint="log in")
    return too_large(limit)


class DirectRoute:
    """Answers POST of one path by itself, in front of the framework's layers.

    They are made for any kind of route; for a small engine call they cost as much as the call
    (benchmarks/overhead.py). The same path stays a route of the application, for OpenAPI and other methods.
    """

    def __init__(self, app: ASGIApp, *, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        self._app = app
        self.path = path
        self._regex, _, _ = compile_path(path)
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        match = self._regex.match(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if match is None:
            await self._app(scope, receive, send)
            return
        scope["route"], scope["path_params"] = self, match.groupdict()
        try:
            answer = await self._endpoint(Request(scope, receive))
        except NeuroEdgeError as error:
            answer = answer_to(scope["request_id"], error)
        await answer(scope, receive, send)


async def _recognise(scope: Scope, headers: dict[bytes, bytes]) -> None:
    """Put the caller of a good token or API key into the scope, where http/auth.py finds it: it is read once."""
    platform = getattr(scope["app"].state, "platform", None)
    token = _token(headers)
    if platform is None or token is None:
        return
    try:
        client = scope.get("client")
        principal = await principal_of(platform, token, address=client[0] if client else "unknown")
    except NeuroEdgeError as error:
        # For a route that wants a caller; others do not look at it.
        scope["caller_error"] = error
        return
    scope["principal"], scope["tenant_id"] = principal, str(principal.org_id)


def _token(headers: dict[bytes, bytes]) -> str | None:
    """What the caller identifies itself with: a bearer token, or an API key as Anthropic's clients send it."""
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    key = headers.get(b"x-api-key", b"").decode("latin-1").strip()
    return key if key.startswith(MARK) else None


def _rate(quota: Quota) -> list[tuple[bytes, bytes]]:
    """A caller's standing with its rate limit; Reset in seconds from now."""
    return [
        (b"x-ratelimit-limit", b"%d" % quota.limit),
        (b"x-ratelimit-remaining", b"%d" % quota.remaining),
        (b"x-ratelimit-reset", b"%d" % quota.reset_s),
    ]


def too_large(limit: int) -> TooLarge:
    """The error of a body over its limit."""
    return TooLarge(
        f"the request is larger than the limit of {limit} bytes",
        hint="send less, or let the operator raise NEUROEDGE_MAX_UPLOAD_BYTES (uploads) or NEUROEDGE_MAX_BODY_BYTES",
    )


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


class _Exchange:
    """One request on its way: adds headers to the answer, then measures and logs."""

    def __init__(
        self,
        scope: Scope,
        send: Send,
        request_id: str,
        told: Callable[[Request, NeuroEdgeError], Response] | None = None,
    ) -> None:
        self._scope = scope
        self._told = told
        self._send = send
        self._request_id = request_id
        self._started = time.perf_counter()
        self._status = 499  # the client left before an answer
        self.started = False
        self._refusal: NeuroEdgeError | None = None
        self._refused = False

    async def refuse(self, error: NeuroEdgeError) -> None:
        """Answer without reading the body, and close: what is left of it must not be read as the next request."""
        told = self._told
        answer = of_error(self._request_id, error) if told is None else told(Request(self._scope), error)
        answer.headers["Connection"] = "close"
        await answer(self._scope, _nothing, self.send)

    async def crash(self) -> None:
        """The answer to a defect: an id to find it in the log, nothing internal."""
        answer = problem(
            self._request_id,
            status=500,
            code="internal",
            detail="an unexpected error; the request id finds it in the log",
        )
        await answer(self._scope, _nothing, self.send)

    def counted(self, receive: Receive, limit: int) -> Receive:
        """`receive` that stops at `limit` bytes of body."""
        received = 0

        async def counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # Kept besides being raised: a body parser on the way up may turn it into an error of its own.
                self._refusal = _refusal(self._scope, limit)
                raise self._refusal
            return message

        return counting

    async def send(self, message: Message) -> None:
        """Pass an answer's message on, or in its place the refusal of a body that was too large."""
        if self._refused:
            return
        if self._refusal is not None and message["type"] == "http.response.start":
            refusal, self._refusal, self._refused = self._refusal, None, False
            await self.refuse(refusal)
            self._refused = True
            return
        if message["type"] == "http.response.start":
            self.started = True
            self._status = message["status"]
            seconds = time.perf_counter() - self._started
            extra: list[Any] = [
                (b"x-request-id", self._request_id.encode()),
                (b"x-process-time", f"{seconds:.4f}".encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
            if (quota := self._scope.get("quota")) is not None:
                extra += _rate(quota)
            if (budget := self._scope.get(BUDGET)) is not None:
                extra.append((b"x-neuroedge-budget", budget))
            message["headers"] = [*message.get("headers", []), *extra]
        await self._send(message)

    def finish(self) -> None:
        seconds = time.perf_counter() - self._started
        route = getattr(self._scope.get("route"), "path", "unmatched")
        platform = getattr(self._scope["app"].state, "platform", None) if "app" in self._scope else None
        if platform is not None:
            platform.metrics.observe_http(self._scope["method"], route, self._status, seconds)
        if self._scope["path"] not in _QUIET:
            log.info(
                "request",
                method=self._scope["method"],
                route=route,
                path=self._scope["path"],
                status=self._status,
                seconds=round(seconds, 4),
                tenant_id=self._scope.get("tenant_id"),
            )
