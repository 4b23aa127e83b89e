"""Continuous batching of token sequences: what different callers ask for at the same time is computed together.

Callers queue sequences; whenever the model is free, the next batch is put together from all that wait. It starts with
the sequence whose turn it is and takes those nearest to it in length, so that little is padding, until the token
budget is full (Hugging Face's text-embeddings-inference batches by tokens for the same reason). Turns are fair among
callers (start-time fair queueing, Goyal 1996): one question does not wait behind a book that came first.
"""

import asyncio
import contextvars
import math
import time
from bisect import insort
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from neuroedge.contract import scope
from neuroedge.contract.errors import DeadlineExceeded, Overloaded
from neuroedge.contract.models import Floats, Priority
from neuroedge.runtimes.slot import RANK

Ids = Sequence[int]
Forward = Callable[[list[Ids], float], Awaitable[Floats]]
"""Computes one batch: (sequences [n], when the longest waiting of them came) -> vectors [n, dim]."""

MAX_PADDING: Final = 0.2
"""Largest part of a batch that may be padding; a sequence that would bring more waits for its like."""
_LONGEST_RETRY_AFTER_S: Final = 60
_PRIORITY: Final[dict[int, Priority]] = {rank: priority for priority, rank in RANK.items()}


@dataclass(eq=False, slots=True)
class _Request:
    """One caller's sequences."""

    done: "asyncio.Future[Floats]"
    deadline: float | None
    missing: int
    vectors: Floats | None = None

    def gone(self) -> bool:
        """Whether nobody waits for it any more; a deadline that has passed is told to its caller."""
        if self.done.done():
            return True
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.done.set_exception(DeadlineExceeded("the deadline passed in the model's queue", hint="try again"))
            return True
        return False


@dataclass(order=True, slots=True)
class _Item:
    """One sequence that waits; ordered by its turn."""

    rank: int
    turn: float
    ids: Ids = field(compare=False)
    position: int = field(compare=False)
    request: _Request = field(compare=False)
    came: float = field(compare=False)


class Batcher:
    """A model's queue of token sequences. For one event loop."""

    def __init__(
        self, forward: Forward, *, token_budget: int, max_waiting_tokens: int, batches_under_way: int = 1
    ) -> None:
        self._forward = forward
        self._token_budget = token_budget
        self._max_waiting_tokens = max_waiting_tokens
        self._batches_under_way = batches_under_way
        self._waiting: list[_Item] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self._pumping = 0
        """Pumps that will look at the queue again; a task that has left its loop is still in `_pumps` for a moment."""
        self._virtual = 0.0
        """Tokens served so far, as fair queueing counts them."""
        self._tokens_per_s = 0.0

    @property
    def waiting_tokens(self) -> int:
        """Tokens of callers that still wait."""
        return sum(len(item.ids) for item in self._waiting if not item.request.done.done())

    async def run(self, sequences: Sequence[Ids]) -> Floats:
        """Vectors [len(sequences), dim] in the order given.

        Raises Overloaded at once when too many tokens wait, DeadlineExceeded when the call's deadline passes here.
        """
        self._admit(sum(map(len, sequences)))
        request = _Request(asyncio.get_running_loop().create_future(), scope.deadline(), len(sequences))
        rank, turn, now = -RANK[scope.priority()], self._virtual, time.monotonic()
        for position, ids in enumerate(sequences):
            insort(self._waiting, _Item(rank, turn, ids, position, request, now))
            turn += len(ids)
        while self._pumping < min(self._batches_under_way, len(self._waiting)):
            self._pumping += 1
            # A context of its own: a batch is of many callers.
            pump = asyncio.create_task(self._pump(), context=contextvars.Context())
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)
        return await request.done

    def _admit(self, tokens: int) -> None:
        waiting = self.waiting_tokens
        if waiting and waiting + tokens > self._max_waiting_tokens:
            wait_s = waiting / self._tokens_per_s if self._tokens_per_s else 10.0
            retry_after_s = min(_LONGEST_RETRY_AFTER_S, max(1, math.ceil(wait_s)))
            raise Overloaded("the model's queue is full", hint="try again later", retry_after_s=retry_after_s)

    async def _pump(self) -> None:
        try:
            await self._serve()
        finally:
            self._pumping -= 1

    async def _serve(self) -> None:
        while batch := self._next():
            began = time.monotonic()
            try:
                with scope.call_scope(priority=_PRIORITY[-batch[0].rank]):
                    vectors = await self._forward([item.ids for item in batch], min(item.came for item in batch))
            except Exception as error:
                for item in batch:
                    if not item.request.done.done():
                        item.request.done.set_exception(error)
                continue
            self._learn(sum(len(item.ids) for item in batch), time.monotonic() - began)
            for item, vector in zip(batch, vectors, strict=True):
                _deliver(item, vector)

    def _next(self) -> list[_Item]:
        """The next batch, taken out of the queue; what nobody waits for any more is dropped on the way."""
        self._waiting = [item for item in self._waiting if not item.request.gone()]
        if not self._waiting:
            return []
        first = self._waiting[0]
        self._virtual = max(self._virtual, first.turn)
        chosen = batch_around(first, self._waiting, token_budget=self._token_budget)
        taken = {id(item) for item in chosen}
        self._waiting = [item for item in self._waiting if id(item) not in taken]
        return chosen

    def _learn(self, tokens: int, seconds: float) -> None:
        rate = tokens / max(seconds, 1e-6)
        self._tokens_per_s = rate if not self._tokens_per_s else 0.8 * self._tokens_per_s + 0.2 * rate


def batch_around(first: _Item, waiting: Sequence[_Item], *, token_budget: int) -> list[_Item]:
    """`first` and those of `waiting` nearest to it in length that fit the budget with little padding."""
    chosen, longest, tokens = [first], len(first.ids), len(first.ids)
    near = sorted((item for item in waiting if item is not first), key=lambda i: abs(len(i.ids) - len(first.ids)))
    for item in near:
        width, size = max(longest, len(item.ids)), len(chosen) + 1
        padded = width * size
        if padded > token_budget or 1 - (tokens + len(item.ids)) / padded > MAX_PADDING:
            break
        chosen.append(item)
        longest, tokens = width, tokens + len(item.ids)
    return chosen


def _deliver(item: _Item, vector: Floats) -> None:
    request = item.request
    if request.vectors is None:
        request.vectors = np.empty((request.missing, len(vector)), np.float32)
    request.vectors[item.position] = vector
    request.missing -= 1
    if not request.missing and not request.done.done():
        request.done.set_result(request.vectors)
