"""Running engines in this process."""

import asyncio
from typing import Any

import pytest

from neuroedge.contract.engine import Engine, EngineInput, EngineOutput
from neuroedge.executors.local import LocalExecutor
from tests.fakes import make_context

pytestmark = pytest.mark.anyio


class Input(EngineInput):
    """Nothing."""


class Output(EngineOutput):
    """Nothing."""


class Waiting(Engine[Input, Output]):
    """Answers when it may."""

    name = "waiting"
    title = "Answers when it may"
    method = "waiting"
    example = Input()
    __hash__ = None  # type: ignore[assignment]

    async def run(self, payload: Input, ctx: Any) -> Any:
        """Wait for the gate, then do as told."""
        await self.gate.wait()
        return self.answer

    gate: asyncio.Event
    answer: Any = Output(method="waiting")


@pytest.fixture
async def engine() -> Waiting:
    """An engine whose gate is closed."""
    made = Waiting(probe=make_context())
    made.gate = asyncio.Event()
    return made


def _calls(executor: LocalExecutor, engine: Waiting, n: int) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(executor.run(engine, Input(), engine.probe)) for _ in range(n)]


async def test_an_idle_engine_is_drained_at_once(engine: Waiting) -> None:
    """Nothing to wait for."""
    assert await LocalExecutor().drain(engine, timeout_s=0)


async def test_draining_waits_for_every_call_however_it_ends(engine: Waiting) -> None:
    """Answered, failed or cancelled; all who drain are told."""
    executor = LocalExecutor()
    calls = _calls(executor, engine, 3)
    await asyncio.sleep(0)
    assert not await executor.drain(engine, timeout_s=0.01)
    draining = [asyncio.create_task(executor.drain(engine, timeout_s=60)) for _ in range(2)]
    calls[0].cancel()
    await asyncio.wait(calls[:1])
    assert not any(waiting.done() for waiting in draining)
    engine.gate.set()
    assert await asyncio.gather(*draining) == [True, True]
    assert len(await asyncio.gather(*calls[1:])) == 2
    assert await executor.drain(engine, timeout_s=0)


async def test_only_calls_of_this_instance_count(engine: Waiting) -> None:
    """The new version's calls do not hold up the old one's drain."""
    executor, other = LocalExecutor(), Waiting(probe=engine.probe)
    other.gate = engine.gate
    calls = _calls(executor, other, 1)
    await asyncio.sleep(0)
    assert await executor.drain(engine, timeout_s=0)
    assert not await executor.drain(other, timeout_s=0.01)
    engine.gate.set()
    await asyncio.gather(*calls)


async def test_an_answer_that_is_not_the_engines_output_is_a_defect(engine: Waiting) -> None:
    """It never reaches a caller."""
    engine.gate.set()
    for wrong in ({"method": "waiting"}, None, Input()):
        engine.answer = wrong
        with pytest.raises(TypeError, match="not its Output"):
            await LocalExecutor().run(engine, Input(), engine.probe)
