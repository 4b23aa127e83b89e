"""The batching queue: callers share batches, fairly, bounded in tokens, and nobody computes for those who left."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroedge.contract.errors import DeadlineExceeded, Overloaded
from neuroedge.contract.models import Floats
from neuroedge.contract.scope import call_scope
from neuroedge.runtimes.batcher import MAX_PADDING, Batcher

pytestmark = pytest.mark.anyio


class Model:
    """Gives back each sequence's first token and length; waits at its gate, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[Sequence[int]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail: Exception | None = None

    async def forward(self, ids: list[Sequence[int]], came: float) -> Floats:
        """One batch."""
        self.batches.append(ids)
        await self.gate.wait()
        if self.fail:
            raise self.fail
        return np.array([[i[0], len(i)] for i in ids], np.float32)


def make(model: Model, *, budget: int = 64, waiting: int = 1000, workers: int = 1) -> Batcher:
    """A batcher over it."""
    return Batcher(model.forward, token_budget=budget, max_waiting_tokens=waiting, batches_under_way=workers)


def text(first: int, length: int) -> list[int]:
    """A sequence."""
    return [first, *[7] * (length - 1)]


async def test_every_caller_gets_its_own_vectors_in_order() -> None:
    """Fifty callers with mixed lengths at once."""
    model = Model()
    batcher = make(model, waiting=10_000)
    calls = [[text(100 * c + i, 1 + (7 * c + 3 * i) % 20) for i in range(5)] for c in range(50)]
    answers = await asyncio.gather(*(batcher.run(call) for call in calls))
    for call, answer in zip(calls, answers, strict=True):
        assert answer.tolist() == [[i[0], len(i)] for i in call]


async def test_callers_at_the_same_time_share_batches_of_like_length() -> None:
    """While the first batch is computed others come in; they go together, short with short and long with long."""
    model = Model()
    model.gate.clear()
    batcher = make(model, budget=64)
    tasks = [asyncio.create_task(batcher.run([text(i, 4 if i % 2 else 30)])) for i in range(9)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    model.gate.set()
    await asyncio.gather(*tasks)
    assert len(model.batches) < 9
    for batch in model.batches:
        assert len({len(ids) for ids in batch}) == 1
        assert len(batch) * len(batch[0]) <= 64


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=60), budget=st.integers(16, 512))
async def test_batches_keep_the_budget_and_hold_little_padding(lengths: list[int], budget: int) -> None:
    """Whatever waits: a batch is within the budget (or one text), its padding within the bound, nothing is lost."""
    model = Model()
    await make(model, budget=budget).run([text(i, n) for i, n in enumerate(lengths)])
    for batch in model.batches:
        sizes = [len(ids) for ids in batch]
        padded = max(sizes) * len(sizes)
        assert padded <= budget or len(batch) == 1
        assert 1 - sum(sizes) / padded <= MAX_PADDING + 1e-9
    assert sorted(ids[0] for batch in model.batches for ids in batch) == list(range(len(lengths)))


async def test_a_question_does_not_wait_behind_a_book() -> None:
    """A short request that comes while a long one is under way is served after the next few batches, not after all."""
    model = Model()
    model.gate.clear()
    batcher = make(model, budget=32, waiting=10_000)
    book = asyncio.create_task(batcher.run([text(1, 16) for _ in range(200)]))  # noqa: RUF006 - gathered below
    await asyncio.sleep(0)
    question = asyncio.create_task(batcher.run([text(2, 8)]))
    await asyncio.sleep(0)
    model.gate.set()
    await asyncio.gather(question, book)
    assert [batch[0][0] for batch in model.batches].index(2) <= 2
    assert len(model.batches) == 101


async def test_high_priority_goes_first() -> None:
    """What a person waits for overtakes background work that came before."""
    model = Model()
    model.gate.clear()
    batcher = make(model, budget=8)
    first = asyncio.create_task(batcher.run([text(0, 8)]))
    await asyncio.sleep(0)

    async def run(first_token: int, priority: str) -> None:
        with call_scope(priority=priority):  # type: ignore[arg-type]
            await batcher.run([text(first_token, 8)])

    tasks = [asyncio.create_task(run(1, "low")), asyncio.create_task(run(2, "normal"))]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(run(3, "high")))
    await asyncio.sleep(0)
    model.gate.set()
    await asyncio.gather(first, *tasks)
    assert [batch[0][0] for batch in model.batches] == [0, 3, 2, 1]


async def test_a_full_queue_refuses_at_once_with_retry_after() -> None:
    """Counted in tokens; a request larger than the queue is served when it is empty."""
    model = Model()
    batcher = make(model, budget=16, waiting=40)
    assert len(await batcher.run([text(0, 50)] * 3)) == 3
    model.gate.clear()
    waiting = [asyncio.create_task(batcher.run([text(1, 16)]))]
    await asyncio.sleep(0.01)
    waiting += [asyncio.create_task(batcher.run([text(1, 16)])) for _ in range(2)]
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded) as refused:
        async with asyncio.timeout(0.5):
            await batcher.run([text(2, 16)])
    assert (refused.value.retry_after_s or 0) >= 1
    assert len(await _opened(model, waiting)) == 3


async def _opened(model: Model, tasks: list["asyncio.Task[Floats]"]) -> list[Floats]:
    model.gate.set()
    return await asyncio.gather(*tasks)


async def test_work_whose_caller_left_is_never_computed() -> None:
    """And does not count against the bound."""
    model = Model()
    model.gate.clear()
    batcher = make(model, budget=16, waiting=40)
    running = asyncio.create_task(batcher.run([text(1, 16)]))
    await asyncio.sleep(0)
    leaving = [asyncio.create_task(batcher.run([text(2, 16)])) for _ in range(2)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    assert batcher.waiting_tokens == 0
    staying = asyncio.create_task(batcher.run([text(3, 16)]))
    await asyncio.sleep(0)
    await _opened(model, [running, staying])
    assert [batch[0][0] for batch in model.batches] == [1, 3]


async def test_work_past_its_deadline_is_told_so_and_not_computed() -> None:
    """The deadline of the call travels into the queue."""
    model = Model()
    model.gate.clear()
    batcher = make(model, budget=16)
    running = asyncio.create_task(batcher.run([text(1, 16)]))
    await asyncio.sleep(0)

    async def hurried() -> Floats:
        with call_scope(timeout_s=0.01):
            return await batcher.run([text(2, 16)])

    late = asyncio.create_task(hurried())
    await asyncio.sleep(0.05)
    model.gate.set()
    with pytest.raises(DeadlineExceeded):
        await late
    await running
    assert [batch[0][0] for batch in model.batches] == [1]


async def test_an_error_reaches_those_of_the_batch_and_the_queue_goes_on() -> None:
    """The next request is computed."""
    model = Model()
    model.fail = RuntimeError("broken")
    batcher = make(model)
    answers = await asyncio.gather(*(batcher.run([text(i, 4)]) for i in range(3)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["broken"] * 3
    model.fail = None
    assert (await batcher.run([text(5, 4)])).tolist() == [[5, 4]]


async def test_two_workers_compute_two_batches_at_once() -> None:
    """As many as the backend has streams."""
    model = Model()
    model.gate.clear()
    batcher = make(model, budget=4, workers=2)
    tasks = [asyncio.create_task(batcher.run([text(i, 4)])) for i in range(4)]
    await asyncio.sleep(0.01)
    assert len(model.batches) == 2
    await _opened(model, tasks)
    assert len(model.batches) == 4


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_caller_that_comes_right_after_its_last_answer_is_served(workers: int) -> None:
    """The moment between the last batch and the end of its task must not swallow a request."""
    batcher = make(Model(), workers=workers)
    async with asyncio.timeout(60):
        for number in range(200):
            assert (await batcher.run([text(number, 4)])).tolist() == [[number, 4]]
