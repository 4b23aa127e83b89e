"""A session as a file to take away, as Markdown for people or as JSON, which can be taken in again."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.principal import Principal
from neuroedge.services.chat.checks import MAX_CONTENT, MAX_MESSAGES, MAX_SYSTEM_PROMPT, MAX_TITLE
from neuroedge.services.chat.progress import require
from neuroedge.services.chat.sessions import Chats
from neuroedge.services.memory_drafts import Metadata, Plain, Time
from neuroedge.stores import chat_attachments, chat_messages
from neuroedge.stores.chat_attachments import Attachment
from neuroedge.stores.chat_messages import Body, Message, NewMessage
from neuroedge.stores.chat_sessions import Said, Session, SessionSettings
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database

FORMAT: Final = "neuroedge.chat/1"
_WHO: Final = {"user": "You", "assistant": "Assistant", "system": "System", "tool": "Tool"}
Text = Annotated[str, Plain, Field(max_length=MAX_CONTENT)]


class ImportedMessage(BaseModel):
    """A message of an export; what is not named here is left out."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(min_length=1, max_length=100, description="Any id, unique in the file.")
    parent_id: str | None = Field(default=None, max_length=100, description="Id of the message before, further up.")
    role: Literal["system", "user", "assistant", "tool"]
    content: Text = ""
    citations: list[Metadata] = Field(default_factory=list, max_length=200)
    model: Annotated[str, Plain, Field(max_length=200)] | None = None
    created_at: Time | None = None


class ImportedSession(BaseModel):
    """An export of a session."""

    model_config = ConfigDict(extra="ignore")

    format: Literal["neuroedge.chat/1"]
    title: Annotated[str, Plain, Field(max_length=MAX_TITLE)] | None = None
    system_prompt: Annotated[str, Plain, Field(max_length=MAX_SYSTEM_PROMPT)] | None = None
    local_only: bool = False
    messages: list[ImportedMessage] = Field(max_length=MAX_MESSAGES)


class ChatTransfer:
    """Exports and imports sessions."""

    def __init__(self, *, db: Database, chats: Chats) -> None:
        self._db = db
        self._chats = chats

    async def export(
        self, principal: Principal, session_id: UUID, *, format: Literal["markdown", "json"]
    ) -> tuple[Session, bytes]:
        """The session and its file: Markdown of the active branch, or JSON of all branches. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            session = await require(conn, session_id)
            attached = {one.id: one for one in await chat_attachments.find(conn, session_id=session_id)}
            if format == "json":
                messages = await chat_messages.all_of(conn, session_id, limit=MAX_MESSAGES)
                return session, _json(session, messages, attached)
            messages = []
            if session.leaf_id is not None:
                messages = await chat_messages.path(conn, session_id=session_id, leaf_id=session.leaf_id)
        return session, markdown(session, messages, attached).encode()

    async def take_in(self, principal: Principal, given: ImportedSession, *, request_id: str) -> Session:
        """Make a private session of an export; files are not in it. Raises InvalidInput for broken parents."""
        ids = _new_ids(given.messages)
        said = Said(
            title=given.title,
            settings=SessionSettings(local_only=given.local_only, system_prompt=given.system_prompt),
        )
        async with self._db.tenant(principal) as conn:
            session = await self._chats.insert(conn, principal, said=said)
            items = [
                NewMessage(
                    id=ids[one.id],
                    session_id=session.id,
                    parent_id=ids[one.parent_id] if one.parent_id is not None else None,
                    role=one.role,
                    state="done",
                    body=Body(content=one.content, citations=one.citations, model=one.model),
                    created_at=one.created_at,
                )
                for one in given.messages
            ]
            await self._chats.insert_messages(conn, principal, session.id, items, request_id=request_id)
            return await require(conn, session.id)


def _new_ids(messages: Sequence[ImportedMessage]) -> dict[str, UUID]:
    ids: dict[str, UUID] = {}
    for place, one in enumerate(messages):
        if one.id in ids:
            raise InvalidInput(f"message {place} has the id of one before", hint="ids must differ")
        if one.parent_id is not None and one.parent_id not in ids:
            raise InvalidInput(f"message {place} stands below none before it", hint="list parents before their answers")
        ids[one.id] = new_id()
    return ids


def _json(session: Session, messages: Sequence[Message], attached: dict[UUID, Attachment]) -> bytes:
    kept: dict[str, Any] = {
        "format": FORMAT,
        "id": session.id,
        "title": session.title,
        "model": session.model,
        "local_only": session.settings.local_only,
        "system_prompt": session.settings.system_prompt,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "exported_at": datetime.now(UTC),
        "leaf_id": session.leaf_id,
        "messages": [_message(message, attached) for message in messages],
    }
    return json.dumps(kept, ensure_ascii=False, indent=1, default=_plain).encode()


def _message(message: Message, attached: dict[UUID, Attachment]) -> dict[str, Any]:
    names = ("id", "parent_id", "role", "state", "content", "citations", "artifacts", "tool_calls", "model")
    told: dict[str, Any] = {name: getattr(message, name) for name in names}
    told["attachments"] = [
        {"id": i, "filename": attached[i].filename if i in attached else None} for i in message.attachments
    ]
    if message.usage is not None:
        usage = message.usage
        told["usage"] = {name: getattr(usage, name) for name in type(usage).__dataclass_fields__}
    if message.error is not None:
        told["error"] = {"code": message.error.code, "detail": message.error.detail}
    if message.feedback is not None:
        said = message.feedback
        told["feedback"] = {"rating": said.rating, "reason": said.reason, "comment": said.comment}
    return {**told, "created_at": message.created_at}


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def markdown(session: Session, messages: Sequence[Message], attached: dict[UUID, Attachment]) -> str:
    """One branch for people to read."""
    parts = [f"# {session.title or 'Chat'}", f"*{session.created_at:%Y-%m-%d %H:%M} UTC*"]
    if session.settings.system_prompt:
        parts.append("> " + session.settings.system_prompt.replace("\n", "\n> "))
    for message in messages:
        parts += _section(message, attached)
    return "\n\n".join(parts) + "\n"


def _section(message: Message, attached: dict[UUID, Attachment]) -> Iterator[str]:
    who = _WHO[message.role] + (f" ({message.model})" if message.model else "")
    yield f"## {who}"
    for attachment_id in message.attachments:
        name = attached[attachment_id].filename if attachment_id in attached else "deleted"
        yield f"Attached: `{name.replace('`', '')}`"
    if message.content:
        yield message.content
    if message.error is not None:
        yield f"*{message.state}: {message.error.detail}*"
    elif message.state != "done":
        yield f"*{message.state}*"
    if message.citations:
        yield "\n".join(f"{place}. {_source(one)}" for place, one in enumerate(message.citations, start=1))


def _source(citation: Any) -> str:
    """What is said of a source, whatever kind it is."""
    named = [str(citation[name]) for name in ("title", "source", "speaker", "page", "quote") if citation.get(name)]
    return ", ".join(named) or json.dumps(citation, ensure_ascii=False, default=str)
