"""Room of a shared context: nobody overtakes, nobody overflows it, who leaves gives back."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import pytest

from neuroedge.runtimes.shared_room import SharedRoom


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Workers of a model."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


class Request:
    """Holds `tokens` of the room from `start` until `end`."""

    def __init__(self, room: SharedRoom, tokens: int, *, exactly: int | None = None) -> None:
        self.room, self.tokens, self.exactly = room, tokens, exactly
        self.cancelled, self.holds, self.ending = Event(), Event(), Event()
        self.counted = self.signs = 0

    def start(self, threads: ThreadPoolExecutor) -> Future[None]:
        """In a worker."""
        return threads.submit(self._run)

    def _run(self) -> None:
        with self.room.holding(self.tokens, exactly=self._count, cancelled=self.cancelled, alive=self._alive):
            self.holds.set()
            self.ending.wait(240)

    def _count(self) -> int:
        self.counted += 1
        return self.tokens if self.exactly is None else self.exactly

    def _alive(self) -> None:
        self.signs += 1


def test_what_does_not_fit_waits_in_order(threads: ThreadPoolExecutor) -> None:
    """A small request does not overtake a large one that waits; both follow when the first ends."""
    room = SharedRoom(100)
    first, large, small = Request(room, 40), Request(room, 80), Request(room, 30)
    running = [first.start(threads)]
    assert first.holds.wait(60)
    running.append(large.start(threads))
    while len(room._queue) < 1:
        pass
    running.append(small.start(threads))
    while len(room._queue) < 2:
        pass
    assert not large.holds.is_set()
    assert not small.holds.is_set()
    first.ending.set()
    assert large.holds.wait(60)
    assert not small.holds.is_set()
    assert large.signs > 0
    large.ending.set()
    assert small.holds.wait(60)
    small.ending.set()
    for future in running:
        future.result(60)
    assert room._free == 100


def test_exact_counting_is_asked_only_where_room_is_scarce(threads: ThreadPoolExecutor) -> None:
    """The estimate is enough in an empty room; later the exact count lets a request in beside another."""
    room = SharedRoom(100)
    first, second = Request(room, 50, exactly=10), Request(room, 400, exactly=30)
    running = [request.start(threads) for request in (first,)]
    assert first.holds.wait(60)
    running.append(second.start(threads))
    assert second.holds.wait(60)
    assert (first.counted, second.counted) == (0, 1)
    assert room._free == 20
    for request in (first, second):
        request.ending.set()
    for future in running:
        future.result(60)


def test_who_is_cancelled_stops_waiting_and_takes_nothing(threads: ThreadPoolExecutor) -> None:
    """What waits behind it goes on."""
    room = SharedRoom(100)
    first, leaving, small = Request(room, 90), Request(room, 60), Request(room, 10)
    running = [first.start(threads)]
    assert first.holds.wait(60)
    gone = leaving.start(threads)
    while len(room._queue) < 1:
        pass
    running.append(small.start(threads))
    leaving.cancelled.set()
    leaving.ending.set()
    room.wake()
    gone.result(60)
    assert small.holds.wait(60)
    assert room._free == 0
    for request in (first, small):
        request.ending.set()
    for future in running:
        future.result(60)
    assert room._free == 100


def test_more_than_all_tokens_takes_all(threads: ThreadPoolExecutor) -> None:
    """A request the context cannot hold is refused by the model, not made to wait for ever."""
    room = SharedRoom(100)
    request = Request(room, 1000)
    running = request.start(threads)
    assert request.holds.wait(60)
    assert room._free == 0
    request.ending.set()
    running.result(60)
