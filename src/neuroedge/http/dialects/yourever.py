"""Yourever's paths and field names over the canonical services; organisationId names no tenant, the token does."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuroedge.contract.errors import Forbidden, InvalidInput
from neuroedge.contract.principal import Principal
from neuroedge.http import assistant_answer
from neuroedge.http.assistant_answer import Answered
from neuroedge.http.auth import RequestId, Runner, ThePlatform
from neuroedge.http.dialects.sessions import begun
from neuroedge.http.platform import Platform
from neuroedge.kit.artifact_checks import Type
from neuroedge.services.artifact_drafts import MAX_INSTRUCTION, ArtifactDraft, Text, Title
from neuroedge.services.chat.asking import Question
from neuroedge.services.chat.state import Options

router = APIRouter(tags=["Yourever dialect"])
Words = Annotated[str, Field(min_length=1, max_length=100_000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    organisation_id: UUID | None = Field(
        default=None, alias="organizationId", description="Must be the caller's own; the token says which that is."
    )
    division_id: UUID | None = Field(default=None, alias="divisionId", description="Must be the caller's own.")


class AskedIn(_Body):
    """A question to the assistant."""

    question: Words
    session_id: UUID | None = Field(default=None, alias="sessionId", description="Null: a new session.")
    top_k: int = Field(default=6, alias="topK", ge=1, le=50)
    max_tokens: int = Field(default=512, alias="maxTokens", ge=1, le=8192)


class AskedOut(BaseModel):
    """The answer with its sources."""

    id: UUID
    sessionId: UUID  # noqa: N815 - the dialect's own name
    answer: str
    answered: bool
    sources: list[dict[str, Any]]
    artifacts: list[UUID]


class CompletionIn(_Body):
    """A message to the assistant."""

    message: Words
    session_id: UUID | None = Field(default=None, alias="sessionId", description="Null: a new session.")


class CompletionOut(BaseModel):
    """The answer."""

    id: UUID
    content: str
    artifacts: list[dict[str, Any]]
    sessionId: UUID  # noqa: N815 - the dialect's own name


class SemanticIn(_Body):
    """What to look for."""

    query: str = Field(min_length=1, max_length=8000)
    limit: int = Field(default=10, ge=1, le=50)


class SemanticHit(BaseModel):
    """One thing found."""

    id: UUID
    title: str | None
    content: str
    score: float
    metadata: dict[str, Any]


class SemanticOut(BaseModel):
    """Best first."""

    results: list[SemanticHit]


class GenerateIn(_Body):
    """What to make."""

    prompt: Text = Field(min_length=1, max_length=MAX_INSTRUCTION)
    type: Type = "document"
    title: Title | None = None
    language: str | None = Field(default=None, max_length=50, description="Of code.")
    session_id: UUID | None = Field(default=None, alias="sessionId")
    max_tokens: int = Field(default=1024, alias="maxTokens", ge=16, le=32_768)

    def draft(self) -> ArtifactDraft:
        """As the service takes it. Raises InvalidInput."""
        try:
            return ArtifactDraft(
                type=self.type,
                title=self.title,
                format=(self.language or "python") if self.type == "code" else None,
                instruction=self.prompt,
                session_id=self.session_id,
                max_tokens=self.max_tokens,
            )
        except ValidationError as error:
            raise InvalidInput(
                "the artifact cannot be made",
                hint="code needs the name of its language",
                errors=error.errors(include_url=False, include_input=False, include_context=False),
            ) from error


class GenerateOut(BaseModel):
    """What was made."""

    id: UUID
    type: str
    title: str
    content: str | None
    version: int
    valid: bool


@router.post("/api/v1/chat/ask", summary="Ask the assistant")
async def ask(
    body: AskedIn, request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> AskedOut:
    """An answer from memories, documents and recordings, with its sources."""
    question = Question(text=body.question, options=Options(top_k=body.top_k, max_tokens=body.max_tokens))
    told = await _told(body, body.session_id, question, request, principal, platform, request_id)
    message = told.message
    return AskedOut(
        id=message.id,
        sessionId=message.session_id,
        answer=message.content,
        answered=told.answered,
        sources=[dict(one) for one in message.citations],
        artifacts=list(message.artifacts),
    )


@router.post("/api/ai/chat/completions", summary="Send the assistant a message")
async def complete(
    body: CompletionIn, request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> CompletionOut:
    """The answer, and what was made for it."""
    question = Question(text=body.message)
    told = await _told(body, body.session_id, question, request, principal, platform, request_id)
    message = told.message
    made = [await platform.artifact_versions.get(principal, artifact_id) for artifact_id in message.artifacts]
    return CompletionOut(
        id=message.id,
        content=message.content,
        artifacts=[
            {
                "id": str(each.artifact.id),
                "type": each.artifact.type,
                "title": each.artifact.named.title,
                "content": each.content,
            }
            for each in made
        ],
        sessionId=message.session_id,
    )


@router.post("/api/v1/search/semantic", summary="Search what is remembered")
async def semantic(body: SemanticIn, principal: Runner, platform: ThePlatform, request_id: RequestId) -> SemanticOut:
    """By meaning and by words, best first."""
    await _check_place(body, principal, platform)
    payload = {"query": body.query, "top_k": body.limit, "rerank": True}
    answer: Any = await platform.runner.run("search", payload, principal=principal, request_id=request_id)
    return SemanticOut(
        results=[
            SemanticHit(id=hit.id, title=hit.title, content=hit.content, score=hit.score, metadata=hit.metadata)
            for hit in answer.hits
        ]
    )


@router.post("/api/v1/artifacts/generate", summary="Make an artifact")
async def generate(body: GenerateIn, principal: Runner, platform: ThePlatform, request_id: RequestId) -> GenerateOut:
    """A document, code, table, diagram, JSON or slides, checked; /v1/artifacts has its versions."""
    await _check_place(body, principal, platform)
    draft = body.draft()
    made = await platform.artifacts.create(principal, draft, request_id=request_id)
    return GenerateOut(
        id=made.artifact.id,
        type=made.artifact.type,
        title=made.artifact.named.title,
        content=made.content,
        version=made.artifact.version,
        valid=made.version.valid if made.version else False,
    )


async def _told(
    body: _Body,
    session_id: UUID | None,
    question: Question,
    request: Request,
    principal: Principal,
    platform: Platform,
    request_id: str,
) -> Answered:
    await _check_place(body, principal, platform)
    asked = await begun(platform, principal, session_id, question, request_id=request_id)
    return await assistant_answer.whole(request, asked)


async def _check_place(body: _Body, principal: Principal, platform: Platform) -> None:
    """Raise Forbidden for another organisation or division than the caller's."""
    if body.organisation_id not in (None, principal.org_id):
        raise Forbidden("organizationId is not the organisation of your token", hint="log in to that organisation")
    if body.division_id is not None:
        staff = await platform.divisions.list(principal)
        own = [member.division_id for member in staff.members if member.user_id == principal.user_id]
        if body.division_id not in own:
            raise Forbidden("divisionId is not your division")
