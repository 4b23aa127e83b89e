"""Access to a level that may be slow or away: many callers share one round trip, and none waits for long."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

from neuroedge.contract.errors import CircuitOpen, Unavailable
from neuroedge.infra.breaker import Breakers, State

log = structlog.get_logger(__name__)
Q = TypeVar("Q")
A = TypeVar("A")

_THRESHOLD = 3
_REST_S = 1.0


class Gathered(Generic[Q, A]):
    """Passes requests to `run`, one batch of at most `at_once` at a time: what comes meanwhile makes the next batch.

    `run` answers each request of a batch, or raises for all of them; no caller's end cancels it. A caller waits for
    `patience_s`, or not at all while a batch has been taking longer than that. After three batches in a row that failed
    or took too long none is tried for a second: then one, and a warning is logged once for the outage. With `linger_s`
    a batch that is not full waits so long for more, unless one of its requests is in a hurry: for what nobody waits
    for and what costs more by number than by size.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[list[Q]], Awaitable[list[A]]],
        *,
        at_once: int,
        patience_s: float,
        linger_s: float = 0.0,
    ) -> None:
        self._name = name
        self._run = run
        self._at_once = at_once
        self._patience_s = patience_s
        self._linger_s = linger_s
        self._hurry = False
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._began: float | None = None
        self._breakers = Breakers(threshold=_THRESHOLD, open_s=_REST_S, on_change=self._changed)
        self._away = False

    async def ask(self, request: Q, *, hurry: bool = False) -> A:
        """The answer. `hurry`: do not linger for more, because somebody waits or the request is a batch by itself.

        Raises what `run` raises, Unavailable when it takes too long, CircuitOpen when not tried.
        """
        if self._late():
            raise CircuitOpen(f"the cache's {self._name} is stuck", retry_after_s=1)
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        self._hurry = self._hurry or hurry
        if self._task is None:
            self._task = asyncio.create_task(self._run_all())
        # A timer and no asyncio.wait, which costs as much as all the rest here.
        patience_s = self._patience_s if hurry else self._patience_s + self._linger_s
        too_late = asyncio.get_running_loop().call_later(patience_s, answer.cancel)
        try:
            return await answer
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Unavailable(f"the cache's {self._name} is too slow") from None
        finally:
            too_late.cancel()

    def withdraw(self, unwanted: Callable[[Q], bool]) -> None:
        """Take back requests that wait for their turn."""
        for request, answer in self._waiting:
            if unwanted(request):
                answer.cancel()

    async def settled(self) -> None:
        """Wait until nothing is under way."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run_all(self) -> None:
        try:
            while self._waiting:
                if self._linger_s and not self._hurry and len(self._waiting) < self._at_once:
                    await asyncio.sleep(self._linger_s)
                self._hurry = False
                batch: list[tuple[Q, asyncio.Future[A]]] = []
                while self._waiting and len(batch) < self._at_once:
                    request, answer = self._waiting.popleft()
                    if not answer.done():
                        batch.append((request, answer))
                if batch:
                    await self._answer(batch)
        finally:
            self._task = None

    async def _answer(self, batch: list[tuple[Q, "asyncio.Future[A]"]]) -> None:
        try:
            async with self._breakers.guard(self._name):
                answers = await self._timed([request for request, _ in batch])
        except Exception as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
                    answer.exception()  # seen: nobody may be left to raise it to
        else:
            for (_, answer), given in zip(batch, answers, strict=True):
                if not answer.done():
                    answer.set_result(given)

    async def _timed(self, requests: list[Q]) -> list[A]:
        self._began = time.monotonic()
        try:
            answers = await self._run(requests)
            if self._late():
                raise Unavailable(f"the cache's {self._name} is too slow")  # and nobody waits any more
            return answers
        finally:
            self._began = None

    def _late(self) -> bool:
        return self._began is not None and time.monotonic() - self._began > self._patience_s

    def _changed(self, name: str, state: State) -> None:
        """Tell of an outage once, however often it is probed."""
        if state == "open" and not self._away:
            self._away = True
            log.warning("cache_away", part=name)
        elif state == "closed":
            self._away = False
            log.info("cache_back", part=name)
