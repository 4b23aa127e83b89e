"""Turns whose process died: gone on with where that is safe, ended with a way on where it is not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from neuroedge.contract.errors import Conflict, Overloaded, ProviderBroke, Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.infra.queue import JobQueue
from neuroedge.services.chat import heartbeat
from neuroedge.services.chat.asking import Asked, Question
from neuroedge.services.chat.state import Event, Options, State
from neuroedge.services.chat.takeover import Takeovers
from neuroedge.services.chat.turn import Turn
from neuroedge.services.chat.workflow import STEPS
from neuroedge.stores import turns
from neuroedge.stores.chat_messages import Message
from neuroedge.stores.chat_sessions import Session
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from tests.services.chat.assistant_bench import AssistantBench

pytestmark = pytest.mark.anyio
FACT = "Sheila lives in Texas."
QUESTION = "Where does Sheila live?"


class Counter:
    """Allows as many as the test says."""

    def __init__(self, allowed: int = 100) -> None:
        self.allowed = allowed

    async def hit(self, rule: str, *key: str) -> None:
        """Count."""
        self.allowed -= 1
        if self.allowed < 0:
            raise Overloaded("too many attempts")


class Died(BaseException):
    """As a kill: nothing of the process runs after it."""


@pytest.fixture(autouse=True)
async def _ended(db: Database, caller: Principal) -> AsyncIterator[None]:
    """What a test leaves running is not gone on with by the next one's worker, which looks after everybody's turns."""
    yield
    async with db.tenant(caller) as conn:
        await conn.execute("UPDATE turns SET worker = NULL")


Leave = Callable[..., Awaitable[Asked]]


@pytest.fixture
def leave(bench: AssistantBench, db: Database, caller: Principal, session: Session) -> Leave:
    """Asks, and leaves the turn after its search as a process that died a minute ago."""

    async def left(asking: Principal | None = None, **options: Any) -> Asked:
        await bench.remember(FACT)
        question = Question(text=QUESTION, options=Options(**options))
        asked = await bench.assistant.begin(asking or caller, session.id, question, request_id="r")
        assert asked.turn_id is not None

        async def die(state: State, turn: Turn) -> State:
            raise Died

        half = bench.workflow.__class__(db, steps={**STEPS, "intent": die})
        turn = await bench.assistant._turn(asked, _unheard)
        with pytest.raises(Died):
            await half.run(asked.principal, asked.turn_id, asked.state, turn)
        await _silent(db, caller)
        bench.searched.clear()
        return asked

    return left


async def _unheard(event: Any) -> None:
    """Nobody listens."""


async def _silent(db: Database, caller: Principal) -> None:
    async with db.tenant(caller) as conn:
        await conn.execute("UPDATE turns SET seen_at = now() - interval '1 minute'")
        await conn.execute("UPDATE chat_messages SET updated_at = now() - interval '1 minute'")


def takeovers(bench: AssistantBench, db: Database, *, allowed: int = 100) -> Takeovers:
    """Of a worker."""
    return Takeovers(db=db, assistant=bench.assistant, chats=bench.chats, counter=Counter(allowed))


async def message(bench: AssistantBench, caller: Principal, asked: Asked) -> Message:
    """As its user reads it."""
    return await bench.chats.message(caller, asked.session_id, asked.message.id)


async def test_a_turn_that_was_left_is_answered_from_its_last_step(
    bench: AssistantBench, db: Database, caller: Principal, leave: Leave
) -> None:
    """The search is not done again, and its user need not ask."""
    bench.llm.script["answer"] = [FACT]
    asked = await leave()
    assert await takeovers(bench, db).run() >= 1
    found = await message(bench, caller, asked)
    assert (found.state, found.content) == ("done", "Sheila lives in Texas [1].")
    assert bench.searched == []


async def test_a_turn_somebody_is_at_is_left_alone(
    bench: AssistantBench, db: Database, caller: Principal, session: Session
) -> None:
    """Its process said a moment ago that it lives."""
    question = Question(text=QUESTION)
    asked = await bench.assistant.begin(caller, session.id, question, request_id="r")
    await takeovers(bench, db).run()
    assert (await message(bench, caller, asked)).state == "running"


async def test_what_is_not_safe_ends_as_interrupted_and_its_user_can_go_on(
    bench: AssistantBench, db: Database, caller: Principal, leave: Leave
) -> None:
    """A turn with tools: its message says why and how, and resuming it gives the answer."""
    bench.llm.script |= {"answer": [FACT], "agent": [FACT]}
    asked = await leave(tools=True)
    await takeovers(bench, db).run()
    found = await message(bench, caller, asked)
    assert found.error is not None
    assert (found.state, found.error.code) == ("failed", "interrupted")
    assert "resume" in str(found.error.hint)
    again = await bench.assistant.resume(caller, asked.session_id, asked.message.id, request_id="r2")
    events = [event async for event in bench.assistant.events(again)]
    assert events[-1].name == "done"
    assert (await message(bench, caller, asked)).state == "done"
    over = await bench.assistant.resume(caller, asked.session_id, asked.message.id, request_id="r3")
    assert over.turn_id is None


@pytest.mark.parametrize("limits", [{"models": ("local/small",)}, {"engines": frozenset({"search"})}])
async def test_a_limited_keys_turn_waits_for_its_caller(
    bench: AssistantBench, db: Database, caller: Principal, leave: Leave, limits: dict[str, Any]
) -> None:
    """A worker would go on with more rights than the key has."""
    asked = await leave(asking=replace(caller, **limits))
    await takeovers(bench, db).run()
    assert (await message(bench, caller, asked)).state == "failed"
    assert bench.llm.requests == []


async def test_a_turn_that_is_cut_off_again_and_again_is_given_up(
    bench: AssistantBench, db: Database, caller: Principal, leave: Leave
) -> None:
    """It may be what kills the processes."""
    asked = await leave()
    await takeovers(bench, db, allowed=0).run()
    found = await message(bench, caller, asked)
    assert found.error is not None
    assert (found.state, found.error.code) == ("failed", "interrupted")


async def test_an_old_turn_is_not_gone_on_with(
    bench: AssistantBench, db: Database, caller: Principal, leave: Leave
) -> None:
    """Nobody waits for an answer to yesterday's question; it costs nothing any more."""
    asked = await leave()
    async with db.tenant(caller) as conn:
        await conn.execute("UPDATE turns SET created_at = now() - interval '1 day'")
    await takeovers(bench, db).run()
    assert (await message(bench, caller, asked)).state == "failed"


async def test_a_turn_its_user_cancelled_ends_as_cancelled(
    bench: AssistantBench, db: Database, caller: Principal, leave: Leave
) -> None:
    """Its process died before it heard of that."""
    asked = await leave()
    async with db.tenant(caller) as conn:
        await conn.execute("UPDATE turns SET cancelled = true")
    await takeovers(bench, db).run()
    found = await message(bench, caller, asked)
    assert (found.state, found.error) == ("cancelled", None)


async def test_a_turn_whose_session_is_deleted_meanwhile_holds_up_nothing(
    bench: AssistantBench, db: Database, caller: Principal, leave: Leave
) -> None:
    """Nothing of it is left, and the next round begins as if it had never been."""
    asked, real = await leave(), bench.assistant.resume

    async def resume(principal: Principal, session_id: UUID, message_id: UUID, *, request_id: str) -> Asked:
        if message_id == asked.message.id:
            await bench.chats.delete(caller, asked.session_id, request_id="r")
        return await real(principal, session_id, message_id, request_id=request_id)

    bench.assistant.resume = resume  # type: ignore[method-assign]
    await takeovers(bench, db).run()
    async with db.tenant(caller) as conn:
        assert await (await conn.execute("SELECT * FROM turns")).fetchall() == []


async def with_file(bench: AssistantBench, caller: Principal, session: Session) -> Question:
    """A question about an attached file."""
    file = await bench.attachments.add(bench.upload(FACT, "note.txt"), caller, session.id, request_id="r")
    return Question(text=QUESTION, attachments=(file.id,))


def reads(bench: AssistantBench, monkeypatch: pytest.MonkeyPatch, wait: Callable[[], Awaitable[Any]]) -> None:
    """Let attachments be read after `wait`."""
    real = bench.attachments.read

    async def read(*asked: Any) -> Any:
        await wait()
        return await real(*asked)

    monkeypatch.setattr(bench.attachments, "read", read)


async def _long_unseen(db: Database, caller: Principal) -> bool:
    async with db.tenant(caller) as conn:
        cursor = await conn.execute("SELECT seen_at < now() - interval '30 seconds' AS silent FROM turns")
        return bool((await cursor.fetchall())[0]["silent"])


async def test_a_question_whose_attachment_is_read_for_long_is_not_taken_for_a_dead_one(
    bench: AssistantBench, db: Database, caller: Principal, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is read its turn shows that somebody is at it, to a worker that looks for turns to take over."""
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.1)
    bench.llm.script["answer"] = [FACT]

    async def wait() -> None:
        await _silent(db, caller)
        async with asyncio.timeout(60):
            while await _long_unseen(db, caller):  # noqa: ASYNC110 - what is waited for lies in the database
                await asyncio.sleep(0.05)
        await takeovers(bench, db).run()

    reads(bench, monkeypatch, wait)
    question = await with_file(bench, caller, session)
    asked = await bench.assistant.begin(caller, session.id, question, request_id="r")
    events = [event async for event in bench.assistant.events(asked)]
    assert (events[-1].name, (await message(bench, caller, asked)).state) == ("done", "done")


async def test_a_question_can_be_cancelled_while_its_attachment_is_read(
    bench: AssistantBench, caller: Principal, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is over at once, for who waits for it too."""
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.1)
    reading = asyncio.Event()

    async def wait() -> None:
        reading.set()
        await asyncio.Event().wait()

    reads(bench, monkeypatch, wait)
    question = await with_file(bench, caller, session)
    begin = asyncio.create_task(bench.assistant.begin(caller, session.id, question, request_id="r"))
    await reading.wait()
    (_, waits) = await bench.chats.path(caller, session.id)
    assert (await bench.assistant.cancel(caller, session.id, waits.id)).state == "cancelled"
    asked = await begin
    assert (asked.turn_id, asked.message.state) == (None, "cancelled")


@pytest.mark.parametrize("stored", [True, False])
async def test_a_question_that_cannot_be_read_leaves_no_message_that_waits(
    bench: AssistantBench,
    db: Database,
    caller: Principal,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    stored: bool,
) -> None:
    """It fails with the reason; where the database is away just then, as soon as a worker sees it."""

    async def wait() -> None:
        raise Conflict("still being read")

    async def away(*_: Any, **__: Any) -> Message:
        raise Unavailable("the database is away")

    reads(bench, monkeypatch, wait)
    question = await with_file(bench, caller, session)
    with monkeypatch.context() as patched:
        if not stored:
            patched.setattr(bench.chats, "finish", away)
        with pytest.raises(Conflict, match="still being read"):
            await bench.assistant.begin(caller, session.id, question, request_id="r", idempotency_key="k")
    if not stored:
        await _silent(db, caller)
        await takeovers(bench, db).run()
    found = (await bench.chats.path(caller, session.id))[-1]
    assert found.error is not None
    assert (found.state, found.error.code) == ("failed", "conflict" if stored else "interrupted")
    async with db.tenant(caller) as conn:
        assert (await turns.of_key(conn, caller.user_id, "k") is None) is stored


class Halting:
    """Holds the first run at its second word for ever, and every later one until it is let go."""

    def __init__(self) -> None:
        self.reached, self.go, self._pieces = asyncio.Event(), asyncio.Event(), 0

    async def __call__(self, kind: str) -> None:
        """Wait."""
        if kind == "answer":
            self._pieces += 1
            if self._pieces == 2:
                self.reached.set()
                await asyncio.Event().wait()
            elif self._pieces > 2:
                await self.go.wait()


async def listening(bench: AssistantBench, asked: Asked) -> list[Event]:
    """All events."""
    return [event async for event in bench.assistant.events(asked)]


@pytest.mark.parametrize("here", [True, False])
async def test_who_was_taken_over_writes_nothing_over_its_successors_answer(
    bench: AssistantBench, db: Database, caller: Principal, session: Session, tmp_path: Path, here: bool
) -> None:
    """A stalled run that wakes hears that it is not its turn any more, also when its own process goes on with it."""
    queue = JobQueue(db.pool)
    await queue.open()
    (tmp_path / "other").mkdir()
    other = bench if here else AssistantBench(db, queue, tmp_path / "other", llm=bench.llm)
    bench.llm.script["answer"] = [FACT]
    bench.llm.before_piece = halting = Halting()
    await bench.remember(FACT)
    asked = await bench.assistant.begin(caller, session.id, Question(text=QUESTION), request_id="r")
    first = asyncio.create_task(listening(bench, asked))
    await halting.reached.wait()
    again: Asked | None = None
    while again is None:
        await _silent(db, caller)
        try:
            again = await other.assistant.resume(caller, session.id, asked.message.id, request_id="r2")
        except Conflict:
            continue  # it said just now that it lives
    second = asyncio.create_task(listening(other, again))
    async with asyncio.timeout(60):
        heard = await first
    assert isinstance(heard[-1].data["error"], Conflict)
    assert (await message(bench, caller, asked)).state == "running"
    halting.go.set()
    assert (await second)[-1].name == "done"
    found = await message(bench, caller, asked)
    assert (found.state, found.content) == ("done", "Sheila lives in Texas [1].")
    await other.assistant.settled()


async def test_a_run_that_breaks_before_it_hears_of_its_successor_stores_nothing(
    bench: AssistantBench, db: Database, caller: Principal, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stall broke is not how the answer ends."""
    monkeypatch.setattr(heartbeat, "EVERY_S", 60.0)

    async def breaks(kind: str) -> None:
        async with db.tenant(caller) as conn:
            await conn.execute("UPDATE turns SET worker = %s", [new_id()])
        raise ProviderBroke("the provider stalled")

    bench.llm.script["answer"] = [FACT]
    bench.llm.before_piece = breaks
    await bench.remember(FACT)
    asked = await bench.assistant.begin(caller, session.id, Question(text=QUESTION), request_id="r")
    assert (await listening(bench, asked))[-1].name == "error"
    assert (await message(bench, caller, asked)).state == "running"


async def test_a_question_that_is_half_stored_is_not_stored(
    bench: AssistantBench, caller: Principal, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away in the middle; the next question is answered as if that one had never been."""

    async def away(*_: Any, **__: Any) -> None:
        raise Unavailable("the database is away")

    with monkeypatch.context() as patched:
        patched.setattr(turns, "set_message", away)
        patched.setattr(turns, "delete", away)
        with pytest.raises(Unavailable):
            await bench.assistant.begin(caller, session.id, Question(text="Lost?"), request_id="r")
    bench.llm.script["answer"] = [FACT]
    await bench.remember(FACT)
    assert (await bench.ask(caller, session.id, QUESTION))[-1].name == "done"
    assert (await bench.chats.path(caller, session.id))[0].content == QUESTION


async def test_a_message_that_waits_without_a_turn_can_be_cancelled(
    bench: AssistantBench, db: Database, caller: Principal, session: Session
) -> None:
    """By its user: whoever began it is not there any more."""
    waits = await bench.chats.append(caller, session.id, parent_id=None, role="assistant", content="", state="running")
    assert (await bench.assistant.cancel(caller, session.id, waits.id)).state == "cancelled"
