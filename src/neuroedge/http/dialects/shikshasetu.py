"""ShikshaSetu's chat, speech and health over the canonical services; its error body is {error, message, request_id}."""

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from sse_starlette.event import ServerSentEvent

from neuroedge.contract.errors import InvalidInput, NeuroEdgeError
from neuroedge.contract.speech import AudioFormat
from neuroedge.engines.speech.synthesis import MOST_CHARS
from neuroedge.http import assistant_answer
from neuroedge.http.auth import RequestId, Runner, ThePlatform
from neuroedge.http.departure import unless_client_leaves
from neuroedge.http.dialects.sessions import begun
from neuroedge.http.problems import answer_to
from neuroedge.http.routes import system
from neuroedge.infra.media_encode import MEDIA_TYPES
from neuroedge.services.chat.asking import Question
from neuroedge.services.chat.state import Event, Options


class ShikshaError(BaseModel):
    """An error as ShikshaSetu's clients read it."""

    error: str = Field(description="Stable name of the error.")
    message: str
    request_id: str


def shiksha_error(request: Request, error: NeuroEdgeError) -> Response:
    """The error with this dialect's body; status and headers are the canonical ones."""
    request_id = str(request.scope.get("request_id", ""))
    answer = answer_to(request_id, error)
    kept = {name: value for name, value in answer.headers.items() if name in ("retry-after", "www-authenticate")}
    body = ShikshaError(error=error.code, message=error.detail, request_id=request_id)
    return JSONResponse(body.model_dump(), answer.status_code, headers=kept)


class ShikshaRoute(APIRoute):
    """A route whose errors have this dialect's body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with its errors answered here."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except NeuroEdgeError as error:
                return shiksha_error(request, error)
            except RequestValidationError as error:
                wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
                return shiksha_error(request, InvalidInput(wrong))

        return answered


REFUSALS = dict.fromkeys(("/api/v2/chat", "/api/v2/content/speech", "/api/v2/batch"), shiksha_error)
"""How http/middleware.py refuses a body or a header of this path before a route sees it."""
router = APIRouter(prefix="/api/v2", tags=["ShikshaSetu dialect"], route_class=ShikshaRoute)


class ShikshaChatIn(BaseModel):
    """A message to the assistant."""

    model_config = ConfigDict(extra="forbid")

    message: str = Field(min_length=1, max_length=100_000)
    session_id: UUID | None = Field(default=None, description="Null: a new session.")
    stream: bool = Field(default=False, description="As `Accept: text/event-stream`.")
    max_tokens: int = Field(default=512, ge=1, le=8192)


class ShikshaChatOut(BaseModel):
    """The answer."""

    response: str
    session_id: UUID
    message_id: UUID
    answered: bool
    sources: list[dict[str, Any]]
    request_id: str


class ShikshaHealth(BaseModel):
    """Liveness and readiness."""

    status: str = Field(description="ready or not_ready; the process lives when it answers at all.")
    live: bool = True
    ready: bool
    checks: dict[str, Any]


@router.post(
    "/chat",
    summary="Ask the assistant",
    response_model=ShikshaChatOut,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def chat(
    body: ShikshaChatIn,
    request: Request,
    principal: Runner,
    platform: ThePlatform,
    request_id: RequestId,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """The answer at once, or as server-sent events of the types start, token, citation, done and error."""
    question = Question(text=body.message, options=Options(max_tokens=body.max_tokens))
    asked = await begun(platform, principal, body.session_id, question, request_id=request_id)
    if body.stream or "text/event-stream" in accept:
        return await assistant_answer.streamed(request, asked, _say(asked.session_id, request_id), headers={})
    told = await assistant_answer.whole(request, asked)
    answer = ShikshaChatOut(
        response=told.message.content,
        session_id=told.message.session_id,
        message_id=told.message.id,
        answered=told.answered,
        sources=[dict(one) for one in told.message.citations],
        request_id=request_id,
    )
    return JSONResponse(answer.model_dump(mode="json"))


class ShikshaSpeechIn(BaseModel):
    """A text to be said."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=MOST_CHARS)
    language: str = Field(default="en", pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,3}$", description="hi, ta, te, …")
    voice: str | None = Field(default=None, min_length=1, max_length=200, description="Null: the best one.")
    speed: float = Field(default=1.0, ge=0.25, le=4.0, allow_inf_nan=False)
    format: AudioFormat = "mp3"


class ShikshaSpeechOut(BaseModel):
    """The speech, and which of the backends spoke."""

    audio: str = Field(description="The file, in base64.")
    format: AudioFormat
    content_type: str
    language: str
    duration_s: float
    backend: str = Field(description="network, piper or espeak-ng.")
    voice: str
    fallback_reason: str | None = Field(description="Why it was not the first choice.")
    request_id: str


@router.post("/content/speech", summary="Say a text")
async def speech(
    body: ShikshaSpeechIn, request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> ShikshaSpeechOut:
    """The text as speech: by a voice of the network where there is one, else by one of this machine."""
    payload = {**body.model_dump(exclude={"voice"}), "voice": body.voice or "default"}
    work = platform.runner.run("synthesis", payload, principal=principal, request_id=request_id)
    said: Any = await unless_client_leaves(request, work)
    return ShikshaSpeechOut(
        audio=said.audio,
        format=said.format,
        content_type=MEDIA_TYPES[body.format],
        language=said.language,
        duration_s=said.duration_s,
        backend=said.method,
        voice=said.voice,
        fallback_reason=said.fallback_reason,
        request_id=request_id,
    )


@router.get("/health", summary="Liveness and readiness")
async def health(platform: ThePlatform) -> ShikshaHealth:
    """200 as long as the process answers; `ready` tells whether it can work."""
    found = await system.readiness(platform)
    return ShikshaHealth(
        status=found.status,
        ready=found.status == "ready",
        checks={name: check.model_dump(exclude_none=True) for name, check in found.checks.items()},
    )


def _say(session_id: UUID, request_id: str) -> assistant_answer.Say:
    def say(event: Event) -> list[ServerSentEvent]:
        told = _told(event, session_id, request_id)
        return [ServerSentEvent(data=json.dumps(told, ensure_ascii=False))] if told else []

    return say


def _told(event: Event, session_id: UUID, request_id: str) -> dict[str, Any] | None:
    match event.name:
        case "started":
            return {"type": "start", "session_id": str(session_id), "message_id": event.data["message_id"]}
        case "token":
            return {"type": "token", "content": event.data["text"]}
        case "citation":
            return {"type": "citation", "source": event.data}
        case "done":
            message = event.data["message"]
            return {"type": "done", "response": message.content, "message_id": str(message.id)}
        case "error":
            error = event.data["error"]
            return {"type": "error", "error": error.code, "message": error.detail, "request_id": request_id}
    return None
