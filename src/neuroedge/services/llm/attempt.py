"""One call to one provider: in its lane, behind its breaker, within its times, in the ledger before and after."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol
from uuid import UUID

import structlog

from neuroedge.contract.chat import ChatDelta, ChatModel, ChatRequest
from neuroedge.contract.errors import (
    CircuitOpen,
    DeadlineExceeded,
    NeuroEdgeError,
    ProviderBroke,
    ProviderFailed,
)
from neuroedge.contract.ports import Clock
from neuroedge.contract.principal import Principal
from neuroedge.infra.breaker import Breakers
from neuroedge.infra.llm_metrics import LLMMetrics
from neuroedge.services.llm.calls import Call, Outcome, Spent
from neuroedge.services.llm.lanes import Lanes
from neuroedge.services.llm.metering import Meter, rough_tokens, total
from neuroedge.services.llm.offers import Offer
from neuroedge.stores.ids import new_id

log = structlog.get_logger(__name__)

PLACE_WAIT_S: Final = 5.0
"""Longest wait for one of a provider's places."""
LEDGER_WAIT_S: Final = 1.0
"""Longest that an answer's end waits for the ledger, which goes on by itself."""


class Ledger(Protocol):
    """Where every call is written down (services/llm/ledger.py)."""

    async def begin(self, call: Call) -> None:
        """Durable before the provider is asked. Raises BudgetExceeded, Unavailable."""
        ...

    async def end(self, call_id: UUID, spent: Spent) -> Any:
        """Durable once, sooner or later; never raises because the database is away."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """On whose behalf a provider is asked, and until when."""

    principal: Principal
    request_id: str
    query_type: str | None
    until: float
    """On the clock of `time.monotonic`."""


class Attempts:
    """Makes attempts, and closes their rows in the ledger whatever becomes of them."""

    def __init__(self, *, ledger: Ledger, breakers: Breakers, metrics: LLMMetrics, clock: Clock) -> None:
        self.lanes = Lanes()
        self.metrics = metrics
        self._ledger = ledger
        self._breakers = breakers
        self._clock = clock
        self._ending: set[asyncio.Task[None]] = set()

    def run(
        self, offer: Offer, model: ChatModel, request: ChatRequest, caller: Caller
    ) -> AsyncGenerator[ChatDelta, None]:
        """The answer's pieces: the first says who answers, the last carries the tokens as they are in the ledger.

        Closing the iterator closes the connection. Raises what the model and the ledger raise, CircuitOpen, NoPlace,
        DeadlineExceeded; ProviderBroke once a piece was given.
        """
        return _Attempt(self, offer, model, request, caller).pieces()

    async def settled(self) -> None:
        """Wait until what has ended is in the ledger, or the ledger has it in hand."""
        while self._ending:
            await asyncio.wait(self._ending)

    async def begin(self, call: Call) -> None:
        """Write a call down."""
        await self._ledger.begin(call)

    def end(self, attempt: "_Attempt", spent: Spent | None, outcome: Outcome, error: str | None) -> asyncio.Task[None]:
        """Close a call's row, in a task of its own: its caller may be cancelled again at every step."""
        task = asyncio.create_task(self._end(attempt, spent, outcome, error))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    async def _end(self, attempt: "_Attempt", spent: Spent | None, outcome: Outcome, error: str | None) -> None:
        offer = attempt.offer
        spent = spent or await attempt.spent(outcome, error)
        self.metrics.called(offer.provider, offer.model, outcome)
        self.metrics.spent(
            prompt_tokens=spent.prompt_tokens,
            cached_tokens=spent.cached_tokens,
            completion_tokens=spent.completion_tokens,
        )
        if outcome == "failed":
            log.warning("llm_call_failed", offer=offer.id, code=error, seconds=round(spent.seconds, 3))
        await self._ledger.end(attempt.call.id, spent)

    def guard(self, offer: Offer) -> AbstractAsyncContextManager[Any]:
        """The provider's breaker; models of this process have their own in the pool."""
        if offer.wire == "local":
            return nullcontext()
        return self._breakers.guard(self.lanes.of(offer).breaker, counts=_is_providers_fault)

    def place(self, offer: Offer, *, wait_s: float) -> AbstractAsyncContextManager[Any]:
        """A place in the provider's lane; models of this process have queues of their own."""
        return nullcontext() if offer.wire == "local" else self.lanes.of(offer).place(wait_s=wait_s)

    def call(self, offer: Offer, request: ChatRequest, caller: Caller) -> Call:
        """The row of a new call."""
        return Call(
            id=new_id(),
            org_id=caller.principal.org_id,
            user_id=caller.principal.user_id,
            request_id=caller.request_id,
            offer=offer,
            query_type=caller.query_type,
            prompt_tokens=rough_tokens(request),
            max_tokens=request.max_tokens,
            started_at=self._clock.now(),
        )


class _Attempt:
    """The state of one call."""

    def __init__(
        self, attempts: Attempts, offer: Offer, model: ChatModel, request: ChatRequest, caller: Caller
    ) -> None:
        if offer.max_output_tokens is not None and request.max_tokens > offer.max_output_tokens:
            request = replace(request, max_tokens=offer.max_output_tokens)
        self.offer = offer
        self.call = attempts.call(offer, request, caller)
        self._attempts = attempts
        self._model = model
        self._request = request
        self._until = caller.until
        self._started = time.monotonic()
        self._first_token_s: float | None = None
        self._stalled = False
        self._meter = Meter(
            request=request,
            context_tokens=offer.context_tokens,
            doubt=lambda kind: attempts.metrics.doubted(offer.provider, kind),
        )

    async def pieces(self) -> AsyncGenerator[ChatDelta, None]:
        """What `Attempts.run` promises."""
        attempts, offer = self._attempts, self.offer
        wait_s = min(PLACE_WAIT_S, self._left_s())
        async with attempts.place(offer, wait_s=wait_s), aclosing(self._model.stream(self._request)) as deltas:
            first = await self._begun(deltas)
            async with aclosing(self._told(first, deltas)) as told:
                async for delta in told:
                    yield delta

    async def spent(self, outcome: Outcome, error: str | None) -> Spent:
        """What the call took so far. A provider that refused, or was not reached, took nothing."""
        seconds = time.monotonic() - self._started
        if outcome == "failed" and not self._meter.alive and not self._stalled:
            return Spent(outcome=outcome, prompt_tokens=0, completion_tokens=0, seconds=seconds, error=error)
        return await self._meter.spent(
            self._model, outcome=outcome, seconds=seconds, first_token_s=self._first_token_s, error=error
        )

    async def _told(self, first: ChatDelta, deltas: AsyncGenerator[ChatDelta, None]) -> AsyncGenerator[ChatDelta, None]:
        """The pieces from the first on; the row is closed before the last is given."""
        delta, ending = replace(first, model=self.offer.id), None
        try:
            while delta.finish_reason is None:
                if _says_something(delta):
                    yield _bare(delta)
                delta = await self._next(deltas, self.offer.idle_s)
            spent = await self.spent("ok", None)
            ending = self._attempts.end(self, spent, "ok", None)
            await self._judge(None)
            yield total(delta, spent, self.offer.price)
        except DeadlineExceeded as error:
            ending = self._attempts.end(self, None, "cancelled", error.code)
            raise
        except NeuroEdgeError as error:
            ending = self._attempts.end(self, None, "failed", ProviderBroke.code)
            broke = ProviderBroke(f"{self.offer.id} broke off its answer: {error.detail}")
            await self._judge(broke)
            raise broke from error
        finally:
            if ending is None:
                self._attempts.end(self, None, "cancelled", None)
        await asyncio.wait({ending}, timeout=LEDGER_WAIT_S)

    async def _begun(self, deltas: AsyncGenerator[ChatDelta, None]) -> ChatDelta:
        """The first piece, if the breaker lets the call begin.

        A beginning is no success yet, but a breaker that waits for this one need not wait until its end: others may
        begin meanwhile, one at a time.
        """
        try:
            async with self._attempts.guard(self.offer):
                await self._attempts.begin(self.call)
                self._started = time.monotonic()
                raise _Begun(await self._first_or_end(deltas))
        except _Begun as begun:
            return begun.first

    async def _first_or_end(self, deltas: AsyncGenerator[ChatDelta, None]) -> ChatDelta:
        """The first piece; without one, the row is closed."""
        try:
            return await self._first(deltas)
        except DeadlineExceeded as error:
            self._attempts.end(self, None, "cancelled", error.code)
            raise
        except NeuroEdgeError as error:
            self._attempts.end(self, None, "failed", error.code)
            raise
        except BaseException:
            self._attempts.end(self, None, "cancelled", None)
            raise

    async def _first(self, deltas: AsyncGenerator[ChatDelta, None]) -> ChatDelta:
        """The first piece that says anything, or the last.

        The first empty one only tells that the prompt was taken; more of them are thoughts that are not shown, and
        who thinks may take longer.
        """
        for signs in itertools.count():
            left_s = max(0.0, self.offer.first_token_s - (time.monotonic() - self._started))
            delta = await self._next(deltas, left_s if signs < 2 else max(left_s, self.offer.idle_s))
            if _says_something(delta) or delta.finish_reason is not None:
                break
        self._first_token_s = time.monotonic() - self._started
        self._attempts.lanes.began(self.offer, self._first_token_s)
        self._attempts.metrics.began(self.offer.provider, self.offer.model, self._first_token_s)
        return delta

    async def _next(self, deltas: AsyncGenerator[ChatDelta, None], silence_s: float) -> ChatDelta:
        """The next piece, within `silence_s` seconds for what others run, and the caller's deadline."""
        left_s = self._left_s()
        limit_s = left_s if self.offer.wire == "local" else min(left_s, silence_s)
        try:
            async with asyncio.timeout(limit_s):
                delta = await anext(deltas, None)
        except TimeoutError as error:
            self._stalled = True
            if self._left_s() <= 0:
                raise DeadlineExceeded(f"{self.offer.id} did not finish its answer in time") from error
            raise ProviderFailed(f"{self.offer.id} said nothing for too long", transient=False) from error
        if delta is None:
            raise ProviderFailed(f"{self.offer.id} stopped without saying why")
        self._meter.saw(delta)
        return delta

    def _left_s(self) -> float:
        return max(0.0, self._until - time.monotonic())

    async def _judge(self, broke: ProviderBroke | None) -> None:
        """Let the breaker know how a call that had begun ended."""
        with suppress(ProviderBroke, CircuitOpen):
            async with self._attempts.guard(self.offer):
                if broke is not None:
                    raise broke


class _Begun(Exception):
    """Leaves a breaker's block without a verdict."""

    def __init__(self, first: ChatDelta) -> None:
        super().__init__()
        self.first = first


def _is_providers_fault(error: BaseException) -> bool:
    """Not the ledger's trouble, a refused request, or a limit that concerns one key."""
    return isinstance(error, ProviderFailed)


def _says_something(delta: ChatDelta) -> bool:
    return bool(delta.text or delta.tool_calls or delta.logprobs)


def _bare(delta: ChatDelta) -> ChatDelta:
    """Without counts: those of a piece in between would be taken for the whole."""
    if delta.prompt_tokens is None and delta.completion_tokens is None and delta.cached_tokens is None:
        return delta
    return replace(delta, prompt_tokens=None, completion_tokens=None, cached_tokens=None)
