"""How a question becomes a turn: kept with a place for its answer, once for each idempotency key, or taken over."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

import structlog

from neuroedge.contract.engine import Usage
from neuroedge.contract.errors import Conflict, NeuroEdgeError, NotFound
from neuroedge.contract.principal import Principal
from neuroedge.contract.vault import Cipher
from neuroedge.services.chat.attachments import Attachments
from neuroedge.services.chat.checks import own, require_message
from neuroedge.services.chat.heartbeat import beat
from neuroedge.services.chat.packing import uncovered
from neuroedge.services.chat.sessions import Chats
from neuroedge.services.chat.state import Attached, Options, SaidTurn, State, Summary, options_of, usage_of
from neuroedge.services.chat.workflow import Workflow
from neuroedge.stores import chat_messages, turns
from neuroedge.stores.chat_messages import Body, Failure, Message
from neuroedge.stores.chat_sessions import Session
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database

log = structlog.get_logger(__name__)

INTERRUPTED: Final = Failure(
    code="interrupted",
    detail="the server stopped while it answered",
    hint="POST …/resume goes on from the last saved step, or ask for another answer",
)
"""Of an answer whose process died. Its turn stays open, so that it can be gone on with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a user asks."""

    text: str = ""
    options: Options = field(default_factory=Options)
    parent_id: UUID | None = None
    """The message it follows; None: the end of the active branch."""
    reply_to: UUID | None = None
    """A message of the user's that is there already, and is to be answered (anew); then `text` is empty."""
    attachments: Sequence[UUID] = ()

    def fingerprint(self, session_id: UUID, cipher: Cipher) -> bytes:
        """Equal for equal questions of one organisation; keyed, so that it tells nobody else what was asked."""
        asked = [
            str(session_id),
            self.text,
            self.options.as_json(),
            str(self.parent_id),
            str(self.reply_to),
            [str(each) for each in self.attachments],
        ]
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return cipher.blind(f"turn:{digest}").to_bytes(8)


@dataclass(slots=True, kw_only=True)
class Asked:
    """A turn that has begun, or one that is over."""

    principal: Principal
    request_id: str
    session_id: UUID
    message: Message
    """The assistant's."""
    turn_id: UUID | None = None
    """None: the answer is there already."""
    worker: UUID = field(default_factory=new_id)
    """This run, as its turn names it: one that takes it over, in this process or another, has another id."""
    state: State | None = None
    """None: go on from the last checkpoint."""
    options: Options = field(default_factory=Options)
    said: list[str] = field(default_factory=list)
    cited: list[dict[str, Any]] = field(default_factory=list)
    task: "asyncio.Task[None] | None" = None
    ending: bool = False
    """Its answer is there, or it was stopped: how it ended is being stored and told, and nothing stops that."""

    def stop(self) -> None:
        """End the work at once, and keep what came so far."""
        if self.task is not None and not self.ending:
            self.task.cancel()


class Asking:
    """Begins turns, and finds those that were begun."""

    def __init__(self, *, db: Database, chats: Chats, attachments: Attachments, workflow: Workflow) -> None:
        self._db = db
        self._chats = chats
        self._attachments = attachments
        self._workflow = workflow

    async def begin(
        self,
        principal: Principal,
        session_id: UUID,
        question: Question,
        *,
        request_id: str,
        idempotency_key: str | None,
    ) -> Asked:
        """Keep the question and the place for its answer. Raises as Assistant.begin does."""
        session = await self._chats.get(principal, session_id)
        options = _within(question.options, session)
        fingerprint = question.fingerprint(session_id, (await self._db.known(principal.org_id)).cipher)
        if idempotency_key is not None:
            before = await self._made(principal, idempotency_key, fingerprint, request_id=request_id)
            if before is not None:
                return before
        turn_id, worker = new_id(), new_id()
        # In one transaction, so that no message waits for an answer without a turn that tells who is at it.
        async with self._db.tenant(principal) as conn:
            await own(conn, principal, session_id)
            if not await turns.insert(
                conn,
                org_id=principal.org_id,
                user_id=principal.user_id,
                turn_id=turn_id,
                session_id=session_id,
                worker=worker,
                idempotency_key=idempotency_key,
                fingerprint=fingerprint,
            ):
                raise _answering()
            asked, message = await self._kept(conn, principal, session, question)
            await turns.set_message(conn, turn_id, message.id)
        if question.reply_to is None:
            await self._chats.tell(principal, asked)
        await self._chats.tell(principal, message)
        begun = Asked(
            principal=principal,
            request_id=request_id,
            session_id=session_id,
            message=message,
            turn_id=turn_id,
            worker=worker,
            options=options,
        )
        return await self._opened(begun, turn_id, asked, session.settings.system_prompt)

    async def resume(self, principal: Principal, session_id: UUID, message_id: UUID, *, request_id: str) -> Asked:
        """Take a turn over whose process died; of one that is over, its answer. Raises as Assistant.resume does."""
        message = await self._chats.message(principal, session_id, message_id)
        async with self._db.tenant(principal) as conn:
            turn = await turns.of_message(conn, message_id)
        if turn is None:
            raise NotFound(f"no turn answers with message {message_id}")
        over = Asked(principal=principal, request_id=request_id, session_id=session_id, message=message)
        if message.state != "running" and not (_interrupted(message) and turn.abandoned):
            return over
        if not turn.abandoned:
            raise _answering()
        state = await self._workflow.state(principal, turn.id)
        async with self._db.tenant(principal) as conn:
            if not await turns.take_over(conn, turn.id, worker=over.worker):
                raise _answering()
            if message.state != "running":
                await chat_messages.reopen(conn, message_id)
        if "options" not in state:
            cut_off = Failure(code="interrupted", detail="the server stopped before it began", hint="ask again")
            over.message = await self._chats.finish(principal, message_id, content="", state="failed", error=cut_off)
            return over
        return replace(over, turn_id=turn.id, options=options_of(state))

    async def _opened(self, begun: Asked, turn_id: UUID, asked: Message, system_prompt: str | None) -> Asked:
        """With the state to begin with. That may have to wait for attachments: the turn is said to live meanwhile, and
        one that is cancelled meanwhile is over."""
        principal = begun.principal
        reading = asyncio.create_task(
            self._begun(principal, begun.session_id, asked, begun.options, system_prompt), name="chat-reading"
        )
        beating = asyncio.create_task(beat(self._db, principal, turn_id, worker=begun.worker), name="chat-beat")
        try:
            await asyncio.wait((reading, beating), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return replace(begun, state=reading.result())
            if beating.result() == "gone":
                raise Conflict("the question was taken for one whose process had died", hint="ask again")
            message = await self._chats.finish(principal, begun.message.id, content="", state="cancelled")
            async with self._db.tenant(principal) as conn:
                await turns.finish(conn, turn_id, worker=begun.worker)
            return replace(begun, turn_id=None, message=message)
        except BaseException as error:
            await self._given_up(begun, turn_id, error)
            raise
        finally:
            reading.cancel()
            beating.cancel()
            await asyncio.gather(reading, beating, return_exceptions=True)

    async def _given_up(self, begun: Asked, turn_id: UUID, error: BaseException) -> None:
        """What could not begin leaves no message that waits for an answer, and no turn; where that cannot be stored
        now, it is left as by a process that died (takeover.py)."""
        told = error if isinstance(error, NeuroEdgeError) else NeuroEdgeError("the question could not be read")
        failure = Failure(code=told.code, detail=told.detail, hint=told.hint)
        try:
            with suppress(NotFound, Conflict):  # deleted, or ended by somebody else
                await self._chats.finish(begun.principal, begun.message.id, content="", state="failed", error=failure)
            async with self._db.tenant(begun.principal) as conn:
                await turns.delete(conn, turn_id)
        except NeuroEdgeError as late:
            log.warning("question_not_given_up", message_id=str(begun.message.id), code=late.code)

    async def _made(
        self, principal: Principal, idempotency_key: str, fingerprint: bytes, *, request_id: str
    ) -> Asked | None:
        """The turn this key began."""
        async with self._db.tenant(principal) as conn:
            turn = await turns.of_key(conn, principal.user_id, idempotency_key)
            if turn is None:
                return None
            if turn.fingerprint != fingerprint:
                raise Conflict("this idempotency key was used for another question", hint="use a new one")
            if turn.message_id is None and turn.abandoned:
                await turns.delete(conn, turn.id)
                return None
        if turn.message_id is None:
            raise _answering()
        return await self.resume(principal, turn.session_id, turn.message_id, request_id=request_id)

    async def _kept(
        self, conn: Connection, principal: Principal, session: Session, question: Question
    ) -> tuple[Message, Message]:
        """The user's message and the assistant's, which is empty yet."""
        if question.reply_to is not None:
            asked = await require_message(conn, session.id, question.reply_to)
            if asked.role != "user":
                raise Conflict("only a user's message can be answered", hint="give the id of a question")
        else:
            asked = await self._chats.append_in(
                conn,
                principal,
                session.id,
                parent_id=question.parent_id or session.leaf_id,
                role="user",
                body=Body(content=question.text, attachments=list(question.attachments)),
            )
        message = await self._chats.append_in(
            conn, principal, session.id, parent_id=asked.id, role="assistant", body=Body(), state="running"
        )
        return asked, message

    async def _begun(
        self, principal: Principal, session_id: UUID, asked: Message, options: Options, system_prompt: str | None
    ) -> State:
        path = await self._chats.path(principal, session_id, asked.id)
        said = [
            SaidTurn(id=str(each.id), role=each.role, content=each.content)
            for each in path[:-1]
            if each.role in ("user", "assistant") and each.content.strip()
        ]
        answers = [each.id for each in path if each.role == "assistant"]
        summary = await self._summary(principal, answers[-1]) if answers else None
        read = await self._attachments.read(principal, session_id, asked.attachments) if asked.attachments else []
        return State(
            question=asked.content or "What is in the attached files?",
            system_prompt=system_prompt,
            options=options.as_json(),
            limited=principal.models is not None or principal.engines is not None,
            turns=uncovered(said, summary),
            attachments=[
                Attached(id=str(each.attachment.id), name=each.attachment.filename, text=each.text)
                for each in read
                if each.text is not None
            ],
            summary=summary,
            hits=[],
            usage=usage_of(Usage()),
            trace=[
                {"stage": "attachment", "id": str(each.attachment.id), "unread": True}
                for each in read
                if each.text is None
            ],
        )

    async def _summary(self, principal: Principal, message_id: UUID) -> Summary | None:
        """The running summary as the turn before left it."""
        async with self._db.tenant(principal) as conn:
            turn = await turns.of_message(conn, message_id)
        return (await self._workflow.state(principal, turn.id)).get("summary") if turn else None


def _within(options: Options, session: Session) -> Options:
    """With what the session says where they say nothing, and never less strict."""
    return replace(
        options,
        model=options.model or session.model,
        local_only=options.local_only or session.settings.local_only,
    )


def _interrupted(message: Message) -> bool:
    return message.state == "failed" and message.error is not None and message.error.code == INTERRUPTED.code


def _answering() -> Conflict:
    return Conflict("this question is being answered", hint="wait for the answer, or cancel it")
