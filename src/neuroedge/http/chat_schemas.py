"""Chat sessions, messages and attachments as the canonical API shows and takes them."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.ports import Visibility
from neuroedge.http.memory_schemas import Cursor, cursor
from neuroedge.http.schemas import Failure
from neuroedge.services.chat.attachments import ReadAttachment
from neuroedge.services.chat.changes import SessionChanges
from neuroedge.services.chat.checks import MAX_ATTACHMENTS, MAX_CONTENT, MAX_SYSTEM_PROMPT, MAX_TITLE
from neuroedge.services.chat.search import FoundMessage
from neuroedge.services.chat.sessions import MessagePage
from neuroedge.services.memory_drafts import Plain
from neuroedge.stores.chat_attachments import Attachment
from neuroedge.stores.chat_messages import Feedback, Message
from neuroedge.stores.chat_sessions import Session, SessionSettings

SessionTitle = Annotated[str, Plain, Field(min_length=1, max_length=MAX_TITLE)]
ModelName = Annotated[str, Plain, Field(max_length=200)]
SystemPrompt = Annotated[str, Plain, Field(max_length=MAX_SYSTEM_PROMPT)]
MessageText = Annotated[str, Plain, Field(max_length=MAX_CONTENT)]


class SessionIn(BaseModel):
    """A session to begin."""

    model_config = ConfigDict(extra="forbid")

    title: SessionTitle | None = Field(default=None, description="Made from the first question when not given.")
    model: ModelName | None = Field(default=None, description="`provider/model`; the organisation's choice by default.")
    local_only: bool = Field(default=False, description="Nothing of it leaves the machine.")
    system_prompt: SystemPrompt | None = Field(default=None, description="How the assistant shall behave.")
    visibility: Visibility = Field(default="private", description="Who else may read it; nobody but you may write.")

    def settings(self) -> SessionSettings:
        """As the service takes them."""
        return SessionSettings(local_only=self.local_only, system_prompt=self.system_prompt or None)


class SessionPatch(BaseModel):
    """What to change of a session; what is not given stays."""

    model_config = ConfigDict(extra="forbid")

    title: SessionTitle | None = None
    model: ModelName | None = Field(default=None, description="Empty: the organisation's choice.")
    local_only: bool | None = None
    system_prompt: SystemPrompt | None = Field(default=None, description="Empty: none.")
    archived: bool | None = None
    visibility: Visibility | None = None
    leaf_id: UUID | None = Field(default=None, description="Show the branch of this message, to its newest end.")

    @model_validator(mode="after")
    def _something(self) -> "SessionPatch":
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError("give at least one field to change")
        return self

    def changes(self) -> SessionChanges:
        """As the service takes them."""
        return SessionChanges(**self.model_dump())


class SessionOut(BaseModel):
    """A session."""

    id: UUID
    user_id: UUID = Field(description="Whose it is.")
    title: str | None
    model: str | None
    local_only: bool
    system_prompt: str | None
    visibility: Visibility
    archived: bool
    leaf_id: UUID | None = Field(description="The newest message of the branch that is shown.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, session: Session) -> "SessionOut":
        """From the stored row."""
        settings = session.settings
        names = ("id", "user_id", "title", "model", "visibility", "archived", "leaf_id", "created_at", "updated_at")
        return cls(
            **{name: getattr(session, name) for name in names},
            local_only=settings.local_only,
            system_prompt=settings.system_prompt,
        )


class SessionQuery(BaseModel):
    """A page of sessions."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=200)
    before: Cursor | None = Field(default=None, description="`next` of the page before.")
    archived: bool = Field(default=False, description="Archived ones, instead of the others.")
    shared: bool = Field(default=False, description="Those of others that you may read, instead of your own.")


class SessionPage(BaseModel):
    """Sessions by their last change, the latest first."""

    sessions: list[SessionOut]
    next: str | None = Field(default=None, description="Give it as `before` to get the next page.")

    @classmethod
    def of(cls, found: list[Session], *, limit: int) -> "SessionPage":
        """From one session more than the page holds."""
        page = found[:limit]
        last = page[-1] if len(found) > limit else None
        return cls(
            sessions=[SessionOut.of(session) for session in page],
            next=cursor(last.updated_at, last.id) if last else None,
        )


class FeedbackIn(BaseModel):
    """What the user thinks of an answer."""

    model_config = ConfigDict(extra="forbid")

    rating: Literal["up", "down"]
    reason: Annotated[str, Plain, Field(max_length=100)] | None = Field(
        default=None, description="In a word: wrong, incomplete, unsafe, slow …"
    )
    comment: Annotated[str, Plain, Field(max_length=4000)] | None = None

    def feedback(self) -> Feedback:
        """As the service takes it."""
        return Feedback(rating=self.rating, reason=self.reason, comment=self.comment)


class FeedbackOut(BaseModel):
    """What the user thinks of an answer."""

    model_config = ConfigDict(from_attributes=True)

    rating: Literal["up", "down"]
    reason: str | None
    comment: str | None


class MessageUsage(BaseModel):
    """What an answer took."""

    model_config = ConfigDict(from_attributes=True)

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = Field(description="Of the prompt, those that were not computed anew.")
    cost: str = Field(description="US dollars, a decimal number.")
    unpriced: bool = Field(description="A model without a known price took part: it cost more.")


class MessageOut(BaseModel):
    """A message and its place in the session's tree."""

    id: UUID
    session_id: UUID
    parent_id: UUID | None = Field(description="The message it follows; null: it begins the session.")
    role: Literal["system", "user", "assistant", "tool"]
    state: Literal["running", "done", "failed", "cancelled"]
    content: str
    attachments: list[UUID]
    citations: list[dict[str, Any]]
    artifacts: list[UUID]
    tool_calls: list[dict[str, Any]]
    trace: list[dict[str, Any]] = Field(description="The steps that led to the answer, in order.")
    usage: MessageUsage | None
    model: str | None
    error: Failure | None
    feedback: FeedbackOut | None
    branches: list[UUID] | None = Field(
        default=None, description="All messages in its place, the oldest first: itself, edited ones, other answers."
    )
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, message: Message, *, branches: list[UUID] | None = None) -> "MessageOut":
        """From the stored row."""
        error = message.error
        return cls(
            id=message.id,
            session_id=message.session_id,
            parent_id=message.parent_id,
            role=message.role,
            state=message.state,
            content=message.content,
            attachments=list(message.attachments),
            citations=[dict(one) for one in message.citations],
            artifacts=list(message.artifacts),
            tool_calls=[dict(one) for one in message.tool_calls],
            trace=[dict(one) for one in message.trace],
            usage=MessageUsage.model_validate(message.usage) if message.usage else None,
            model=message.model,
            error=Failure(code=error.code, detail=error.detail, hint=error.hint) if error else None,
            feedback=FeedbackOut.model_validate(message.feedback) if message.feedback else None,
            branches=branches,
            created_at=message.created_at,
            updated_at=message.updated_at,
        )


class MessagePageOut(BaseModel):
    """The last messages of a branch, in their order."""

    messages: list[MessageOut]
    previous: UUID | None = Field(default=None, description="Give it as `leaf` to get the messages before these.")

    @classmethod
    def of(cls, page: MessagePage) -> "MessagePageOut":
        """From what the service returns."""
        found = [MessageOut.of(message, branches=page.branches[message.id]) for message in page.messages]
        return cls(messages=found, previous=page.previous)


class BranchesOut(BaseModel):
    """Messages that stand in one place, the oldest first."""

    messages: list[MessageOut]


class MessageEdit(BaseModel):
    """Other words for a message."""

    model_config = ConfigDict(extra="forbid")

    content: MessageText
    attachments: list[UUID] | None = Field(
        default=None, max_length=MAX_ATTACHMENTS, description="Instead of those it has."
    )


class AttachmentOut(BaseModel):
    """A file of a session and where its reading stands."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    session_id: UUID
    filename: str
    kind: Literal["text", "image", "audio"] = Field(description="text: a document.")
    media_type: str = Field(description="What the file is by its bytes.")
    bytes: int
    pages: int | None
    unread_pages: list[int] = Field(description="Pages without text: OCR reads them, where it is installed.")
    characters: int | None = Field(description="Of its text, once it is read.")
    state: Literal["queued", "running", "done", "failed"]
    error: Failure | None = None
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, attachment: Attachment) -> "AttachmentOut":
        """From the stored row."""
        return cls(**_attachment(attachment))


class AttachmentTextOut(AttachmentOut):
    """An attachment with what was read in it."""

    text: str | None = Field(description="Markdown; null as long as it is not read.")

    @classmethod
    def of_read(cls, read: ReadAttachment) -> "AttachmentTextOut":
        """From what the service returns."""
        return cls(**_attachment(read.attachment), text=read.text)


class AttachmentList(BaseModel):
    """Attachments in the order they came."""

    attachments: list[AttachmentOut]


class FoundMessageOut(BaseModel):
    """A message that a search found."""

    message: MessageOut
    session_title: str | None
    score: float = Field(description="Orders the hits of one query; cannot be compared between queries.")
    spans: list[tuple[int, int]] = Field(description="[start, end) of the query's words in the content.")

    @classmethod
    def of(cls, found: FoundMessage) -> "FoundMessageOut":
        """From what the service returns."""
        return cls(
            message=MessageOut.of(found.message),
            session_title=found.session.title,
            score=found.score,
            spans=found.spans,
        )


class FoundMessages(BaseModel):
    """The caller's own messages, best first."""

    hits: list[FoundMessageOut]


def _attachment(attachment: Attachment) -> dict[str, Any]:
    names = ("id", "session_id", "filename", "kind", "media_type", "bytes", "pages", "characters", "state")
    error = None
    if attachment.error_code:
        error = Failure(code=attachment.error_code, detail=attachment.error_detail or "", hint=attachment.error_hint)
    return {
        **{name: getattr(attachment, name) for name in names},
        "unread_pages": list(attachment.unread_pages),
        "error": error,
        "created_at": attachment.created_at,
        "finished_at": attachment.finished_at,
    }
