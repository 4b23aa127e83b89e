"""The pool's memory budget: measured sizes, eviction in the right order, waiting with a deadline, nothing lost."""

import asyncio
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from neuroedge.contract.errors import ModelFailed, NotEnoughMemory, Unavailable
from neuroedge.contract.models import ModelRef
from neuroedge.contract.scope import call_scope
from neuroedge.infra.breaker import Breakers
from neuroedge.runtimes import memory, opening, residents
from neuroedge.runtimes import pool as pool_module
from neuroedge.runtimes.catalogue import Catalogue, ModelEntry
from neuroedge.runtimes.device import Router
from neuroedge.runtimes.pool import Pool, PoolSettings
from neuroedge.runtimes.threaded import Threaded

pytestmark = pytest.mark.anyio
MIB = 1 << 20


class Model(Threaded):
    """Takes as much memory as its options say."""

    def __init__(self, machine: Any, model_id: str, size_bytes: int) -> None:
        super().__init__(model_id)
        self.gate = threading.Event()
        self._machine, self._bytes = machine, size_bytes
        machine.resident += size_bytes

    async def compute(self) -> str:
        """Waits at the gate."""
        return await self._in_thread(lambda: "done" if self.gate.wait(60) else "never")

    def close(self) -> None:
        """Give it back."""
        super().close()
        self._machine.resident -= self._bytes


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A runtime whose models take what they say, on a machine whose memory is counted."""
    module: Any = types.ModuleType("sized_runtime")
    module.resident = 100 * MIB
    module.loaded = []
    module.fail = None
    module.hold = threading.Event()
    module.hold.set()

    def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> Model:
        module.hold.wait(60)
        if module.fail:
            raise module.fail
        module.loaded.append(model_id)
        return Model(module, model_id, int(options["mib"] * MIB))

    module.load = load
    monkeypatch.setitem(sys.modules, "sized_runtime", module)
    monkeypatch.setitem(opening.RUNTIMES, "sized", "sized_runtime")
    monkeypatch.setattr(memory, "resident_bytes", lambda: module.resident)
    monkeypatch.setattr(memory, "give_back", lambda: None)
    yield module
    module.hold.set()


def ref(name: str) -> ModelRef[Any]:
    """The model of a role."""
    return ModelRef(name, Model)


def make(store: Path, sizes: Mapping[str, float], *, budget_mib: int, **more: Any) -> Pool:
    """A pool of models by role, with their sizes in MiB."""
    entries = [
        ModelEntry(id=name, role=name, runtime="sized", licence="MIT", about="-", default=True, options={"mib": size})
        for name, size in sizes.items()
    ]
    guard = more.pop("guard", lambda name, counts: nullcontext())
    on_pressure = more.pop("on_pressure", lambda level: None)
    settings = PoolSettings(**{"cores": 2, "threads": 1, "budget_bytes": {"cpu": budget_mib * MIB}, **more})
    return Pool(
        Catalogue(entries, store=store, overrides={}),
        settings,
        router=Router("cpu"),
        guard=guard,
        on_pressure=on_pressure,
    )


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what another thread or task brings about."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def use(pool: Pool, name: str, priority: Any = None) -> None:
    """Lease and give back."""
    async with pool.lease(ref(name), priority=priority):
        pass


def in_memory(pool: Pool) -> set[str]:
    """Names of what is loaded."""
    return {slot.entry.id for slot in pool.slots() if slot.loaded}


async def learn_sizes(pool: Pool, names: str) -> None:
    """Load each once, so that its size is measured, and unload it again."""
    for name in names:
        await use(pool, name)
        await pool.unload(name)


async def test_sizes_are_measured_and_the_least_recently_used_leaves(tmp_path: Path, machine: Any) -> None:
    """Three models of 40 MiB in a budget of 100: the third takes the place of the one used longest ago."""
    pool = make(tmp_path, {"a": 40, "b": 40, "c": 40}, budget_mib=100)
    await learn_sizes(pool, "abc")
    assert pool.slot("a").measured_bytes == 40 * MIB
    for name in "abab":
        await use(pool, name)
    await use(pool, "a")
    await use(pool, "c")
    assert in_memory(pool) == {"a", "c"}
    assert pool.rooms.used["cpu"] == 80 * MIB
    assert machine.resident == 180 * MIB
    await pool.close()
    assert machine.resident == 100 * MIB
    assert pool.rooms.used["cpu"] == 0


async def test_low_priority_leaves_before_what_was_used_longer_ago(tmp_path: Path, machine: Any) -> None:
    """Priority counts before recency; pinned models stay whatever they are."""
    pool = make(tmp_path, {"old": 30, "job": 30, "pin": 30, "new": 30}, budget_mib=100, pinned=["pin"])
    await learn_sizes(pool, ["old", "job", "pin", "new"])  # type: ignore[arg-type]
    await use(pool, "pin", "low")
    await use(pool, "old", "high")
    await use(pool, "job", "low")
    await use(pool, "new")
    assert in_memory(pool) == {"old", "pin", "new"}
    await pool.close()


async def test_a_model_in_use_is_never_evicted_and_the_wait_has_a_deadline(tmp_path: Path, machine: Any) -> None:
    """Who can't be served in time gets 503 with Retry-After; when the lease ends the next one is served."""
    pool = make(tmp_path, {"a": 60, "b": 60}, budget_mib=100)
    await learn_sizes(pool, "ab")
    async with pool.lease(ref("a")):
        leaving = asyncio.create_task(use(pool, "b"))
        await until(lambda: pool.slot("b").waits_for_room)
        with call_scope(timeout_s=0.1), pytest.raises(NotEnoughMemory) as refused:
            await use(pool, "b")
        assert refused.value.status == 503
        assert refused.value.retry_after_s
        leaving.cancel()
        await until(lambda: pool.slot("b").loading is None)
        assert in_memory(pool) == {"a"}
        waiting = asyncio.create_task(use(pool, "b"))
        await until(lambda: pool.slot("b").waits_for_room)
        assert not waiting.done()
    await waiting
    assert in_memory(pool) == {"b"}
    assert pool.failed() == []
    await pool.close()


async def test_the_most_urgent_waiter_is_served_first(tmp_path: Path, machine: Any) -> None:
    """Not the one that came first; a waiter that left is forgotten."""
    pool = make(tmp_path, {"a": 60, "b": 60, "c": 60, "d": 60}, budget_mib=100)
    await learn_sizes(pool, "abcd")
    machine.loaded.clear()
    async with pool.lease(ref("a")):
        waiting = []
        for name, priority in (("b", "low"), ("c", "high"), ("d", "normal")):
            waiting.append(asyncio.create_task(use(pool, name, priority)))
            await until(lambda name=name: pool.slot(name).waits_for_room)  # type: ignore[misc]
        waiting[2].cancel()
    await asyncio.gather(*waiting[:2])
    assert machine.loaded == ["a", "c", "b"]
    await pool.close()


async def test_a_model_larger_than_the_budget_is_refused_at_once(tmp_path: Path, machine: Any) -> None:
    """Waiting would not help; the message names the setting."""
    pool = make(tmp_path, {"big": 200}, budget_mib=100)
    await pool.load("big")
    await pool.unload("big")
    with pytest.raises(NotEnoughMemory, match="200 MiB, the budget of cpu is 100 MiB") as refused:
        await use(pool, "big")
    assert "MEMORY_BUDGET" in (refused.value.hint or "")
    assert pool.failed() == []


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc"), RuntimeError("corrupt")])
async def test_a_load_that_fails_leaves_the_pool_as_it_was(tmp_path: Path, machine: Any, error: Exception) -> None:
    """Nothing stays reserved, other models work, the failure is told; when its cause is gone the model loads."""
    pool = make(tmp_path, {"a": 40, "b": 40}, budget_mib=100)
    await use(pool, "a")
    machine.fail = error
    with pytest.raises(Unavailable) as failed:
        await use(pool, "b")
    assert isinstance(failed.value, ModelFailed if "corrupt" in str(error) else NotEnoughMemory)
    assert [slot.entry.id for slot in pool.failed()] == ["b"]
    assert pool.rooms.taken("cpu") == 40 * MIB
    await use(pool, "a")
    machine.fail = None
    await use(pool, "b")
    assert pool.failed() == []
    await pool.close()


async def test_failed_loads_are_tried_again_without_a_request(
    tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance that a balancer took out because of it comes back by itself."""
    monkeypatch.setattr(pool_module, "RETRY_FAILED_S", 0.1)
    pool = make(tmp_path, {"a": 40}, budget_mib=100)
    machine.fail = MemoryError()
    with pytest.raises(NotEnoughMemory):
        await use(pool, "a")
    machine.fail = None
    watch = asyncio.create_task(pool.watch())
    async with asyncio.timeout(60):
        while in_memory(pool) != {"a"}:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    watch.cancel()
    assert pool.failed() == []
    await pool.close()


async def test_a_hung_model_is_replaced(tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A computation that never ends: who waits behind it gets an error, the next caller a fresh model."""
    monkeypatch.setattr(Model, "stuck_after_s", 0.2)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    pool = make(tmp_path, {"a": 40}, budget_mib=100)
    watch = asyncio.create_task(pool.watch())

    async def compute() -> str:
        async with pool.lease(ref("a")) as model:
            return str(await model.compute())

    hung = asyncio.create_task(compute())
    await asyncio.sleep(0.05)
    behind = asyncio.create_task(compute())
    async with asyncio.timeout(60):
        with pytest.raises(ModelFailed, match="given up"):
            await behind
        async with pool.lease(ref("a")) as fresh:
            fresh.gate.set()
            assert await fresh.compute() == "done"
    assert machine.loaded == ["a", "a"]
    watch.cancel()
    hung.cancel()
    await asyncio.gather(hung, return_exceptions=True)
    await pool.close()


async def test_what_a_hung_model_took_comes_back_when_it_ends_after_all(
    tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A computation that was only slow: its caller has its answer, and then the given up model leaves the memory."""
    monkeypatch.setattr(Model, "stuck_after_s", 0.2)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    pool = make(tmp_path, {"a": 40}, budget_mib=100)
    watch = asyncio.create_task(pool.watch())
    async with asyncio.timeout(60):
        async with pool.lease(ref("a")) as model:
            slow = asyncio.create_task(model.compute())
            await until(lambda: pool.slot("a").loaded is None)
            assert machine.resident == 140 * MIB
            model.gate.set()
            assert await slow == "done"
        await until(lambda: bool(machine.resident == 100 * MIB))
    watch.cancel()
    await pool.close()


async def test_a_computation_that_hangs_does_not_keep_the_process(
    tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs when the pool closes has some time to end; then it is left to itself, and what waits behind it ends."""
    monkeypatch.setattr(residents, "_LAST_S", 0.2)
    pool = make(tmp_path, {"a": 40, "b": 40}, budget_mib=100)

    async def compute(name: str) -> str:
        async with pool.lease(ref(name)) as model:
            return str(await model.compute())

    hung = asyncio.create_task(compute("a"))
    ending = asyncio.create_task(compute("b"))
    await until(lambda: sum(slot.loaded is not None and slot.loaded.model.busy for slot in pool.slots()) == 2)
    a, b = (slot.loaded.model for slot in pool.slots() if slot.loaded is not None)
    behind = asyncio.create_task(compute("a"))
    await until(lambda: a._threads._unfinished == 2)
    b.gate.set()
    async with asyncio.timeout(60):
        await pool.close()
        assert await ending == "done"
        with pytest.raises(ModelFailed):
            await behind
    assert not hung.done()
    assert machine.resident == 140 * MIB
    a.gate.set()
    assert await hung == "done"


async def test_a_busy_machine_is_given_more_time(tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long because there is twenty times more to do than cores has not hung."""
    monkeypatch.setattr(Model, "stuck_after_s", 50.0)
    monkeypatch.setattr(os, "getloadavg", lambda: (20.0 * (os.cpu_count() or 1), 0.0, 0.0))
    pool = make(tmp_path, {"a": 40}, budget_mib=100)
    async with pool.lease(ref("a")) as model:
        slow = asyncio.create_task(model.compute())
        await until(lambda: any(running.hold for running in model._running.values()))
        (running,) = model._running.values()
        running.sign_at -= 200
        assert not model.stuck()
        monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
        assert model.stuck()
        model.gate.set()
        await slow
    await pool.close()


async def test_pause_lets_go_of_everything_and_resume_brings_it_back(tmp_path: Path, machine: Any) -> None:
    """While another process has the device nothing loads; callers wait, or are told when their deadline passes."""
    pool = make(tmp_path, {"a": 40, "b": 40}, budget_mib=100, pinned=["a"])
    await use(pool, "a")
    await pool.pause()
    assert in_memory(pool) == set()
    with call_scope(timeout_s=0.05), pytest.raises(Unavailable, match="another process"):
        await use(pool, "a")
    waiting = asyncio.create_task(use(pool, "b"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await pool.resume()
    await waiting
    assert in_memory(pool) == {"a", "b"}
    await pool.close()


async def test_pause_waits_for_leases(tmp_path: Path, machine: Any) -> None:
    """A computation under way ends first."""
    pool = make(tmp_path, {"a": 40}, budget_mib=100)
    async with pool.lease(ref("a")):
        pausing = asyncio.create_task(pool.pause())
        await asyncio.sleep(0.05)
        assert not pausing.done()
    await pausing
    assert in_memory(pool) == set()


async def test_a_call_that_holds_a_model_gets_another_one_while_the_device_is_given_away(
    tmp_path: Path, machine: Any
) -> None:
    """Else the pause would wait for the call, and the call for the end of the pause."""
    pool = make(tmp_path, {"a": 40, "b": 40}, budget_mib=100)
    async with pool.lease(ref("a")):
        pausing = asyncio.create_task(pool.pause())
        await asyncio.sleep(0.01)
        with call_scope(timeout_s=60):
            await use(pool, "b")
        assert not pausing.done()
    await pausing
    assert in_memory(pool) == set()
    with call_scope(timeout_s=0.05), pytest.raises(Unavailable, match="another process"):
        await use(pool, "b")
    await pool.resume()
    assert in_memory(pool) == {"a", "b"}
    await pool.close()


async def test_a_pause_frees_what_is_idle_before_it_waits(tmp_path: Path, machine: Any) -> None:
    """A call with a model in hand may need that room for its next one, though others wait for what is idle."""
    pool = make(tmp_path, {"a": 40, "b": 40, "d": 40}, budget_mib=100)
    await learn_sizes(pool, "abd")
    await use(pool, "d")
    wanted = asyncio.Event()

    async def other() -> None:
        await wanted.wait()
        await use(pool, "d")

    waiting = asyncio.create_task(other())
    async with pool.lease(ref("a")):
        pausing = asyncio.create_task(pool.pause())
        wanted.set()
        await asyncio.sleep(0.01)
        with call_scope(timeout_s=60):
            await use(pool, "b")
    await pausing
    assert in_memory(pool) == set()
    await pool.resume()
    await waiting
    await pool.close()


async def test_a_resume_that_is_cut_off_is_finished_by_the_next(tmp_path: Path, machine: Any) -> None:
    """What was not loaded again yet is remembered."""
    pool = make(tmp_path, {"a": 10, "b": 10}, budget_mib=100)
    await use(pool, "a")
    await use(pool, "b")
    await pool.pause()
    machine.hold.clear()
    resuming = asyncio.create_task(pool.resume())
    await until(lambda: pool.slot("a").state == "loading")
    resuming.cancel()
    machine.hold.set()
    await pool.pause()
    assert in_memory(pool) == set()
    await pool.resume()
    assert in_memory(pool) == {"a", "b"}
    await pool.close()


async def test_a_model_that_is_leased_while_another_is_evicted_stays(
    tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes while the machine makes room keeps what it holds."""
    pool = make(tmp_path, {"first": 10, "second": 10}, budget_mib=100)
    for name in ("first", "second"):
        await use(pool, name)
    closing, leased = threading.Event(), threading.Event()

    def close() -> None:
        closing.set()
        leased.wait(60)

    first = pool.slot("first").loaded
    assert first is not None
    monkeypatch.setattr(first.model, "close", close)
    monkeypatch.setattr(pool, "pressure", lambda: "emergency")
    tick = asyncio.create_task(pool._tick())
    await until(closing.is_set)
    async with pool.lease(ref("second")):
        leased.set()
        await tick
        assert in_memory(pool) == {"second"}
    await pool.close()


async def test_the_cache_is_emptied_once_while_memory_is_only_short(
    tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine may stay at "high" for ever; where it is critical, every time."""
    told: list[str] = []
    pool = make(tmp_path, {}, budget_mib=100, on_pressure=told.append)
    for level in ("high", "high", "critical", "high", "critical", "critical", "normal", "high"):
        monkeypatch.setattr(pool, "pressure", lambda level=level: level)
        await pool._tick()
    assert told == ["high", "critical", "critical", "critical", "high"]
    await pool.close()


async def test_under_pressure_idle_models_leave(tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """High: what background jobs loaded. Critical: all but what people wait for. Emergency: all that is idle."""
    pool = make(tmp_path, {"job": 10, "some": 10, "chat": 10, "held": 10}, budget_mib=100)
    levels = {"high": {"some", "chat", "held"}, "critical": {"chat", "held"}, "emergency": {"held"}}
    async with pool.lease(ref("held"), priority="low"):
        for level, left in levels.items():
            for name, priority in (("job", "low"), ("some", "normal"), ("chat", "high")):
                await use(pool, name, priority)
            monkeypatch.setattr(pool, "pressure", lambda level=level: level)
            await pool._tick()
            assert in_memory(pool) == left
            monkeypatch.setattr(pool, "pressure", lambda: "normal")
    await pool.close()


async def test_a_model_that_fails_five_times_is_left_alone(tmp_path: Path, machine: Any) -> None:
    """Its breaker opens: refused at once, no further load; another model is not concerned."""
    breakers = Breakers(clock=lambda: 0.0)
    pool = make(
        tmp_path,
        {"a": 10, "b": 10},
        budget_mib=100,
        guard=lambda name, counts: breakers.guard(name, counts=counts),
    )
    machine.fail = RuntimeError("corrupt")
    for _ in range(5):
        with pytest.raises(ModelFailed):
            await use(pool, "a")
    with pytest.raises(Unavailable) as refused:
        await use(pool, "a")
    assert refused.value.code == "circuit_open"
    assert refused.value.retry_after_s == 30
    machine.fail = None
    await use(pool, "b")
    assert breakers.states()["model:a"].state == "open"
    await pool.close()


async def test_errors_of_the_caller_do_not_open_the_breaker(tmp_path: Path, machine: Any) -> None:
    """A body that raises while it holds a model says nothing about the model."""
    breakers = Breakers()
    pool = make(tmp_path, {"a": 10}, budget_mib=100, guard=lambda name, counts: breakers.guard(name, counts=counts))
    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            async with pool.lease(ref("a")):
                raise ZeroDivisionError
    await use(pool, "a")
    await pool.close()


async def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day forward or back on the wall clock: nothing is unloaded, nobody waits longer."""
    pool = make(tmp_path, {"a": 10}, budget_mib=100, idle_s=60)
    await use(pool, "a")
    import time

    now = time.time()
    for jump_s in (86_400.0, -86_400.0):
        monkeypatch.setattr(time, "time", lambda jump_s=jump_s: now + jump_s)
        await pool._tick()
        assert in_memory(pool) == {"a"}
        await use(pool, "a")
    await pool.close()
