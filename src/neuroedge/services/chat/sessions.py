"""Chat sessions and their messages: held, read, branched, judged, found. What answers them is the assistant.

A session is its user's alone unless it is shared, and then others only read. Messages form a tree: editing a question
or asking for another answer adds a branch, nothing is written over. A message being generated is stored as running at
once and finished later; when its session or message was deleted meanwhile, finishing raises NotFound, nothing is left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from neuroedge.contract.chat import Role
from neuroedge.contract.errors import Conflict, InvalidInput, TooLarge
from neuroedge.contract.ports import Visibility
from neuroedge.contract.principal import Principal
from neuroedge.infra.queue import JobQueue
from neuroedge.services.chat.changes import SessionChanges
from neuroedge.services.chat.checks import (
    MAX_MESSAGES,
    audit,
    branch,
    check_attachments,
    check_words,
    no_division,
    no_message,
    own,
    require_message,
)
from neuroedge.services.chat.progress import SessionProgress, require, tell
from neuroedge.services.chat.remembering import REMEMBERED, remember_later
from neuroedge.services.chat.titles import title_of
from neuroedge.services.housekeeping import forget_blobs
from neuroedge.services.run_engine import EngineRunner
from neuroedge.stores import chat_attachments, chat_messages, chat_sessions
from neuroedge.stores.chat_messages import Body, Failure, Feedback, Message, NewMessage, State, Usage
from neuroedge.stores.chat_sessions import Said, Session, SessionSettings
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePage:
    """Messages of one branch in their order."""

    messages: list[Message]
    branches: dict[UUID, list[UUID]]
    """Of each message, all that stand in its place, the oldest first: itself, and what was edited or asked anew."""
    previous: UUID | None
    """The message before the first of these; the page before ends with it."""


class Chats:
    """Sessions of the caller, and those that others let the caller read."""

    def __init__(self, *, db: Database, runner: EngineRunner, queue: JobQueue, progress: SessionProgress) -> None:
        self._db = db
        self._runner = runner
        self._queue = queue
        self._progress = progress

    async def create(
        self,
        principal: Principal,
        *,
        request_id: str,
        title: str | None = None,
        model: str | None = None,
        settings: SessionSettings = SessionSettings(),
        visibility: Visibility = "private",
    ) -> Session:
        """Begin a session. Raises InvalidInput for a division the caller is not in."""
        async with self._db.tenant(principal) as conn:
            session = await self.insert(
                conn, principal, said=Said(title=title, model=model, settings=settings), visibility=visibility
            )
            await audit(conn, principal, request_id, "chat.created", session.id)
        return session

    async def insert(
        self, conn: Connection, principal: Principal, *, said: Said, visibility: Visibility = "private"
    ) -> Session:
        """Store a session in the caller's transaction. Raises as `create` does."""
        import psycopg

        try:
            return await chat_sessions.insert(
                conn,
                org_id=principal.org_id,
                user_id=principal.user_id,
                session_id=new_id(),
                said=said,
                visibility=visibility,
            )
        except psycopg.errors.CheckViolation as error:
            raise no_division() from error

    async def insert_messages(
        self, conn: Connection, principal: Principal, session_id: UUID, items: Sequence[NewMessage], *, request_id: str
    ) -> None:
        """Store messages of a new session, parents first, in the caller's transaction; the last one ends the active
        branch."""
        await chat_messages.insert(conn, org_id=principal.org_id, user_id=principal.user_id, items=items)
        if items:
            await chat_sessions.set_leaf(conn, session_id, items[-1].id)
        said = [item.id for item in items if item.role in REMEMBERED and item.body.content.strip()]
        await remember_later(self._queue, conn, principal, said)
        await audit(conn, principal, request_id, "chat.imported", session_id)

    async def get(self, principal: Principal, session_id: UUID) -> Session:
        """One session the caller may read. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            return await require(conn, session_id)

    async def page(
        self,
        principal: Principal,
        *,
        limit: int,
        before: tuple[datetime, UUID] | None = None,
        archived: bool = False,
        shared: bool = False,
    ) -> list[Session]:
        """The caller's own by their last change, the latest first; with `shared`, others' that the caller may read."""
        async with self._db.tenant(principal) as conn:
            return await chat_sessions.recent(
                conn, user_id=principal.user_id, shared=shared, archived=archived, limit=limit, before=before
            )

    async def update(
        self, principal: Principal, session_id: UUID, changes: SessionChanges, *, request_id: str
    ) -> Session:
        """Change what is given. Raises NotFound, Forbidden for another's session, InvalidInput."""
        import psycopg

        try:
            async with self._db.tenant(principal) as conn:
                before = await own(conn, principal, session_id)
                leaf_id = before.leaf_id
                if changes.leaf_id is not None:
                    await require_message(conn, session_id, changes.leaf_id)
                    leaf_id = await chat_messages.newest_below(conn, session_id=session_id, message_id=changes.leaf_id)
                await chat_sessions.update(
                    conn,
                    session_id,
                    said=changes.said(before),
                    archived=before.archived if changes.archived is None else changes.archived,
                    visibility=changes.visibility or before.visibility,
                    leaf_id=leaf_id,
                )
                if changes.visibility not in (None, before.visibility):
                    await audit(conn, principal, request_id, f"chat.shared.{changes.visibility}", session_id)
                after = await require(conn, session_id)
        except psycopg.errors.CheckViolation as error:
            raise no_division() from error
        await self._progress.publish(principal.org_id, session_id, "session.changed", {})
        return after

    async def delete(self, principal: Principal, session_id: UUID, *, request_id: str) -> None:
        """Delete a session with its messages and attachments, answers that are being generated included.

        Raises NotFound, Forbidden for another's session.
        """
        async with self._db.tenant(principal) as conn:
            await own(conn, principal, session_id)
            await chat_sessions.delete(conn, session_id)
            await audit(conn, principal, request_id, "chat.deleted", session_id)
        # What stays after a crash or without the blob store has no row any more: the sweep deletes it.
        await forget_blobs(self._runner.contexts.blobs(principal), chat_attachments.folder_of(session_id))
        await self._progress.forget(principal.org_id, session_id)

    async def path(
        self, principal: Principal, session_id: UUID, leaf: UUID | None = None, *, limit: int | None = None
    ) -> list[Message]:
        """From the root, or with `limit` from so many messages up, to `leaf`; to the end of the active branch without
        one. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            session = await require(conn, session_id)
            return await branch(conn, session, leaf, limit=limit)

    async def messages(
        self, principal: Principal, session_id: UUID, *, limit: int, leaf: UUID | None = None
    ) -> MessagePage:
        """The last messages of a branch down to `leaf`, or to the end of the active branch. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            session = await require(conn, session_id)
            found = await branch(conn, session, leaf, limit=limit)
            children = await chat_messages.siblings(
                conn, session_id=session_id, parent_ids=[message.parent_id for message in found]
            )
        return MessagePage(
            messages=found,
            branches={message.id: children[message.parent_id] for message in found},
            previous=found[0].parent_id if found else None,
        )

    async def message(self, principal: Principal, session_id: UUID, message_id: UUID) -> Message:
        """One message. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            await require(conn, session_id)
            return await require_message(conn, session_id, message_id)

    async def branches(self, principal: Principal, session_id: UUID, message_id: UUID) -> list[Message]:
        """All messages that stand in the place of one, the oldest first. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            await require(conn, session_id)
            message = await require_message(conn, session_id, message_id)
            children = await chat_messages.siblings(conn, session_id=session_id, parent_ids=[message.parent_id])
            ids = children[message.parent_id]
            found = await chat_messages.find_all(conn, ids)
        return [found[i] for i in ids]

    async def append(
        self,
        principal: Principal,
        session_id: UUID,
        *,
        parent_id: UUID | None,
        role: Role,
        content: str,
        attachments: Sequence[UUID] = (),
        citations: Sequence[Mapping[str, Any]] = (),
        artifacts: Sequence[UUID] = (),
        tool_calls: Sequence[Mapping[str, Any]] = (),
        usage: Usage | None = None,
        trace: Sequence[Mapping[str, Any]] = (),
        model: str | None = None,
        state: State = "done",
    ) -> Message:
        """Add a message below `parent_id` (None: at the beginning) and make it the end of the active branch.

        The first question titles a session without title. Raises NotFound, Forbidden for another's session, Conflict
        below a message that is being generated, InvalidInput, TooLarge.
        """
        body = Body(
            content=content,
            attachments=list(attachments),
            citations=citations,
            artifacts=artifacts,
            tool_calls=tool_calls,
            usage=usage,
            trace=trace,
            model=model,
        )
        async with self._db.tenant(principal) as conn:
            message = await self.append_in(
                conn, principal, session_id, parent_id=parent_id, role=role, body=body, state=state
            )
        await self.tell(principal, message)
        return message

    async def tell(self, principal: Principal, message: Message) -> None:
        """Let listeners know of a message that was added, once that is stored."""
        await tell(self._progress, principal.org_id, message)

    async def finish(
        self,
        principal: Principal,
        message_id: UUID,
        *,
        content: str,
        state: State = "done",
        citations: Sequence[Mapping[str, Any]] = (),
        artifacts: Sequence[UUID] = (),
        tool_calls: Sequence[Mapping[str, Any]] = (),
        usage: Usage | None = None,
        trace: Sequence[Mapping[str, Any]] = (),
        model: str | None = None,
        error: Failure | None = None,
    ) -> Message:
        """Store how a running message ended; only the first end counts.

        Raises NotFound when it, or its session, was deleted meanwhile; Conflict when it had ended.
        """
        async with self._db.tenant(principal) as conn:
            begun = await chat_messages.find(conn, message_id)
            if begun is None or await chat_sessions.lock(conn, begun.session_id) is None:
                raise no_message(message_id)
            message = await require_message(conn, begun.session_id, message_id)  # it may have gone before the lock
            body = Body(
                content=content,
                attachments=message.attachments,
                citations=citations,
                artifacts=artifacts,
                tool_calls=tool_calls,
                usage=usage,
                trace=trace,
                model=model,
                error=error,
            )
            if not await chat_messages.finish(conn, message_id, body=body, state=state):
                raise Conflict("this message has ended already", hint="ask for another answer instead")
            await chat_sessions.touch(conn, message.session_id)
            if state == "done" and content.strip():
                await remember_later(self._queue, conn, principal, [message_id])
            finished = await require_message(conn, message.session_id, message_id)
        await self.tell(principal, finished)
        return finished

    async def edit(
        self,
        principal: Principal,
        session_id: UUID,
        message_id: UUID,
        *,
        content: str,
        attachments: Sequence[UUID] | None = None,
    ) -> Message:
        """Add a message with other words beside one, which begins a branch of its own; its attachments stay unless
        others are given. Raises as `append` does, Conflict for one that is being generated."""
        async with self._db.tenant(principal) as conn:
            await own(conn, principal, session_id)
            before = await require_message(conn, session_id, message_id)
            if before.state == "running":
                raise Conflict("this message is being generated", hint="cancel it, or wait until it has ended")
            kept = before.attachments if attachments is None else attachments
            body = Body(content=content, attachments=list(kept))
            message = await self.append_in(
                conn, principal, session_id, parent_id=before.parent_id, role=before.role, body=body
            )
        await self.tell(principal, message)
        return message

    async def delete_message(self, principal: Principal, session_id: UUID, message_id: UUID) -> None:
        """Delete a message with all that follows it. Raises NotFound, Forbidden for another's session."""
        async with self._db.tenant(principal) as conn:
            session = await own(conn, principal, session_id)
            message = await require_message(conn, session_id, message_id)
            gone = set(await chat_messages.delete(conn, session_id=session_id, message_id=message_id))
            leaf_id = session.leaf_id
            if leaf_id in gone:
                from_id = message.parent_id or await chat_messages.newest_root(conn, session_id)
                leaf_id = None
                if from_id is not None:
                    leaf_id = await chat_messages.newest_below(conn, session_id=session_id, message_id=from_id)
            await chat_sessions.set_leaf(conn, session_id, leaf_id)
        await self._progress.publish(principal.org_id, session_id, "message.deleted", {"message_id": str(message_id)})

    async def set_feedback(
        self, principal: Principal, session_id: UUID, message_id: UUID, feedback: Feedback | None
    ) -> Message:
        """Judge an answer, or take the judgement back. Raises NotFound, Forbidden for another's session, InvalidInput
        for what is no answer."""
        async with self._db.tenant(principal) as conn:
            await own(conn, principal, session_id)
            message = await require_message(conn, session_id, message_id)
            if message.role != "assistant":
                raise InvalidInput("only answers can be judged", hint="give the id of a message of role assistant")
            await chat_messages.set_feedback(conn, message_id, feedback)
            return await require_message(conn, session_id, message_id)

    async def append_in(
        self,
        conn: Connection,
        principal: Principal,
        session_id: UUID,
        *,
        parent_id: UUID | None,
        role: Role,
        body: Body,
        state: State = "done",
    ) -> Message:
        """As `append`, in the caller's transaction; nobody is told."""
        session = await own(conn, principal, session_id)
        if role == "user":
            check_words(body)
        await check_attachments(conn, session_id, body.attachments)
        if parent_id is not None:
            parent = await require_message(conn, session_id, parent_id)
            if parent.state == "running":
                raise Conflict("the message before is being generated", hint="cancel it, or wait until it has ended")
        if await chat_messages.count(conn, session_id) >= MAX_MESSAGES:
            raise TooLarge(f"a session holds {MAX_MESSAGES} messages", hint="begin another session")
        item = NewMessage(id=new_id(), session_id=session_id, parent_id=parent_id, role=role, state=state, body=body)
        await chat_messages.insert(conn, org_id=principal.org_id, user_id=principal.user_id, items=[item])
        await self._lead(conn, session, item)
        if state == "done" and role in REMEMBERED and body.content.strip():
            await remember_later(self._queue, conn, principal, [item.id])
        return await require_message(conn, session_id, item.id)

    async def _lead(self, conn: Connection, session: Session, item: NewMessage) -> None:
        """Let the active branch end with a new message, and the session have a title."""
        title = title_of(item.body.content) if session.title is None and item.role == "user" else None
        if title is None:
            await chat_sessions.set_leaf(conn, session.id, item.id)
            return
        await chat_sessions.update(
            conn,
            session.id,
            said=Said(title=title, model=session.model, settings=session.settings),
            archived=session.archived,
            visibility=session.visibility,
            leaf_id=item.id,
        )
