"""An engine that blocks the event loop is interrupted; what is no engine, or is in a bad place for it, is not."""

import asyncio
import hashlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from structlog.testing import capture_logs

from neuroedge.contract.errors import EngineBlocked
from neuroedge.infra.loop_guard import LoopGuard, engine_code, interruptible, package_of

pytestmark = pytest.mark.anyio
LIMIT_S = 0.4


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both loops: `neuroedge serve` runs on uvloop, `neuroedge worker` on asyncio's own."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class Watched:
    """A guard with metrics of its own."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self.registry = CollectorRegistry()
        self.guard = LoopGuard(
            limit_s=limit_s,
            lag=Histogram("lag", "", registry=self.registry),
            blocked=Counter("blocked", "", registry=self.registry),
        )

    def value(self, name: str) -> float:
        """A sample's value."""
        return self.registry.get_sample_value(name) or 0.0


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    """A guarded loop."""
    watched = Watched()
    async with watched.guard:
        yield watched


class Engine:
    """Stands for an engine of this module's package."""


def _loop_for_ever() -> None:
    while True:
        pass


def _wait_for_a_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def _wait_for_a_future() -> None:
    from concurrent.futures import Future

    Future[None]().result()


def _match_slowly() -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")


def _wait_for_a_child() -> None:
    subprocess.run([sys.executable, "-c", "import time; time.sleep(1000)"])


def _catch_and_go_on() -> None:
    while True:
        try:
            time.sleep(1000)
        except Exception:
            continue


@pytest.mark.parametrize(
    "block",
    [
        _loop_for_ever,
        lambda: time.sleep(10**6),
        _wait_for_a_lock,
        _wait_for_a_future,
        _match_slowly,
        _wait_for_a_child,
        _catch_and_go_on,
    ],
    ids=["loop", "sleep", "lock", "future", "regex", "child", "stubborn"],
)
async def test_an_engine_that_blocks_is_interrupted_and_the_others_go_on(
    block: Callable[[], None], watched: Watched
) -> None:
    """Its caller gets EngineBlocked, whatever it blocks with; a timer of another task then runs."""

    async def engine() -> None:
        with engine_code(Engine()):
            await asyncio.sleep(0)
            block()

    async def other() -> str:
        await asyncio.sleep(0.01)
        return "served"

    with capture_logs() as logs:
        blocked, served = await asyncio.gather(engine(), other(), return_exceptions=True)
        await _told(watched)
    assert isinstance(blocked, EngineBlocked)
    assert blocked.status == 503
    assert served == "served"
    assert logs[0]["event"] == "loop_blocked"
    assert logs[0]["interrupted"]
    assert __file__ in logs[0]["stack"]
    assert watched.value("blocked_total") == 1


async def test_the_log_line_names_the_request(watched: Watched) -> None:
    """What is bound to the step's context is bound to the line, though another thread writes it."""
    import structlog

    seen: list[dict[str, Any]] = []

    def keep(_: Any, __: str, event: Any) -> Any:
        seen.append(event)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep])
    try:
        bound = structlog.contextvars.bound_contextvars(request_id="r-1")
        with bound, pytest.raises(EngineBlocked), engine_code(Engine()):
            _loop_for_ever()
        await _told(watched)
    finally:
        structlog.configure(**before)
    assert [event["request_id"] for event in seen] == ["r-1"]


async def test_a_task_of_the_engines_own_is_interrupted_too(watched: Watched) -> None:
    """No frame of the engine's `run` is below it; the engine that awaits it gets the error."""

    async def own() -> None:
        _loop_for_ever()

    with engine_code(Engine()), pytest.raises(EngineBlocked):
        await asyncio.create_task(own())


async def test_what_blocks_outside_an_engine_is_logged_and_left_alone(watched: Watched) -> None:
    """Our own code may hold what an exception would break."""
    with capture_logs() as logs:
        time.sleep(2 * LIMIT_S)  # noqa: ASYNC251
        await _told(watched)
    assert [line["interrupted"] for line in logs] == [False]
    assert watched.value("blocked_total") == 1


async def test_native_code_is_logged_while_it_runs_and_its_answer_counts(watched: Watched) -> None:
    """It can't be interrupted; the stack is of the line that called it."""

    def derive(iterations: float) -> bytes:
        return hashlib.pbkdf2_hmac("sha256", b"password", b"salt", int(iterations))

    a_second = 0.0
    for _ in range(5):  # at its fastest: where it was held up it tells too little
        started = time.monotonic()
        derive(20_000)
        a_second = max(a_second, 20_000 / (time.monotonic() - started))
        await asyncio.sleep(0)
    with capture_logs() as logs, engine_code(Engine()):
        assert len(derive(6 * LIMIT_S * a_second)) == 32
        await _told(watched)
    assert [line["interrupted"] for line in logs] == [False]
    assert "pbkdf2_hmac" in logs[0]["stack"]


async def test_native_code_that_holds_the_interpreter_is_told_of_when_it_ends(watched: Watched) -> None:
    """No thread can look meanwhile, and the loop beats at once after it; but it computed all the time."""
    started = time.thread_time()
    sum(range(1_000_000))
    a_second = 1_000_000 / (time.thread_time() - started)
    with capture_logs() as logs:
        sum(range(int(6 * LIMIT_S * a_second)))
        await _told(watched)
    assert [line["interrupted"] for line in logs] == [False]


async def test_a_process_that_was_stopped_is_no_block() -> None:
    """The signal that comes late is followed by another only after half the limit, whenever the timer was due."""

    async def engine() -> str:
        with engine_code(Engine()):
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            signal.raise_signal(signal.SIGALRM)
            time.sleep(0.2)  # noqa: ASYNC251
            return "done"

    async with Watched(120).guard:
        assert await asyncio.create_task(engine()) == "done"


def test_native_code_is_told_of_only_when_the_loop_does_not_beat_after_it_was_seen() -> None:
    """A process that was stopped is late too; it beats before the second look."""
    guard = Watched().guard
    guard._last = time.monotonic() - 10
    assert guard._in_native_code() is None
    guard._last += 1
    assert guard._in_native_code() is None
    told = guard._in_native_code()
    assert told is not None
    assert told.blocked_s > 8


async def test_many_short_steps_in_a_row_are_no_block(watched: Watched) -> None:
    """An overloaded loop is slow, but no single engine is to blame."""

    async def engine() -> str:
        with engine_code(Engine()):
            time.sleep(LIMIT_S / 20)  # noqa: ASYNC251
            return "done"

    answers = await asyncio.gather(*(engine() for _ in range(60)))
    assert answers == ["done"] * 60


async def test_a_free_loop_costs_no_signal_and_shows_its_lag(watched: Watched) -> None:
    """The timer is wound up again before it runs down."""
    with capture_logs() as logs:
        await asyncio.sleep(2 * LIMIT_S)
        async with asyncio.timeout(60):
            while watched.value("lag_count") <= 3:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert logs == []


async def test_leaving_gives_signal_and_timer_back() -> None:
    """Whoever had them before, here the test runner's time limit."""
    handler, timer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    async with Watched().guard:
        assert signal.getsignal(signal.SIGALRM) != handler
    assert signal.getsignal(signal.SIGALRM) == handler
    after = signal.getitimer(signal.ITIMER_REAL)
    assert (after[0] > 0) == (timer[0] > 0)
    assert "loop-guard" not in [thread.name for thread in threading.enumerate()]


async def test_a_limit_of_zero_switches_it_off() -> None:
    """No signal is taken."""
    handler = signal.getsignal(signal.SIGALRM)
    async with Watched(0).guard:
        assert signal.getsignal(signal.SIGALRM) == handler


async def test_a_loop_in_another_thread_is_not_guarded() -> None:
    """Signals are handled in the main thread only: it would be interrupted in the other's stead."""
    handler = signal.getsignal(signal.SIGALRM)

    async def enter() -> Any:
        async with Watched().guard:
            return signal.getsignal(signal.SIGALRM)

    assert await asyncio.to_thread(lambda: asyncio.run(enter())) == handler


@pytest.mark.parametrize(
    ("module", "may"),
    [
        ("acme.engine", True),
        ("json.decoder", True),
        ("asyncio.locks", False),
        ("logging.handlers", False),
        ("importlib._bootstrap", False),
    ],
)
async def test_nothing_is_raised_where_it_would_break_more(module: str, may: bool) -> None:
    """The innermost code counts, as far as the engine that called it."""
    assert _may_interrupt(module, called_by="acme.engine", engine_of="acme") is may


async def test_work_a_call_started_that_is_not_its_engines_is_not_interrupted() -> None:
    """Such as the loading of a model, whose task inherits the caller's context."""
    assert not _may_interrupt("onnx", called_by="neuroedge.runtimes.pool", engine_of="neuroedge.engines.language.chat")


async def test_code_of_an_engine_outside_a_call_is_not_interrupted() -> None:
    """Only within `engine_code` is there a caller for the error."""
    assert not _may_interrupt("acme.engine", called_by="acme.engine", engine_of=None)


def test_the_built_in_engines_are_one_package() -> None:
    """But not all of NeuroEdge."""
    assert package_of("neuroedge.engines.language.chat") == "neuroedge.engines"
    assert package_of("acme.deep.engine") == "acme"


def _may_interrupt(module: str, *, called_by: str, engine_of: str | None) -> bool:
    """The verdict on code of a module, called by code of another, during a call of the engine of a module."""
    inner: dict[str, Any] = {"__name__": module, "verdict": lambda: interruptible(sys._getframe(1))}
    exec("def inner(): return verdict()", inner)
    outer: dict[str, Any] = {"__name__": called_by, "inner": inner["inner"]}
    exec("def outer(): return inner()", outer)
    engine = type("Other", (), {"__module__": engine_of})()
    with engine_code(engine) if engine_of else nullcontext():
        return bool(outer["outer"]())


async def _told(watched: Watched) -> None:
    """Wait until the thread has logged: it ends after its last line."""
    await asyncio.sleep(0.05)
    await watched.guard.__aexit__()
