"""Around every request: its id, the size limit, time, metrics, one log line."""

import re
import time
from typing import Any

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neuroedge.contract.errors import TooLarge
from neuroedge.http.problems import of_error
from neuroedge.stores.ids import new_id

log = structlog.get_logger("neuroedge.http")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_MULTIPART_OVERHEAD_BYTES = 1 << 20
_QUIET = ("/health", "/ready", "/metrics")


class RequestEnvelope:
    """Outermost middleware, plain ASGI: no buffering, so that streams stay streams."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, max_upload_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else str(new_id())
        scope["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        exchange = _Exchange(scope, send, request_id)
        limit = self._limit(headers)
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            answer = of_error(request_id, too_large(limit))
            answer.headers["Connection"] = "close"
            await answer(scope, receive, exchange.send)
        else:
            await self._app(scope, exchange.counted(receive, limit), exchange.send)
        exchange.finish()

    def _limit(self, headers: dict[bytes, bytes]) -> int:
        if headers.get(b"content-type", b"").startswith(b"multipart/form-data"):
            return self._max_upload_bytes + _MULTIPART_OVERHEAD_BYTES
        return self._max_body_bytes


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

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self._scope = scope
        self._send = send
        self._request_id = request_id
        self._started = time.perf_counter()
        self._status = 499  # the client left before an answer
        self._refusal: Response | None = None
        self._refused = False

    def counted(self, receive: Receive, limit: int) -> Receive:
        """`receive` that stops at `limit` bytes of body."""
        received = 0

        async def counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # Kept besides being raised: a body parser on the way up may turn it into an error of its own.
                self._refusal = of_error(self._request_id, too_large(limit))
                self._refusal.headers["Connection"] = "close"
                raise too_large(limit)
            return message

        return counting

    async def send(self, message: Message) -> None:
        """Pass an answer's message on, or in its place the refusal of a body that was too large."""
        if self._refused:
            return
        if self._refusal is not None and message["type"] == "http.response.start":
            refusal, self._refusal, self._refused = self._refusal, None, False
            await refusal(self._scope, _nothing, self.send)
            self._refused = True
            return
        if message["type"] == "http.response.start":
            self._status = message["status"]
            seconds = time.perf_counter() - self._started
            extra: list[Any] = [
                (b"x-request-id", self._request_id.encode()),
                (b"x-process-time", f"{seconds:.4f}".encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
            message["headers"] = [*message.get("headers", []), *extra]
        await self._send(message)

    def finish(self) -> None:
        seconds = time.perf_counter() - self._started
        route = getattr(self._scope.get("route"), "path", "unmatched")
        platform = getattr(self._scope["app"].state, "platform", None) if "app" in self._scope else None
        if platform is not None:
            platform.metrics.http_seconds.labels(self._scope["method"], route, str(self._status)).observe(seconds)
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
