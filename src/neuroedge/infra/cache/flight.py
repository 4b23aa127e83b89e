"""Loads of keys that others may join: equal keys asked for at the same time are loaded once.

A load runs in a task of its own, so that it survives the caller who began it as long as anybody waits for it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

import structlog

from neuroedge.contract import scope
from neuroedge.contract.errors import Unavailable

log = structlog.get_logger(__name__)


class Flight:
    """One load of some keys. `missing` maps those without a value yet to the position its caller gave them at."""

    def __init__(self, positions: Mapping[bytes, int]) -> None:
        loop = asyncio.get_running_loop()
        self.missing = dict(positions)
        self.outcomes: dict[bytes, asyncio.Future[bytes]] = {key: loop.create_future() for key in positions}
        self.waiters = 0
        self.deadline = scope.deadline()
        """Of the call that began it, which the load has too."""
        self.keep = True
        """False once the organisation was forgotten: the values go to those who wait, and nowhere else."""
        self.task: asyncio.Task[None] | None = None

    @property
    def failed(self) -> bool:
        """Whether it ended without a value for every key."""
        return any(outcome.done() and outcome.exception() is not None for outcome in self.outcomes.values())

    def fail(self, error: Exception) -> None:
        """Give all who wait for a missing key the error."""
        for key in self.missing:
            outcome = self.outcomes[key]
            if not outcome.done():
                outcome.set_exception(error)
                outcome.exception()  # seen: nobody may be left to raise it to
        self.missing.clear()


class Flights:
    """The loads under way, by key."""

    def __init__(self) -> None:
        self.computing = 0
        """Loads whose values are being computed, or wait for their turn to be."""
        self._by_key: dict[bytes, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def find(self, key: bytes) -> Flight | None:
        """The load that will bring `key`."""
        return self._by_key.get(key)

    def start(self, positions: Mapping[bytes, int], load: Callable[[Flight], Awaitable[None]]) -> Flight:
        """Begin a load, which `land`s every key; `join` it before the event loop runs again."""
        flight = Flight(positions)
        self._by_key.update(dict.fromkeys(positions, flight))
        flight.task = asyncio.create_task(self._run(flight, load))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(partial(self._ended, flight))
        return flight

    async def join(self, wanted: Mapping[bytes, Flight]) -> dict[bytes, bytes]:
        """The values of keys under way. Raises what their loads raised; a load that all have left is cancelled."""
        flights = {id(flight): flight for flight in wanted.values()}.values()
        for flight in flights:
            flight.waiters += 1
        try:
            outcomes = {key: flight.outcomes[key] for key, flight in wanted.items()}
            # Not gather, which cancels what it waits for together with this caller.
            done, _ = await asyncio.wait(set(outcomes.values()), return_when=asyncio.FIRST_EXCEPTION)
            for outcome in done:
                outcome.result()
            return {key: outcome.result() for key, outcome in outcomes.items()}
        finally:
            for flight in flights:
                flight.waiters -= 1
                if not flight.waiters:
                    self._abandon(flight)

    def land(self, flight: Flight, key: bytes, payload: bytes) -> None:
        """Give a value to all who wait for it."""
        del flight.missing[key]
        self._release(flight, [key])
        flight.outcomes[key].set_result(payload)

    def forget(self, prefix: bytes) -> None:
        """Keep nothing of loads of keys that start with `prefix`, and let nobody join them any more."""
        for key, flight in list(self._by_key.items()):
            if key.startswith(prefix):
                flight.keep = False
                del self._by_key[key]

    async def settled(self) -> None:
        """Wait until the loads under way have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Cancel the loads under way."""
        for task in self._tasks:
            task.cancel()
        await self.settled()

    async def _run(self, flight: Flight, load: Callable[[Flight], Awaitable[None]]) -> None:
        try:
            await load(flight)
        except Exception as error:
            if not flight.missing:
                log.exception("cache_not_written")
            self._release(flight, flight.missing)
            flight.fail(error)

    def _ended(self, flight: Flight, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._release(flight, flight.missing)
        flight.fail(Unavailable("the computation was cancelled"))  # unless there is nothing missing any more

    def _abandon(self, flight: Flight) -> None:
        if flight.missing and flight.task is not None:
            self._release(flight, flight.missing)
            flight.task.cancel()

    def _release(self, flight: Flight, keys: Iterable[bytes]) -> None:
        for key in keys:
            if self._by_key.get(key) is flight:
                del self._by_key[key]
