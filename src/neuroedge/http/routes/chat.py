"""Asking the assistant: POST /v1/sessions/{id}/messages, its cancelling, resuming and trace."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sse_starlette.sse import EventSourceResponse

from neuroedge.http import assistant_answer
from neuroedge.http.auth import Reader, RequestId, Runner, ThePlatform, Writer
from neuroedge.http.chat_schemas import MessageOut
from neuroedge.kit.artifact_checks import Type
from neuroedge.services.chat.asking import Question
from neuroedge.services.chat.state import Options

router = APIRouter(tags=["chat"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="A name of your choice for this question: sent again, it gives the first one's answer.",
    ),
]


class AskIn(BaseModel):
    """A question to the assistant."""

    model_config = ConfigDict(extra="forbid")

    content: str = Field(default="", max_length=100_000, description="What is asked; empty with `reply_to`.")
    stream: bool = Field(default=False, description="Answer with server-sent events instead of one body.")
    parent_id: UUID | None = Field(
        default=None, description="The message it follows; null: the end of the active branch."
    )
    reply_to: UUID | None = Field(
        default=None, description="A question of yours that is in the session already, to be answered (anew)."
    )
    attachments: list[UUID] = Field(default_factory=list, max_length=10, description="Files uploaded to the session.")
    model: str | None = Field(default=None, max_length=200, description="provider/model; else the session's.")
    local_only: bool = Field(default=False, description="Nothing of it may leave the machine.")
    max_tokens: int = Field(default=512, ge=1, le=8192, description="Longest answer, in tokens.")
    top_k: int = Field(default=6, ge=1, le=50, description="Excerpts to look up.")
    include_context: bool = Field(default=True, description="False: nothing is looked up.")
    tools: bool = Field(default=False, description="Let the assistant use tools, in several steps.")
    recording_id: UUID | None = Field(default=None, description="Answer from this recording only.")
    document_ids: list[UUID] = Field(default_factory=list, max_length=10, description="Answer from these only.")
    artifact: Type | None = Field(default=None, description="Make an artifact of this type.")

    @model_validator(mode="after")
    def _one_question(self) -> "AskIn":
        if self.reply_to is not None and (self.content or self.attachments or self.parent_id):
            raise ValueError("`reply_to` stands alone: the question is in the session already")
        if self.recording_id is not None and self.document_ids:
            raise ValueError("give a recording or documents")
        return self

    def question(self) -> Question:
        """As the assistant takes it."""
        return Question(
            text=self.content,
            parent_id=self.parent_id,
            reply_to=self.reply_to,
            attachments=tuple(self.attachments),
            options=Options(
                model=self.model,
                local_only=self.local_only,
                max_tokens=self.max_tokens,
                top_k=self.top_k,
                include_context=self.include_context,
                tools=self.tools,
                recording_id=self.recording_id,
                document_ids=tuple(self.document_ids),
                artifact=self.artifact,
            ),
        )


class AnswerOut(BaseModel):
    """The assistant's message, and whether what was found supports it."""

    message: MessageOut
    answered: bool = Field(description="False: nothing supports an answer, or it was cancelled.")
    reason: str | None = Field(description="Why it was not answered.")
    intent: str | None = Field(description="question, artifact, tool, clarify or small_talk; null for a repetition.")


class TraceOut(BaseModel):
    """The steps that led to an answer, in their order."""

    message_id: UUID
    state: str
    trace: list[dict[str, Any]]


_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream` the events started, stage, token, citation, artifact, trace, then "
        "done or error.",
        "content": {"application/json": {}, "text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.post(
    "/v1/sessions/{session_id}/messages",
    summary="Ask the assistant",
    response_model=AnswerOut,
    responses=_STREAM,
)
async def ask(
    session_id: UUID,
    body: AskIn,
    request: Request,
    principal: Runner,
    platform: ThePlatform,
    request_id: RequestId,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Keep the question and answer it from memories, documents and recordings, each sentence with its source."""
    asked = await platform.assistant.begin(
        principal, session_id, body.question(), request_id=request_id, idempotency_key=idempotency_key
    )
    return await _answer(request, asked, stream=body.stream, request_id=request_id)


@router.post(
    "/v1/sessions/{session_id}/messages/{message_id}/resume",
    summary="Go on with an answer whose process died",
    response_model=AnswerOut,
    responses=_STREAM,
)
async def resume(
    session_id: UUID,
    message_id: UUID,
    request: Request,
    principal: Runner,
    platform: ThePlatform,
    request_id: RequestId,
    stream: bool = False,
) -> Response:
    """Continue from the last saved step; of an answer that is there, the answer. 409 while somebody is at it."""
    asked = await platform.assistant.resume(principal, session_id, message_id, request_id=request_id)
    return await _answer(request, asked, stream=stream, request_id=request_id)


@router.post("/v1/sessions/{session_id}/messages/{message_id}/cancel", summary="Cancel an answer")
async def cancel(session_id: UUID, message_id: UUID, principal: Writer, platform: ThePlatform) -> MessageOut:
    """Stop an answer that is being written, whichever process is at it; what came so far is kept."""
    return MessageOut.of(await platform.assistant.cancel(principal, session_id, message_id))


@router.get("/v1/sessions/{session_id}/messages/{message_id}/trace", summary="Read how an answer came about")
async def trace(session_id: UUID, message_id: UUID, principal: Reader, platform: ThePlatform) -> TraceOut:
    """Every step with what it found, summarised, left out, used and checked."""
    message = await platform.chats.message(principal, session_id, message_id)
    return TraceOut(message_id=message.id, state=message.state, trace=[dict(entry) for entry in message.trace])


async def _answer(request: Request, asked: Any, *, stream: bool, request_id: str) -> Response:
    headers = {"X-Message-ID": str(asked.message.id)}
    if stream:
        say = assistant_answer.canonical(request_id)
        streamed: EventSourceResponse = await assistant_answer.streamed(request, asked, say, headers=headers)
        return streamed
    told = await assistant_answer.whole(request, asked)
    body = AnswerOut(
        message=MessageOut.of(told.message), answered=told.answered, reason=told.reason, intent=told.intent
    )
    return JSONResponse(body.model_dump(mode="json"), headers=headers)
