"""NeMo Server's paths and field names over the canonical services; /auth/* is the same in both."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.errors import DeadlineExceeded
from neuroedge.contract.models import Priority
from neuroedge.contract.scope import remaining_s
from neuroedge.http import assistant_answer
from neuroedge.http.auth import Reader, RequestId, Runner, ThePlatform, Writer
from neuroedge.http.dialects.sessions import begun
from neuroedge.http.uploads import form_schema, receive
from neuroedge.http.voice_bodies import checked, form_values
from neuroedge.services.chat.asking import Question
from neuroedge.services.chat.state import Options
from neuroedge.services.recordings import RecordingDetail
from neuroedge.services.tasks import Order
from neuroedge.services.voice_drafts import VoiceDraft
from neuroedge.stores.chat_messages import Usage
from neuroedge.stores.tasks import State

router = APIRouter(tags=["NeMo dialect"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Timestamp(BaseModel):
    """A segment as NeMo's clients read it."""

    start: float = Field(description="Seconds.")
    end: float = Field(description="Seconds.")
    speaker: str
    text: str


class TranscriptOut(BaseModel):
    """A finished transcript."""

    transcript_id: UUID
    text: str
    speakers: list[str]
    timestamps: list[Timestamp]
    language: str | None = None
    created_at: datetime

    @classmethod
    def of(cls, detail: RecordingDetail) -> "TranscriptOut":
        """From the canonical recording."""
        return cls(
            transcript_id=detail.recording.id,
            text=detail.text,
            speakers=list(dict.fromkeys(speaker.name or speaker.label for speaker in detail.speakers)),
            timestamps=[
                Timestamp(start=s.start_s, end=s.end_s, speaker=s.speaker, text=s.text) for s in detail.segments
            ],
            language=detail.language,
            created_at=detail.recording.created_at,
        )


class EnrolledOut(BaseModel):
    """A speaker who is known by the voice now."""

    speaker_id: str
    voice_id: UUID
    samples: int
    speech_s: float = Field(description="Seconds of speech behind it.")


class MemoryIn(_Body):
    """Something to remember."""

    content: str
    title: str | None = None
    tags: list[str] = []
    memory_type: str = "note"


class NemoMemoryOut(BaseModel):
    """Where it was remembered."""

    id: UUID
    memory_id: UUID


class SearchIn(_Body):
    """A question to what is remembered."""

    query: str
    top_k: int = 5


class FoundOut(BaseModel):
    """One remembered thing."""

    content: str
    score: float
    metadata: dict[str, Any]


class ChatIn(_Body):
    """A message, answered from what is remembered when `include_context`."""

    message: str = Field(min_length=1, max_length=8000)
    include_context: bool = True
    max_tokens: int = Field(default=256, ge=1, le=2048)
    session_id: UUID | None = Field(default=None, description="Null: a new session.")


class ChatOut(BaseModel):
    """The answer with its sources."""

    session_id: UUID
    response: str
    message: str
    answered: bool
    citations: list[dict[str, Any]]
    model: str | None
    usage: dict[str, Any]


class QueuedTaskIn(_Body):
    """Work for the queue: an engine's name with its input."""

    task_type: str
    payload: dict[str, Any]
    priority: Priority = "normal"


class QueuedTaskOut(BaseModel):
    """Where it was queued; GET /v1/tasks/{task_id} tells more."""

    task_id: UUID
    status: State


class Emotion(BaseModel):
    """An emotion of the words, over the whole file."""

    label: str
    score: float


class EmotionOut(BaseModel):
    """Emotions of a file."""

    emotions: list[Emotion]
    audio_metrics: dict[str, Any]


@router.post(
    "/transcription/upload",
    summary="Transcribe a file, answered when the transcript is ready",
    openapi_extra=form_schema("file", {"context": "What the recording is about."}),
)
async def upload(request: Request, principal: Writer, platform: ThePlatform, request_id: RequestId) -> TranscriptOut:
    """Keep and process the file; the answer comes when it is done."""
    async with receive(request, file_field="file", fields=("context",)) as received:
        recording = await platform.recordings.add(
            received.upload, principal=principal, request_id=request_id, context=received.fields.get("context")
        )
    try:
        timeout_s = remaining_s(platform.settings.request_timeout_s)
        await platform.recording_progress.wait(principal, recording.id, timeout_s=timeout_s)
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"the transcript {recording.id} is not ready yet; the work goes on",
            hint=f"GET /v1/recordings/{recording.id}",
        ) from error
    return TranscriptOut.of(await platform.recordings.get(principal, recording.id))


@router.get("/transcription/recent", summary="The newest finished transcripts")
async def recent(
    principal: Reader, platform: ThePlatform, limit: Annotated[int, Query(ge=1, le=100)] = 10
) -> list[TranscriptOut]:
    """Newest first."""
    found = await platform.recordings.list(principal, limit=limit, status="done")
    return [TranscriptOut.of(await platform.recordings.get(principal, recording.id)) for recording in found]


ENROL_FIELDS = {
    "speaker_id": "What you call the speaker; the same one again adds a sample.",
    "name": "What transcripts call the speaker; speaker_id when not given.",
    "consent": "A JSON object (given_by, at, purposes, text_version, minor, guardian); needed the first time.",
    "keep_days": "Days after which the voice is deleted.",
}


@router.post(
    "/transcription/enroll-speaker",
    summary="Enrol a speaker's voice",
    openapi_extra=form_schema("audio_file", ENROL_FIELDS),
)
async def enroll_speaker(
    request: Request, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> EnrolledOut:
    """Know a speaker by the voice from now on. NeMo's form, and a consent, without which no voice is kept."""
    async with receive(request, file_field="audio_file", fields=tuple(ENROL_FIELDS)) as received:
        fields = form_values(received.fields)
        speaker_id = str(fields.pop("speaker_id", ""))
        draft = checked(VoiceDraft, {"name": speaker_id, **fields, "external_id": speaker_id})
        detail = await platform.voices.enrol_external(principal, draft, [received.upload], request_id=request_id)
    return EnrolledOut(
        speaker_id=speaker_id,
        voice_id=detail.voice.id,
        samples=len(detail.samples),
        speech_s=round(sum(float(sample.quality["speech_s"]) for sample in detail.samples), 2),
    )


@router.post("/queue/task", status_code=202, summary="Run an engine in the background")
async def queue_task(
    body: QueuedTaskIn, response: Response, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> QueuedTaskOut:
    """Keep the task and run it when a worker is free; /v1/tasks has the rest of its life."""
    order = Order(engine=body.task_type, payload=body.payload, priority=body.priority)
    task = await platform.tasks.submit(order, principal=principal, request_id=request_id)
    response.headers["Location"] = f"/v1/tasks/{task.id}"
    return QueuedTaskOut(task_id=task.id, status=task.state)


@router.post("/rag/memory", summary="Remember a text")
async def remember(body: MemoryIn, principal: Writer, platform: ThePlatform, request_id: RequestId) -> NemoMemoryOut:
    """Store one memory."""
    answer = await platform.runner.run(
        "memory", {"items": [body.model_dump()]}, principal=principal, request_id=request_id
    )
    memory_id = answer.model_dump()["ids"][0]
    return NemoMemoryOut(id=memory_id, memory_id=memory_id)


@router.post("/rag/search", summary="Search what is remembered")
async def search(body: SearchIn, principal: Runner, platform: ThePlatform, request_id: RequestId) -> list[FoundOut]:
    """Best first."""
    answer = await platform.runner.run("search", body.model_dump(), principal=principal, request_id=request_id)
    return [
        FoundOut(
            content=hit["content"],
            score=hit["score"],
            metadata={
                **hit["metadata"],
                "id": str(hit["id"]),
                "title": hit["title"],
                "tags": hit["tags"],
                "created_at": hit["created_at"],
            },
        )
        for hit in answer.model_dump(mode="json")["hits"]
    ]


@router.post("/gemma/chat", summary="Ask")
async def chat(
    body: ChatIn, request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> ChatOut:
    """An answer from what is remembered, with its sources; kept in a session, which the next message can name."""
    options = Options(max_tokens=body.max_tokens, include_context=body.include_context)
    question = Question(text=body.message, options=options)
    asked = await begun(platform, principal, body.session_id, question, request_id=request_id)
    told = await assistant_answer.whole(request, asked)
    message = told.message
    spent = message.usage or Usage()
    return ChatOut(
        session_id=message.session_id,
        response=message.content,
        message=message.content,
        answered=told.answered,
        citations=[dict(one) for one in message.citations],
        model=message.model,
        usage={
            "prompt_tokens": spent.prompt_tokens,
            "completion_tokens": spent.completion_tokens,
            "cost_usd": spent.cost,
            "unpriced": spent.unpriced,
        },
    )


@router.post(
    "/emotion/analyze",
    summary="Emotions of a recording, without keeping it",
    openapi_extra=form_schema("file", {}),
)
async def emotion(request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId) -> EmotionOut:
    """Emotions of the words spoken in the file, and measures of its sound."""
    async with receive(request, file_field="file") as received:
        found = await platform.recordings.feel(received.upload, principal=principal, request_id=request_id)
    return EmotionOut(
        emotions=[Emotion(label=e["label"], score=e["score"]) for e in found["emotions"]],
        audio_metrics=found["audio_metrics"],
    )
