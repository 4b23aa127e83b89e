"""Language models for callers: the best one by policy, another one when it fails, every attempt in the ledger.

offers ─ choice.py ─> in order ─ retrying.py ─> attempts at one ─ attempt.py ─> lane, breaker, ledger, times
   ^                                  │ nothing was heard yet: the next one
   └──────────────────────────────────┘ something was: ProviderBroke
"""

import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from neuroedge.contract import scope
from neuroedge.contract.chat import LLM, ChatDelta, ChatModel, ChatRequest, Policy
from neuroedge.contract.errors import ContextTooLong, NeuroEdgeError, Overloaded, ProviderRefused, Unavailable
from neuroedge.contract.ports import Clock
from neuroedge.contract.principal import Principal
from neuroedge.infra.breaker import Breakers
from neuroedge.infra.llm_metrics import LLMMetrics
from neuroedge.services.llm.attempt import Attempts, Caller, Ledger
from neuroedge.services.llm.choice import ordered
from neuroedge.services.llm.metering import rough_tokens
from neuroedge.services.llm.offers import Offer, Preferences
from neuroedge.services.llm.retrying import begun

log = structlog.get_logger(__name__)

TOTAL_S: Final = 1800.0
"""Longest answer of a call that has no deadline of its own."""
_OTHERS_MAY: Final = (Unavailable, Overloaded, ProviderRefused, ContextTooLong)
"""Errors of one model that say nothing about the others."""


class Offers(Protocol):
    """The models that a caller's organisation may use (services/llm/providers.py)."""

    async def offers(self, principal: Principal) -> list[Offer]:
        """In the order in which they are wanted where nothing else decides. Raises Unavailable."""
        ...

    async def preferences(self, principal: Principal) -> Preferences:
        """What the organisation has settled. Raises Unavailable."""
        ...


class Gateway:
    """Makes an LLM for each caller."""

    def __init__(
        self,
        *,
        offers: Offers,
        ledger: Ledger,
        open_model: Callable[[Offer], ChatModel],
        breakers: Breakers,
        metrics: LLMMetrics,
        clock: Clock,
    ) -> None:
        self._offers = offers
        self._open_model = open_model
        self._metrics = metrics
        self._attempts = Attempts(ledger=ledger, breakers=breakers, metrics=metrics, clock=clock)

    def of(self, principal: Principal, request_id: str) -> LLM:
        """Language models as this caller may use them."""
        return _CallersLLM(self, principal, request_id)

    async def close(self) -> None:
        """Wait until every call that ended is in the ledger."""
        await self._attempts.settled()

    async def order(self, principal: Principal, policy: Policy, request: ChatRequest | None = None) -> list[Offer]:
        """The models that would be asked, in this order. Raises NotFound, InvalidInput."""
        return ordered(
            await self._offers.offers(principal),
            policy,
            await self._offers.preferences(principal),
            request=request,
            prompt_tokens=rough_tokens(request) if request else 0,
            latency=self._attempts.lanes.latency,
        )

    def model(self, offer: Offer) -> ChatModel:
        """The offer's model, not bound to any caller and past the ledger: for counting tokens."""
        return self._open_model(offer)

    async def stream(
        self, request: ChatRequest, policy: Policy, *, principal: Principal, request_id: str
    ) -> AsyncGenerator[ChatDelta, None]:
        """What LLM.stream promises."""
        offers = await self.order(principal, policy, request)
        caller = Caller(
            principal=principal,
            request_id=request_id,
            query_type=policy.query_type,
            until=time.monotonic() + scope.remaining_s(TOTAL_S),
        )
        first, deltas = await self._begun(offers if policy.fallback else offers[:1], request, caller)
        async with aclosing(deltas):
            yield first
            async for delta in deltas:
                yield delta

    async def _begun(
        self, offers: list[Offer], request: ChatRequest, caller: Caller
    ) -> tuple[ChatDelta, AsyncGenerator[ChatDelta, None]]:
        """The answer of the first model that begins one; the error is that of the model wanted most."""
        failed: NeuroEdgeError | None = None
        left = deque(offers)
        while left:
            offer = left.popleft()
            try:
                return await self._begun_by(offer, request, caller)
            except _OTHERS_MAY as error:
                failed = failed or error
                if offer.wire == "local" and isinstance(error, Overloaded):
                    left = deque(await self._elsewhere(left, caller.principal))
                if left:
                    self._metrics.fell_back(offer.id, left[0].id, error.code)
                    log.info("llm_fallback", offer=offer.id, to=left[0].id, code=error.code)
        assert failed is not None
        raise failed

    async def _elsewhere(self, offers: Iterable[Offer], principal: Principal) -> list[Offer]:
        """Those worth asking while a model of this process is busy.

        Models here share its processors and memory: another one beside a busy one makes both slower, so that neither
        answers in time. Only what the organisation has settled as a fallback is asked all the same.
        """
        settled = (await self._offers.preferences(principal)).fallback
        return [offer for offer in offers if offer.wire != "local" or offer.id in settled]

    async def _begun_by(
        self, offer: Offer, request: ChatRequest, caller: Caller
    ) -> tuple[ChatDelta, AsyncGenerator[ChatDelta, None]]:
        def make() -> AsyncGenerator[ChatDelta, None]:
            return self._attempts.run(offer, self._open_model(offer), request, caller)

        if offer.wire == "local":
            # The pool tries again by itself where that helps.
            deltas = make()
            return await anext(deltas), deltas
        return await begun(make, until=caller.until)


@dataclass(frozen=True, slots=True)
class _CallersLLM:
    """An LLM bound to its caller."""

    gateway: Gateway
    principal: Principal
    request_id: str

    async def stream(self, request: ChatRequest, *, policy: Policy = Policy()) -> AsyncGenerator[ChatDelta, None]:
        deltas = self.gateway.stream(request, policy, principal=self.principal, request_id=self.request_id)
        async with aclosing(deltas):
            async for delta in deltas:
                yield delta

    async def chosen(self, policy: Policy = Policy()) -> ChatModel:
        offer = (await self.gateway.order(self.principal, policy))[0]
        model_id = offer.model if offer.wire == "local" else offer.id
        return _Chosen(self, replace(policy, model=offer.id), self.gateway.model(offer), model_id, offer.context_tokens)


@dataclass(slots=True)
class _Chosen:
    """The model a policy chooses first, asked through the gateway like any other."""

    llm: LLM
    policy: Policy
    model: ChatModel
    model_id: str
    context_tokens: int

    def stream(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        return self.llm.stream(request, policy=self.policy)

    async def count_tokens(self, text: str) -> int:
        return await self.model.count_tokens(text)
