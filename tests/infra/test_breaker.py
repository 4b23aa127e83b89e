"""Circuit breakers: five failures in a row, thirty seconds of rest, one probe."""

import asyncio
import contextlib
import time
import tracemalloc
from collections.abc import Callable

import pytest

from neuroedge.contract.errors import (
    CircuitOpen,
    InvalidInput,
    ModelFailed,
    NeuroEdgeError,
    NotEnoughMemory,
    Overloaded,
    Unavailable,
)
from neuroedge.infra.breaker import Breakers, State, is_failure

pytestmark = pytest.mark.anyio

NAME = "model:whisper-base"


class Timer:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds from an arbitrary start."""
        return self.now


class Watched:
    """Breakers on a settable clock, with the changes they told of."""

    def __init__(self) -> None:
        self.clock = Timer()
        self.changes: list[tuple[str, State]] = []
        self.breakers = Breakers(clock=self.clock, on_change=lambda name, state: self.changes.append((name, state)))

    async def call(self, error: BaseException | None = None, *, name: str = NAME) -> None:
        """One guarded call that raises `error`."""
        async with self.breakers.guard(name):
            if error is not None:
                raise error

    async def fail(self, times: int = 1, *, name: str = NAME) -> None:
        """Calls that fail, one after the other."""
        for _ in range(times):
            with pytest.raises(Unavailable, match="broken"):
                await self.call(Unavailable("broken"), name=name)

    def state(self) -> State:
        """Of the one breaker most tests use."""
        return self.breakers.states()[NAME].state


@pytest.fixture
def watched() -> Watched:
    """Fresh breakers."""
    return Watched()


async def test_the_fifth_failure_in_a_row_opens(watched: Watched) -> None:
    """Not the fourth; from then on nothing is tried, and the callers hear for how long."""
    await watched.fail(4)
    assert watched.state() == "closed"
    await watched.fail()
    assert (watched.state(), watched.changes) == ("open", [(NAME, "open")])
    for after_s, left_s in ((0.0, 30), (0.5, 30), (12.0, 18), (29.9, 1)):
        watched.clock.now = 1000.0 + after_s
        with pytest.raises(CircuitOpen, match=NAME) as refused:
            await watched.call()
        assert refused.value.retry_after_s == left_s
        assert watched.breakers.states()[NAME].retry_after_s == pytest.approx(30 - after_s)
    assert watched.breakers.states()[NAME].failures == 5


async def test_a_success_starts_the_count_anew(watched: Watched) -> None:
    """Only failures in a row count."""
    await watched.fail(4)
    await watched.call()
    await watched.fail(4)
    assert watched.state() == "closed"


async def test_names_have_breakers_of_their_own(watched: Watched) -> None:
    """One provider's outage does not stop another."""
    await watched.fail(5, name="provider:a")
    await watched.call(name="provider:b")
    assert {name: b.state for name, b in watched.breakers.states().items()} == {
        "provider:a": "open",
        "provider:b": "closed",
    }


async def test_one_probe_among_fifty(watched: Watched) -> None:
    """After the rest exactly one call is let through; the others are refused until it has ended."""
    await watched.fail(5)
    watched.clock.now += 30
    tried, refusals = 0, []
    all_refused, end = asyncio.Event(), asyncio.Event()

    async def call() -> None:
        nonlocal tried
        try:
            async with watched.breakers.guard(NAME):
                tried += 1
                await end.wait()
        except CircuitOpen as error:
            refusals.append(error)
            if len(refusals) == 49:
                all_refused.set()

    async with asyncio.TaskGroup() as calls:
        for _ in range(50):
            calls.create_task(call())
        await all_refused.wait()
        assert watched.state() == "half_open"
        end.set()
    assert (tried, watched.state()) == (1, "closed")
    assert {error.retry_after_s for error in refusals} == {1}
    assert [state for _, state in watched.changes] == ["open", "half_open", "closed"]
    assert watched.breakers.states()[NAME].failures == 0


async def test_a_failing_probe_opens_anew_for_the_full_time(watched: Watched) -> None:
    """One failure of the probe is enough."""
    await watched.fail(5)
    watched.clock.now += 31
    await watched.fail()
    assert watched.breakers.states()[NAME].retry_after_s == 30
    with pytest.raises(CircuitOpen):
        await watched.call()
    assert [state for _, state in watched.changes] == ["open", "half_open", "open"]


async def test_a_cancelled_probe_makes_room_for_the_next(watched: Watched) -> None:
    """Who leaves in the middle of the probe proves nothing and blocks nobody."""
    await watched.fail(5)
    watched.clock.now += 30
    entered = asyncio.Event()

    async def probe() -> None:
        async with watched.breakers.guard(NAME):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(probe())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert watched.state() == "half_open"
    await watched.call()
    assert watched.state() == "closed"


async def test_a_callers_mistake_changes_nothing(watched: Watched) -> None:
    """It neither counts nor starts the count anew, and as a probe it leaves the question open."""
    await watched.fail(4)
    for _ in range(10):
        with pytest.raises(InvalidInput):
            await watched.call(InvalidInput("bad"))
    assert watched.breakers.states()[NAME].failures == 4
    await watched.fail()
    watched.clock.now += 30
    with pytest.raises(InvalidInput):
        await watched.call(InvalidInput("bad"))
    assert watched.state() == "half_open"
    await watched.fail()
    assert watched.state() == "open"


async def test_late_ends_of_older_calls_decide_nothing(watched: Watched) -> None:
    """Calls that began before the breaker opened neither close it nor keep it open longer."""
    good, bad = watched.breakers.guard(NAME), watched.breakers.guard(NAME)
    await good.__aenter__()
    await bad.__aenter__()
    await watched.fail(5)
    watched.clock.now += 20
    error = Unavailable("late")
    await bad.__aexit__(Unavailable, error, None)
    assert watched.breakers.states()[NAME].retry_after_s == 10
    await good.__aexit__(None, None, None)
    assert watched.state() == "open"


async def test_the_caller_chooses_what_counts() -> None:
    """`counts` replaces the default."""
    breakers = Breakers(threshold=1)
    for error, state in ((ValueError(), "closed"), (KeyError(), "open")):
        with pytest.raises(type(error)):
            async with breakers.guard("x", counts=lambda e: isinstance(e, KeyError)):
                raise error
        assert breakers.states()["x"].state == state


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (Unavailable("x"), True),
        (ModelFailed("x", model_id="m"), True),
        (NotEnoughMemory("x"), True),
        (OSError(), True),
        (TimeoutError(), True),
        (CircuitOpen("x"), False),
        (Overloaded("x"), False),
        (InvalidInput("x"), False),
        (NeuroEdgeError("x"), False),
        (asyncio.CancelledError(), False),
        (GeneratorExit(), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_failures_are_what_is_not_the_callers_fault(error: BaseException, counts: bool) -> None:
    """The default of `counts`."""
    assert is_failure(error) is counts


@pytest.mark.parametrize("jump_s", [86_400, -86_400])
async def test_a_jump_of_the_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch, jump_s: float) -> None:
    """The time of day may be set; a breaker opens for its time by the monotonic clock."""
    breakers = Breakers(threshold=1)
    with pytest.raises(ConnectionError):
        async with breakers.guard("x"):
            raise ConnectionError
    real: Callable[[], float] = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    assert 29 < breakers.states()["x"].retry_after_s <= 30
    with pytest.raises(CircuitOpen):
        async with breakers.guard("x"):
            pass


async def test_refusals_leave_nothing_behind(watched: Watched) -> None:
    """A hundred thousand refusals keep no memory: each is an exception of its own, its trace does not grow."""
    await watched.fail(5)

    async def refuse(times: int) -> None:
        for _ in range(times):
            with contextlib.suppress(CircuitOpen):
                await watched.call()

    await refuse(1000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await refuse(100_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 50_000


@pytest.mark.parametrize("wrong", [{"threshold": 0}, {"open_s": 0}, {"open_s": float("nan")}])
def test_nonsense_settings_are_refused(wrong: dict[str, float]) -> None:
    """A breaker that is always open or never opens is a mistake."""
    with pytest.raises(ValueError, match="threshold"):
        Breakers(**wrong)  # type: ignore[arg-type]
