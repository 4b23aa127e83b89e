"""A model's own bounded thread pool: computations never block the event loop and never pile up in shared threads."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Lock
from typing import Any, ClassVar, Final, ParamSpec, TypeVar

from neuroedge.contract.errors import ModelFailed, NeuroEdgeError, Overloaded
from neuroedge.contract.models import Priority
from neuroedge.contract.scope import deadline
from neuroedge.contract.scope import priority as current_priority
from neuroedge.runtimes import device
from neuroedge.runtimes.cores import CoreBudget, Hold

P = ParamSpec("P")
T = TypeVar("T")

MAX_WAITING: Final = 64.0
MAX_WAITING_AUDIO_S: Final = 4 * 3600.0
"""Seconds of audio that may wait for a model that hears: one of the longest recordings besides the running one."""
_LONGEST_RETRY_AFTER_S: Final = 60
_LEEWAY: Final = 1.5
"""How much longer than expected work may take: what is begun beside it slows it down."""
_NEWS_SLOWER: Final = 0.5
_NEWS_FASTER: Final = 0.2
"""Weight of the piece of work that has just ended in the pace that is known."""
OnPhase = Callable[[str, str, float], None]
"""Told (model id, phase, seconds): phase is queue, tokenise or inference."""


def ignore_phase(model_id: str, phase: str, seconds: float) -> None:
    """Nobody measures."""


@dataclass(slots=True)
class _Running:
    """A computation under way."""

    sign_at: float
    """When it last gave a sign of life (time.monotonic)."""
    hold: Hold | None = None
    """The cores it uses; None while it waits for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the pool gives a model it has loaded."""

    cores: CoreBudget
    threads: int
    on_phase: OnPhase = ignore_phase


class Threaded:
    """Base of runtime adapters. One worker: a model computes one thing at a time; its threads are the library's.

    Work is admitted by what it costs, in units of the adapter's choice (tokens, seconds of audio …): at most
    `max_waiting` of it waits for the worker; what goes beyond is refused at once with Overloaded. One piece of work
    larger than that is admitted when nothing else waits.
    """

    stuck_after_s: ClassVar[float] = 120.0
    """A computation without a sign of life for so long is taken for hung, and the pool replaces the model. On a machine
    with more to do than it has cores everything takes longer by as much, and so does this."""

    def __init__(
        self, model_id: str, *, workers: int = 1, cores: int | None = None, max_waiting: float = MAX_WAITING
    ) -> None:
        self.model_id = model_id
        self.cores = cores
        """Cores one computation keeps busy; None: as many as the pool's models have threads."""
        self.surroundings = Surroundings(cores=CoreBudget(1), threads=1)
        self._threads = _BoundedThreads(model_id, workers=workers, max_waiting=max_waiting)
        self._running: dict[int, _Running] = {}
        """By worker thread."""

    def stuck(self) -> bool:
        """Whether a computation has hung."""
        now, limit_s = time.monotonic(), self.stuck_after_s * device.overload()
        return any(now - running.sign_at > limit_s for running in list(self._running.values()))

    @property
    def busy(self) -> bool:
        """Whether it computes."""
        return bool(self._running)

    def abandon(self) -> None:
        """Give up on a hung model: who waits for its worker gets an error, its thread is left to itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Wait for the running computation and end the threads; subclasses drop the library's objects."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _in_thread(self, fn: Callable[[], T], *, cost: float = 1.0, since: float | None = None) -> T:
        """Run `fn` in the worker when its turn comes, within the budget of cores.

        `since` (time.monotonic) is when it began to wait, if that was before this call.

        Raises Overloaded at once, what `fn` raises of our own errors, and ModelFailed for anything else.
        """
        future = asyncio.wrap_future(self._submit(fn, cost=cost, since=since))
        try:
            return await future
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if future.cancelled() and task is not None and not task.cancelling():
                # Not the caller was cancelled but the work it waits for.
                raise ModelFailed(
                    f"{self.model_id} hung and was given up", model_id=self.model_id, hint="try again"
                ) from None
            raise

    def _submit(self, fn: Callable[[], T], *, cost: float, since: float | None = None) -> Future[T]:
        """Like `_in_thread`, for callers that wait in another way."""
        submitted = time.monotonic() if since is None else since
        priority, around = current_priority(), self.surroundings

        def work() -> T:
            thread = threading.get_ident()
            started = time.monotonic()
            running = self._running[thread] = _Running(started)
            around.on_phase(self.model_id, "queue", started - submitted)
            try:
                with self._cores(priority) as running.hold:
                    running.sign_at = time.monotonic()  # waiting for a core is no sign of hanging
                    return fn()
            except NeuroEdgeError:
                raise
            except Exception as error:
                raise ModelFailed(f"{self.model_id} failed: {error}", model_id=self.model_id) from error
            finally:
                del self._running[thread]
                around.on_phase(self.model_id, "inference", time.monotonic() - started)

        return self._threads.admit(work, cost=cost)

    def _cores(self, priority: Priority) -> AbstractContextManager[Hold | None]:
        """What a computation holds of the budget while it runs."""
        return self.surroundings.cores.using(self.surroundings.threads, priority=priority)

    def _alive(self) -> None:
        """From the worker, between two pieces of long work: a sign of life, and room for what is more urgent."""
        running = self._running[threading.get_ident()]
        if running.hold is not None:
            running.hold.breathe()
        running.sign_at = time.monotonic()


class _BoundedThreads(ThreadPoolExecutor):
    """An executor that refuses with Overloaded what would wait behind too much work, or would not end in time."""

    def __init__(self, name: str, *, workers: int, max_waiting: float) -> None:
        super().__init__(max_workers=workers, thread_name_prefix=name)
        self._name = name
        self._workers = workers
        self._max_waiting = max_waiting
        self._unfinished = 0
        self._waiting_cost = 0.0
        self._unit_s = 0.0
        """Seconds a unit of work takes a worker, smoothed; 0 until the first has ended."""
        self._usual_cost = 0.0
        """Of a piece of work, smoothed; 0 until the first has ended."""
        self._begun: dict[int, tuple[float, float]] = {}
        """Of each thread that works: when it began (time.monotonic), and the cost of what it does."""
        self._counting = Lock()

    def admit(self, work: Callable[[], T], *, cost: float) -> Future[T]:
        """Submit `work`. Raises Overloaded, and ModelFailed when the threads have ended.

        Work that had to wait, and has no time left when its turn comes, ends with Overloaded too.
        """
        until = math.inf if (at := deadline()) is None else at
        with self._counting:
            behind = self._unfinished >= self._workers
            full = behind and bool(self._waiting_cost) and self._waiting_cost + cost > self._max_waiting
            # What could not be ended before its caller's deadline is refused now, not then. With nothing else under way
            # it is tried: the pace that is known may be one of a busier time.
            pace_s = self._pace_s() if behind else self._unit_s
            ends_s = self._wait_s() + _LEEWAY * cost * pace_s
            late = self._unfinished > 0 and time.monotonic() + ends_s > until
            if full or late:
                raise self._busy()
            self._unfinished += 1
            self._waiting_cost += cost if behind else 0.0
        waiting = [cost] if behind else []

        def started() -> T:
            self._leave(waiting)
            began, thread = time.monotonic(), threading.get_ident()
            leeway = _LEEWAY if self._begun else 1.0
            if behind and began + leeway * cost * self._unit_s > until:
                raise self._busy()
            self._begun[thread] = began, cost
            try:
                return work()
            finally:
                del self._begun[thread]
                self._learn(cost, time.monotonic() - began)

        try:
            future = super().submit(started)
        except RuntimeError as error:
            self._leave(waiting)
            self._finished()
            raise ModelFailed(f"{self._name} is being unloaded", model_id=self._name, hint="try again") from error

        def done(_: Future[Any]) -> None:
            # Called once however it ends: with a result, with an error or cancelled while it waited.
            self._leave(waiting)
            self._finished()

        future.add_done_callback(done)
        return future

    def _leave(self, waiting: list[float]) -> None:
        with self._counting:
            if waiting:
                self._waiting_cost = max(0.0, self._waiting_cost - waiting.pop())

    def _finished(self) -> None:
        with self._counting:
            self._unfinished -= 1

    def _learn(self, cost: float, seconds: float) -> None:
        if cost <= 0:
            return
        unit_s = seconds / cost
        with self._counting:
            self._usual_cost = 0.9 * (self._usual_cost or cost) + 0.1 * cost
            # Quick to believe that the machine has become slow, slow to believe that it has become fast again. Small
            # pieces tell little: what they take is mostly waiting.
            share = _NEWS_SLOWER if unit_s > self._unit_s else _NEWS_FASTER
            share *= min(1.0, cost / self._usual_cost)
            self._unit_s = unit_s if not self._unit_s else (1 - share) * self._unit_s + share * unit_s

    def _pace_s(self) -> float:
        """Seconds a unit takes now: as lately, unless what is under way is slower already; 0 while nothing is known."""
        if not self._unit_s:
            return 0.0
        now = time.monotonic()
        usual = self._usual_cost
        under_way = [(now - began) / max(cost, usual, 1e-6) for began, cost in list(self._begun.values())]
        return max([self._unit_s, *under_way])

    def _wait_s(self) -> float:
        return self._waiting_cost * self._pace_s() / self._workers

    def _busy(self) -> Overloaded:
        wait_s = min(_LONGEST_RETRY_AFTER_S, max(1, math.ceil(self._wait_s() or 10.0)))
        return Overloaded("the model is busy", hint="try again later", retry_after_s=wait_s)
