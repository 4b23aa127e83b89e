"""What may be done to sessions and messages, and by whom; the limits of what they hold."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from neuroedge.contract.errors import Forbidden, InvalidInput, NotFound, TooLarge
from neuroedge.contract.principal import Principal
from neuroedge.services.chat.progress import require
from neuroedge.stores import chat_attachments, chat_messages, chat_sessions, ledgers
from neuroedge.stores.chat_messages import Body, Message
from neuroedge.stores.chat_sessions import Session
from neuroedge.stores.postgres import Connection

MAX_TITLE: Final = 200
MAX_CONTENT: Final = 100_000
"""Characters of what a user writes."""
MAX_SYSTEM_PROMPT: Final = 20_000
MAX_ATTACHMENTS: Final = 10
"""Of one message."""
MAX_MESSAGES: Final = 10_000
"""Of one session, all branches together."""


async def own(conn: Connection, principal: Principal, session_id: UUID) -> Session:
    """The caller's own session, which nobody else changes until the transaction ends. Raises NotFound, Forbidden."""
    session = await chat_sessions.lock(conn, session_id)
    if session is not None and session.user_id == principal.user_id:
        return session
    await require(conn, session_id)
    raise Forbidden("this session is another member's: you may read it", hint="begin a session of your own")


def no_message(message_id: UUID) -> NotFound:
    """The same for an id that never existed, one of another session, and one hidden from the caller."""
    return NotFound(f"no message {message_id}", hint="GET /v1/sessions/{id}/messages lists them")


def no_division() -> InvalidInput:
    """For a visibility that means nothing for the caller."""
    return InvalidInput("you are in no division", hint="use the visibility private or organisation")


async def branch(conn: Connection, session: Session, leaf: UUID | None, *, limit: int | None) -> list[Message]:
    """The last messages down to `leaf`, or to the end of the active branch. Raises NotFound."""
    leaf_id = leaf or session.leaf_id
    if leaf_id is None:
        return []
    found = await chat_messages.path(conn, session_id=session.id, leaf_id=leaf_id, limit=limit)
    if not found:
        raise no_message(leaf_id)
    return found


async def require_message(conn: Connection, session_id: UUID, message_id: UUID) -> Message:
    """The message, if it is of this session. Raises NotFound."""
    message = await chat_messages.find(conn, message_id)
    if message is None or message.session_id != session_id:
        raise no_message(message_id)
    return message


def check_words(body: Body) -> None:
    """Raise InvalidInput for a question that says nothing, TooLarge for one that says too much."""
    if not body.content.strip() and not body.attachments:
        raise InvalidInput("the message is empty", hint="write something, or attach a file")
    if len(body.content) > MAX_CONTENT:
        raise TooLarge(
            f"the message has {len(body.content)} characters; {MAX_CONTENT} are allowed", hint="attach it as a file"
        )


async def check_attachments(conn: Connection, session_id: UUID, attachments: Sequence[UUID]) -> None:
    """Raise TooLarge, InvalidInput or NotFound for what is no list of some of the session's attachments."""
    if len(attachments) > MAX_ATTACHMENTS:
        raise TooLarge(f"a message has at most {MAX_ATTACHMENTS} attachments", hint="send them with several messages")
    if len(set(attachments)) < len(attachments):
        raise InvalidInput("an attachment is named twice", hint="name each once")
    known = {one.id for one in await chat_attachments.find(conn, session_id=session_id, ids=attachments)}
    for attachment_id in attachments:
        if attachment_id not in known:
            raise NotFound(f"no attachment {attachment_id} in this session", hint="upload it to this session first")


async def audit(conn: Connection, principal: Principal, request_id: str, action: str, session_id: UUID) -> None:
    """Write down who did what; never content."""
    await ledgers.add_audit(
        conn,
        org_id=principal.org_id,
        user_id=principal.user_id,
        request_id=request_id,
        action=action,
        target=f"chat_session:{session_id}",
    )
