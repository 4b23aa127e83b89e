"""The workspace assistant: a question in a session becomes a turn, whose events are heard and whose answer is kept.

A turn runs in a task of its own, which also stores how it ends, so that a listener who leaves leaves no half-told
message behind: it is cancelled and what came so far is kept. Who works on a turn says so every second, and hears there
that it was cancelled in another process, or deleted.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final
from uuid import UUID

import structlog

from neuroedge.contract.errors import Conflict, DeadlineExceeded, NeuroEdgeError, NotFound, Overloaded, Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.services.artifacts import Artifacts
from neuroedge.services.chat.agent import Limits
from neuroedge.services.chat.asking import Asked, Asking, Question
from neuroedge.services.chat.attachments import Attachments
from neuroedge.services.chat.heartbeat import beat
from neuroedge.services.chat.intent import Examples
from neuroedge.services.chat.sessions import Chats
from neuroedge.services.chat.state import Event, Options, State
from neuroedge.services.chat.tools import Toolbox
from neuroedge.services.chat.turn import Turn
from neuroedge.services.chat.workflow import Workflow
from neuroedge.services.documents import Documents
from neuroedge.services.mcp_tools import McpTool, McpTools
from neuroedge.services.run_engine import EngineRunner
from neuroedge.services.safety import Safety
from neuroedge.stores import turns
from neuroedge.stores.chat_messages import Failure, Message, Usage
from neuroedge.stores.chat_messages import State as MessageState
from neuroedge.stores.postgres import Database

log = structlog.get_logger(__name__)

ENGINES: Final = ("knowledge", "ranking", "emotion", "moderation", "embedding")
"""Engines the assistant may run for who may run them: they change nothing."""
TURN_S: Final = 600.0
MAX_TURNS: Final = 8
"""Of one user in one process at the same time."""
_STORE_S: Final = 15.0
_CANCEL_S: Final = 15.0


class Assistant:
    """Answers questions in chat sessions."""

    def __init__(
        self,
        *,
        db: Database,
        chats: Chats,
        attachments: Attachments,
        runner: EngineRunner,
        documents: Documents,
        workflow: Workflow | None = None,
        limits: Limits = Limits(),
        safety: Safety | None = None,
        artifacts: Artifacts | None = None,
        engines: Sequence[str] = ENGINES,
        mcp: McpTools | None = None,
    ) -> None:
        self._db = db
        self._chats = chats
        self._runner = runner
        self._documents = documents
        self._workflow = workflow or Workflow(db)
        self._limits = limits
        self._safety = safety
        self._artifacts = artifacts
        self._engines = engines
        self._mcp = mcp
        self._examples = Examples()
        self._asking = Asking(db=db, chats=chats, attachments=attachments, workflow=self._workflow)
        self._running: dict[UUID, Asked] = {}
        self._tasks: dict[asyncio.Task[None], Asked] = {}
        """Every run, also one that was taken over."""

    async def settled(self) -> None:
        """Cancel what runs and wait until it is stored; before the database is closed."""
        for asked in self._tasks.values():
            asked.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STORE_S)

    async def ask(
        self,
        principal: Principal,
        session_id: UUID,
        text: str,
        *,
        request_id: str,
        options: Options = Options(),
        idempotency_key: str | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Ask at the end of the active branch and hear what happens. Raises as `begin` does."""
        question = Question(text=text, options=options)
        asked = await self.begin(
            principal, session_id, question, request_id=request_id, idempotency_key=idempotency_key
        )
        async with aclosing(self.events(asked)) as events:
            async for event in events:
                yield event

    async def begin(
        self,
        principal: Principal,
        session_id: UUID,
        question: Question,
        *,
        request_id: str,
        idempotency_key: str | None = None,
    ) -> Asked:
        """Keep the question and the place for its answer; `events` does the work.

        With a key that was used before it is that turn: its answer, or Conflict while it is being answered. Raises
        NotFound, Forbidden for another's session, InvalidInput, TooLarge, Conflict, Overloaded.
        """
        own = [each for each in self._running.values() if each.principal.user_id == principal.user_id]
        if len(own) >= MAX_TURNS:
            raise Overloaded(f"{MAX_TURNS} questions are being answered already", retry_after_s=5)
        return await self._asking.begin(
            principal, session_id, question, request_id=request_id, idempotency_key=idempotency_key
        )

    async def resume(self, principal: Principal, session_id: UUID, message_id: UUID, *, request_id: str) -> Asked:
        """Go on with a turn whose process died, from its last checkpoint; of one that is over, its answer.

        Raises NotFound, Conflict while somebody is at it or when nothing of it was saved.
        """
        return await self._asking.resume(principal, session_id, message_id, request_id=request_id)

    async def saved(self, principal: Principal, turn_id: UUID) -> State:
        """What was saved of a turn last; empty when it had not begun."""
        return await self._workflow.state(principal, turn_id)

    async def events(self, asked: Asked) -> AsyncGenerator[Event, None]:
        """What happens until the answer is there: started, stage, token, citation, artifact, trace; then done or error.

        Closing the iterator cancels the turn.
        """
        yield Event(name="started", data={"message_id": str(asked.message.id), "session_id": str(asked.session_id)})
        if asked.turn_id is None:
            yield Event(name="done", data={"message": asked.message})
            return
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        task = asked.task = asyncio.create_task(self._work(asked, asked.turn_id, queue))
        self._running[asked.message.id] = asked
        self._tasks[task] = asked
        task.add_done_callback(self._tasks.pop)
        # However it ends, nobody waits for more.
        task.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            # Not waited for: whoever leaves may be cancelled again and again. The task stores its end by itself.
            asked.stop()

    async def cancel(self, principal: Principal, session_id: UUID, message_id: UUID) -> Message:
        """Stop a running turn, whichever process is at it; the message as it ended. Raises NotFound, Conflict."""
        message = await self._chats.message(principal, session_id, message_id)
        if message.state != "running":
            return message
        async with self._db.tenant(principal) as conn:
            turn = await turns.of_message(conn, message_id)
            if turn is not None:
                await turns.cancel(conn, turn.id)
        if (here := self._running.get(message_id)) is not None:
            here.stop()
        elif turn is None or turn.abandoned:
            with suppress(Conflict):
                await self._chats.finish(principal, message_id, content="", state="cancelled")
        with suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_S):
                while message.state == "running":
                    await asyncio.sleep(0.1)
                    message = await self._chats.message(principal, session_id, message_id)
        return message

    async def _work(self, asked: Asked, turn_id: UUID, queue: "asyncio.Queue[Event | None]") -> None:
        """Run the turn and store how it ended."""
        beating = asyncio.create_task(self._beat(asked, turn_id))
        try:
            last = await self._ended(asked, turn_id, queue)
        finally:
            beating.cancel()
            if self._running.get(asked.message.id) is asked:  # and not the run that took it over
                del self._running[asked.message.id]
        queue.put_nowait(last)

    async def _ended(self, asked: Asked, turn_id: UUID, queue: "asyncio.Queue[Event | None]") -> Event:
        async def tell(event: Event) -> None:
            if event.name == "token":
                asked.said.append(event.data["text"])
            elif event.name == "citation":
                asked.cited.append(event.data)
            queue.put_nowait(event)

        try:
            async with asyncio.timeout(TURN_S):
                state = await self._workflow.run(asked.principal, turn_id, asked.state, await self._turn(asked, tell))
            asked.ending = True
            return await self._stored(asked, turn_id, state)
        except asyncio.CancelledError:
            return await self._cut(asked, turn_id, "cancelled", None)
        except TimeoutError:
            return await self._cut(asked, turn_id, "failed", DeadlineExceeded(f"no answer within {TURN_S:g} s"))
        except NeuroEdgeError as error:
            return await self._cut(asked, turn_id, "failed", error)
        except Exception:
            log.exception("turn_failed", message_id=str(asked.message.id))
            return await self._cut(asked, turn_id, "failed", NeuroEdgeError("the assistant failed"))

    async def _stored(self, asked: Asked, turn_id: UUID, state: State) -> Event:
        """The answer is kept, and of its states only the last."""
        made = [UUID(each["id"]) for each in state.get("artifacts", [])]
        message = await self._chats.finish(
            asked.principal,
            asked.message.id,
            content=state["message"],
            citations=state["citations"],
            artifacts=made,
            usage=Usage(**state["usage"]),
            trace=state["trace"],
            model=next(iter(reversed(state.get("models", []))), None),
        )
        await self._workflow.prune(asked.principal, turn_id)
        await self._over(asked, turn_id)
        told = {"message": message, "answered": state["answered"], "reason": state["reason"]}
        return Event(name="done", data={**told, "intent": state["intent"]})

    async def _cut(self, asked: Asked, turn_id: UUID, how: MessageState, error: NeuroEdgeError | None) -> Event:
        """What came so far is kept, with the reason why no more came; nothing by a run that was taken over."""
        asked.ending = True
        failure = Failure(code=error.code, detail=error.detail, hint=error.hint) if error else None
        try:
            async with asyncio.timeout(_STORE_S):
                async with self._db.tenant(asked.principal) as conn:
                    standing = await turns.seen(conn, turn_id, worker=asked.worker)
                if standing == "gone":
                    await self._chats.message(asked.principal, asked.session_id, asked.message.id)
                    return Event(name="error", data={"error": _taken_over()})
                message = await self._chats.finish(
                    asked.principal,
                    asked.message.id,
                    content="".join(asked.said).strip(),
                    citations=asked.cited,
                    state=how,
                    error=failure,
                )
                await self._over(asked, turn_id)
        except NotFound:
            deleted = NotFound("the session or the message was deleted while it was being answered")
            return Event(name="error", data={"error": deleted})
        except (NeuroEdgeError, TimeoutError) as late:
            log.error("turn_end_not_stored", message_id=str(asked.message.id), error=str(late))
            return Event(name="error", data={"error": error or Unavailable("how the answer ended could not be stored")})
        if error is not None:
            return Event(name="error", data={"error": error, "message": message})
        return Event(name="done", data={"message": message, "answered": False, "reason": "cancelled", "intent": None})

    async def _over(self, asked: Asked, turn_id: UUID) -> None:
        async with self._db.tenant(asked.principal) as conn:
            await turns.finish(conn, turn_id, worker=asked.worker)

    async def _beat(self, asked: Asked, turn_id: UUID) -> None:
        await beat(self._db, asked.principal, turn_id, worker=asked.worker)
        asked.stop()

    async def _turn(self, asked: Asked, tell: Callable[[Event], Any]) -> Turn:
        ctx = self._runner.context(asked.principal, request_id=asked.request_id)
        foreign: list[McpTool] = []
        if asked.options.tools and self._mcp is not None:
            offered = await self._mcp.tools(asked.principal)
            foreign = [tool for tool in offered if tool.private or not asked.options.local_only]
        return Turn(
            ctx=ctx,
            options=asked.options,
            tell=tell,
            examples=self._examples,
            toolbox=Toolbox(
                ctx=ctx,
                runner=self._runner,
                documents=self._documents,
                engines=self._engines,
                top_k=asked.options.top_k,
                mcp=self._mcp,
                foreign=foreign,
            ),
            limits=self._limits,
            safety=self._safety,
            artifacts=self._artifacts,
        )


def _taken_over() -> Conflict:
    return Conflict("another worker goes on with this answer", hint="read the message again in a while")
