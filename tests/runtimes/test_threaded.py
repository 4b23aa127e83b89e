"""A model's queue of computations: bounded, in order, and free again after whatever ended them."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from neuroedge.contract.errors import ModelFailed, Overloaded
from neuroedge.contract.scope import call_scope
from neuroedge.runtimes.threaded import MAX_WAITING, Threaded

pytestmark = pytest.mark.anyio


class Model(Threaded):
    """Computes when its gate opens."""

    def __init__(self, *, max_waiting: float = MAX_WAITING, workers: int = 1) -> None:
        super().__init__("test", max_waiting=max_waiting, workers=workers)
        self.gate = threading.Event()
        self.started = threading.Event()

    async def compute(self, value: int) -> int:
        """The value again; fails for 0."""
        return await self._in_thread(lambda: self._compute(value))

    def _compute(self, value: int) -> int:
        self.started.set()
        self.gate.wait(60)
        return value * value // value


@pytest.fixture
def model() -> Iterator[Model]:
    """A model that computes one thing and lets two wait."""
    made = Model(max_waiting=2)
    yield made
    made.gate.set()
    made.close()


async def _fill(model: Model) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(model.compute(i)) for i in (1, 2, 3)]
    await asyncio.to_thread(model.started.wait, 60)
    return tasks


async def test_more_than_the_bound_is_refused_at_once(model: Model) -> None:
    """One runs, two wait, the fourth is told when to come back; the others are served."""
    tasks = await _fill(model)
    with pytest.raises(Overloaded, match="the model is busy") as caught:
        async with asyncio.timeout(1):
            await model.compute(4)
    assert (caught.value.retry_after_s or 0) > 0
    model.gate.set()
    assert await asyncio.gather(*tasks) == [1, 2, 3]
    assert await model.compute(4) == 4


async def test_what_could_not_begin_before_its_deadline_is_refused_now(model: Model) -> None:
    """By the model's own pace; without a deadline it may wait."""
    tasks = await _fill(model)
    model._threads._unit_s = 100.0
    with call_scope(timeout_s=5), pytest.raises(Overloaded) as refused:
        await model.compute(4)
    assert refused.value.retry_after_s == 60
    model.gate.set()
    assert await asyncio.gather(*tasks) == [1, 2, 3]


async def test_what_would_begin_but_not_end_in_time_is_refused_too() -> None:
    """A second each, and one half done: 1.2 s are not enough for another one, 60 are."""
    model = Model(max_waiting=10)
    first = asyncio.create_task(model.compute(1))
    await asyncio.to_thread(model.started.wait, 60)
    model._threads._unit_s = 1.0
    with call_scope(timeout_s=1.2), pytest.raises(Overloaded):
        await model.compute(2)
    with call_scope(timeout_s=60):
        second = asyncio.create_task(model.compute(3))
    await asyncio.sleep(0)
    model.gate.set()
    assert await asyncio.gather(first, second) == [1, 3]
    model.close()


async def test_what_has_no_time_left_when_its_turn_comes_is_refused_then(model: Model) -> None:
    """It was taken while the model was quick; now its turn has come and it would not end in time."""
    first = asyncio.create_task(model.compute(1))
    await asyncio.to_thread(model.started.wait, 60)
    with call_scope(timeout_s=60):
        second = asyncio.create_task(model.compute(2))
    await asyncio.sleep(0)
    model._threads._unit_s = 100.0
    model.gate.set()
    assert await first == 1
    with pytest.raises(Overloaded):
        await second


async def test_a_free_worker_begins_nothing_beside_others_that_would_not_end() -> None:
    """Known to take 100 s, it is refused beside another; with nothing else under way it is tried, and teaches."""
    model = Model(max_waiting=10, workers=2)
    first = asyncio.create_task(model.compute(1))
    await asyncio.to_thread(model.started.wait, 60)
    model._threads._unit_s = 100.0
    with call_scope(timeout_s=60), pytest.raises(Overloaded):
        await model.compute(2)
    model.gate.set()
    assert await first == 1
    with call_scope(timeout_s=60):
        assert await model.compute(3) == 3
    assert model._threads._unit_s < 90
    model.close()


async def test_slow_work_is_believed_at_once_and_quick_work_slowly() -> None:
    """After one piece ten times as slow the pace is half way there; quick ones take more."""
    threads = Model(max_waiting=10)._threads
    threads._learn(1.0, 10.0)
    threads._learn(1.0, 100.0)
    assert threads._unit_s == 55
    threads._learn(1.0, 10.0)
    assert threads._unit_s == 46


async def test_small_pieces_tell_little_of_the_pace() -> None:
    """One of 20 units that mostly waited does not make one of 500 look slow; one of none tells nothing."""
    threads = Model(max_waiting=10)._threads
    for _ in range(5):
        threads._learn(500.0, 5.0)
    threads._learn(0.0, 3.0)
    assert threads._unit_s == pytest.approx(0.01)
    threads._learn(20.0, 6.0)
    assert threads._unit_s < 0.02
    threads._begun[0] = time.monotonic() - 0.6, 5.0
    assert threads._pace_s() < 0.02


async def test_a_pace_that_has_become_slow_counts_at_once(model: Model) -> None:
    """What is under way takes longer than a piece of work ever did: the next is told so, and when to come back."""
    first = asyncio.create_task(model.compute(1))
    await asyncio.to_thread(model.started.wait, 60)
    model._threads._unit_s = 1e-3
    (thread,) = model._threads._begun
    model._threads._begun[thread] = time.monotonic() - 50, 1.0
    second = asyncio.create_task(model.compute(2))
    await asyncio.sleep(0)
    with call_scope(timeout_s=60), pytest.raises(Overloaded) as refused:
        await model.compute(3)
    assert 50 <= (refused.value.retry_after_s or 0) <= 60
    model.gate.set()
    assert await asyncio.gather(first, second) == [1, 2]


async def test_by_default_64_wait() -> None:
    """The bound without an option."""
    model = Model()
    tasks = [asyncio.create_task(model.compute(i + 1)) for i in range(70)]
    await asyncio.to_thread(model.started.wait, 60)
    model.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, Overloaded) for result in results) == 70 - 1 - 64
    model.close()


async def test_a_waiter_that_leaves_makes_room(model: Model) -> None:
    """A cancelled computation never runs and does not count any more."""
    running, leaving, staying = await _fill(model)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    late = asyncio.create_task(model.compute(5))
    await asyncio.sleep(0)
    model.gate.set()
    assert [await task for task in (running, staying, late)] == [1, 3, 5]


async def test_computations_that_fail_make_room(model: Model) -> None:
    """Errors reach their callers and do not fill the queue."""
    model.gate.set()
    for _ in range(10):
        with pytest.raises(ModelFailed, match="division"):
            await model.compute(0)
    assert await model.compute(7) == 7


async def test_nothing_is_computed_after_close() -> None:
    """A closed model refuses; it does not hang."""
    model = Model()
    model.close()
    with pytest.raises(ModelFailed, match="unloaded"):
        await model.compute(1)
