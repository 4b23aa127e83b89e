"""Turns whose process died: gone on with where that is safe, ended with a way on where it is not."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from neuroedge.contract.errors import Overloaded
from neuroedge.contract.principal import Principal
from neuroedge.services.chat.asking import Asked, Question
from neuroedge.services.chat.state import Options, State
from neuroedge.services.chat.takeover import Takeovers
from neuroedge.services.chat.turn import Turn
from neuroedge.services.chat.workflow import STEPS
from neuroedge.stores.chat_messages import Message
from neuroedge.stores.chat_sessions import Session
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
        await conn.execute("UPDATE chat_messages SET created_at = now() - interval '1 minute'")


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
