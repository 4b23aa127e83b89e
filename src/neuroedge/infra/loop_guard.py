"""The event loop under watch: an engine that blocks it is interrupted, and everybody else is served again.

The loop winds up a timer of the operating system ten times a second. When it stands still the timer runs down, and its
signal is handled in the main thread between two instructions of whatever blocks there: a loop, `time.sleep`, a lock, a
slow regular expression (which a watching thread could not stop: it holds the interpreter). If that is an engine's step
and still the same one as half the limit before, an exception is raised in it: EngineBlocked, which reaches the caller
as 503; if the engine catches it and goes on, StubbornEngine, which no `except Exception` catches.

Not interrupted, only logged: imports (half a native library cannot be loaded again), steps outside engines, and native
code that does not come back to the interpreter. Then nothing answers, /health neither, and whoever watches the process
has to start it again.
"""

import asyncio
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, Self

import structlog
from prometheus_client import Counter, Histogram

from neuroedge.contract.errors import EngineBlocked

log = structlog.get_logger(__name__)

_BEAT_S = 0.1
_RETRY_S = 0.1
"""When the signal strikes where nothing may be raised, it comes again so soon."""
_STACK_FRAMES = 30
_LEFT_ALONE = ("asyncio", "uvloop", "logging", "importlib")
"""Modules whose state an exception in the middle would break."""

_package: ContextVar[str | None] = ContextVar("engine_package", default=None)


class StubbornEngine(BaseException):
    """An engine went on blocking after EngineBlocked; no Exception, so that it does not catch this one too."""


@contextmanager
def engine_code(engine: object) -> Iterator[None]:
    """Within the block, and in what it starts, code of the engine's package may be interrupted.

    Raises EngineBlocked for StubbornEngine too: callers outside see one error.
    """
    undo = _package.set(package_of(type(engine).__module__))
    try:
        yield
    except StubbornEngine as error:
        raise EngineBlocked(str(error), retry_after_s=1) from error
    finally:
        _package.reset(undo)


def package_of(module: str) -> str:
    """Whose code a module is: all built-in engines, or the third party's top-level package."""
    return "neuroedge.engines" if module.startswith("neuroedge.") else module.partition(".")[0]


def interruptible(frame: FrameType) -> bool:
    """Whether an exception may be raised in a frame: it runs for an engine, and not in the midst of _LEFT_ALONE."""
    package = _package.get()
    if package is None:
        return False
    at: FrameType | None = frame
    while at is not None:
        module = str(at.f_globals.get("__name__", ""))
        if _within(module, (package, "neuroedge.executors")):
            return True
        if _within(module, _LEFT_ALONE):
            return False
        at = at.f_back
    return False


def _within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """What is told of one block, in the context of the step that blocks, which knows its request."""

    context: Context
    stack: str
    blocked_s: float
    interrupted: bool
    again: bool


class LoopGuard:
    """Watches the event loop it is entered in, which must be the main thread's.

    Elsewhere, on Windows, and with `limit_s` 0 it does nothing. Takes SIGALRM and the process's interval timer.
    """

    def __init__(
        self,
        *,
        limit_s: float,
        lag: Histogram,
        blocked: Counter,
        may_interrupt: Callable[[FrameType], bool] = interruptible,
    ) -> None:
        self._limit_s = limit_s
        self._lag = lag
        self._blocked = blocked
        self._may_interrupt = may_interrupt
        self._beat_s = min(_BEAT_S, limit_s / 4)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.TimerHandle | None = None
        self._due = self._last = 0.0
        self._step: object = None
        self._raised = 0
        self._told = False
        self._suspected: float | None = None
        self._used_s = _main_thread_s()
        """Processor time of the main thread at the last beat."""
        self._tidings: SimpleQueue[_Block | None] = SimpleQueue()
        self._teller: threading.Thread | None = None
        self._before: tuple[Any, tuple[float, float]] = (signal.SIG_DFL, (0.0, 0.0))

    async def __aenter__(self) -> Self:
        """Begin to watch."""
        if self._limit_s <= 0:
            return self
        if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
            log.info("loop_not_guarded", reason="needs a Unix system and the main thread's event loop")
            return self
        self._loop = asyncio.get_running_loop()
        self._before = signal.signal(signal.SIGALRM, self._strike), signal.getitimer(signal.ITIMER_REAL)
        self._teller = threading.Thread(target=self._tell, name="loop-guard", daemon=True)
        self._last = self._due = time.monotonic()
        self._teller.start()
        self._beat()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop watching, and give signal and timer back."""
        if self._loop is None or self._next is None or self._teller is None:
            return
        self._next.cancel()
        handler, timer = self._before
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)
        self._tidings.put(None)
        await asyncio.to_thread(self._teller.join)
        self._loop = None

    def _beat(self) -> None:
        """The loop lives: wind the timer up again."""
        assert self._loop is not None
        now = time.monotonic()
        self._lag.observe(max(0.0, now - self._due))
        self._last, self._due = now, now + self._beat_s
        self._step, self._raised, self._told = None, 0, False
        self._used_s = _main_thread_s()
        signal.setitimer(signal.ITIMER_REAL, self._limit_s / 2, self._limit_s / 2)
        self._next = self._loop.call_later(self._beat_s, self._beat)

    def _strike(self, signum: int, frame: FrameType | None) -> None:
        """The timer ran down. Handled in the main thread, hence nothing here may take a lock: a thread tells of it."""
        if frame is None or self._loop is None:
            return
        step = asyncio.current_task(self._loop) or "a callback"
        if step is not self._step:
            # Once per half of the limit: many short steps in a row, or a process that was stopped, are no block.
            self._step = step
            # Anew from now: after the process was stopped, the next run-down would else follow at any moment.
            signal.setitimer(signal.ITIMER_REAL, self._limit_s / 2, self._limit_s / 2)
            return
        blocked_s = time.monotonic() - self._last
        interrupt = self._may_interrupt(frame)
        self._report(frame, blocked_s=blocked_s, interrupted=interrupt)
        if not interrupt:
            signal.setitimer(signal.ITIMER_REAL, _RETRY_S, self._limit_s / 2)
            return
        self._step = None
        self._raised += 1
        detail = f"an engine held up the whole process for {blocked_s:.1f} s and was interrupted"
        if self._raised > 1:
            raise StubbornEngine(detail)
        raise EngineBlocked(detail, hint="its log line loop_blocked shows where", retry_after_s=1)

    def _report(self, frame: FrameType, *, blocked_s: float, interrupted: bool) -> None:
        """Hand a block to the telling thread: when it is found, and each time it is interrupted."""
        if self._told and not interrupted:
            return
        stack = _stack(frame)
        again, self._told = self._told, True
        self._tidings.put(
            _Block(context=copy_context(), stack=stack, blocked_s=blocked_s, interrupted=interrupted, again=again)
        )

    def _tell(self) -> None:
        """Count and log blocks; also those in native code that never comes back to handle the signal."""
        while True:
            try:
                block = self._tidings.get(timeout=self._limit_s / (2 if self._suspected is None else 4))
            except Empty:
                block = self._in_native_code()
                if block is None:
                    continue
            if block is None:
                return
            if not block.again:
                self._blocked.inc()
            block.context.run(
                log.error,
                "loop_blocked",
                blocked_s=round(block.blocked_s, 1),
                interrupted=block.interrupted,
                stack=block.stack,
            )

    def _in_native_code(self) -> _Block | None:
        """The block whose signal was not handled though half a limit has passed since."""
        last = self._last
        blocked_s = time.monotonic() - last
        if self._told or blocked_s < 1.5 * self._limit_s:
            self._suspected = None
            return None
        if self._suspected != last and _main_thread_s() - self._used_s < self._limit_s:
            # If it was the whole process that stood still, the loop beats before the next look. What computed all the
            # time held the interpreter too, and may have ended just now.
            self._suspected = last
            return None
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        self._told = True
        stack = _stack(frame) if frame else ""
        return _Block(context=Context(), stack=stack, blocked_s=blocked_s, interrupted=False, again=False)


def _main_thread_s() -> float:
    """Processor time of the main thread, seconds; 0 where the system does not tell."""
    main = threading.main_thread().ident
    if main is None or not hasattr(time, "pthread_getcpuclockid"):
        return 0.0
    return time.clock_gettime(time.pthread_getcpuclockid(main))


def _stack(frame: FrameType) -> str:
    return "".join(traceback.format_stack(frame, limit=_STACK_FRAMES))
