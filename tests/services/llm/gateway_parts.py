"""A gateway over fake upstreams, with its ledger and offers in memory."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

from prometheus_client import CollectorRegistry

from neuroedge.bootstrap.llm import gateway_of
from neuroedge.contract.chat import LLM, ChatDelta, ChatMessage, ChatRequest, Policy
from neuroedge.contract.principal import Principal
from neuroedge.infra.breaker import Breakers
from neuroedge.infra.clock import SystemClock
from neuroedge.services.llm.calls import Call, Spent
from neuroedge.services.llm.gateway import Gateway
from neuroedge.services.llm.ledger import CallLedger
from neuroedge.services.llm.offers import Offer, Preferences
from tests.fakes import FakeModels, make_principal
from tests.upstreams import Upstream

KEY = "sk-secret-0123456789abcdef"


class FakeLedger:
    """Rows in memory; `refusal` is raised by the next begin."""

    def __init__(self) -> None:
        self.begun: dict[UUID, Call] = {}
        self.ended: dict[UUID, Spent] = {}
        self.refusal: Exception | None = None

    async def begin(self, call: Call) -> None:
        """Keep a row."""
        if self.refusal is not None:
            raise self.refusal
        self.begun[call.id] = call

    async def end(self, call_id: UUID, spent: Spent) -> None:
        """Close a row, once."""
        assert call_id not in self.ended
        self.ended[call_id] = spent

    def rows(self, model: str | None = None) -> list[tuple[Call, Spent]]:
        """Of one model, or all, in the order they began; every row must have ended."""
        return [(call, self.ended[i]) for i, call in self.begun.items() if model in (None, call.offer.model)]

    def outcomes(self) -> list[tuple[str, str]]:
        """Model and outcome of each row."""
        return [(call.offer.model, spent.outcome) for call, spent in self.rows()]


class FakeOffers:
    """The same offers for everybody."""

    def __init__(self, offers: list[Offer]) -> None:
        self.given = offers
        self.settled = Preferences()

    async def offers(self, principal: Principal) -> list[Offer]:
        """All."""
        return self.given

    async def preferences(self, principal: Principal) -> Preferences:
        """As set by the test."""
        return self.settled


class Parts:
    """A gateway and all it was made of."""

    def __init__(self, gateway: Gateway, ledger: FakeLedger, offers: FakeOffers, registry: CollectorRegistry) -> None:
        self.gateway = gateway
        self.ledger = ledger
        self.offers = offers
        self.registry = registry
        self.principal = make_principal()

    @property
    def llm(self) -> LLM:
        """As one caller has it."""
        return self.gateway.of(self.principal, "request-1")

    def metric(self, name: str, **labels: str) -> float:
        """A counter's value; 0 when it was never counted."""
        return self.registry.get_sample_value(f"neuroedge_{name}", labels) or 0.0


@asynccontextmanager
async def gateway_over(
    *offers: Offer, models: dict[str, Any] | None = None, written: CallLedger | None = None
) -> AsyncIterator[Parts]:
    """A gateway, closed at the end; with `written`, that is its ledger."""
    async with AsyncExitStack() as stack:
        ledger, known, registry = FakeLedger(), FakeOffers(list(offers)), CollectorRegistry()
        gateway = gateway_of(
            models=FakeModels(models or {}),
            offers=known,
            ledger=written or ledger,
            breakers=Breakers(),
            registry=registry,
            clock=SystemClock(),
            stack=stack,
        )
        yield Parts(gateway, ledger, known, registry)


def offer(upstream: Upstream, model: str, **change: Any) -> Offer:
    """A model of an upstream, by the OpenAI wire unless told otherwise."""
    wire = change.get("wire", "openai")
    url = upstream.anthropic_url if wire == "anthropic" else upstream.openai_url
    first = Offer(provider=change.pop("provider", "up"), wire=wire, model=model, base_url=url, api_key=KEY)
    return replace(first, **change)


def ask(text: str = "one two three", **change: Any) -> ChatRequest:
    """A request of one message."""
    return ChatRequest([ChatMessage(role="user", content=text)], **change)


async def answer(llm: LLM, request: ChatRequest | None = None, **policy: Any) -> list[ChatDelta]:
    """All pieces."""
    return [delta async for delta in llm.stream(request or ask(), policy=Policy(**policy))]


async def listen(llm: LLM, heard: list[ChatDelta]) -> None:
    """Keep the pieces as they come, so that they are there after an error."""
    async for delta in llm.stream(ask()):
        heard.append(delta)


def text(deltas: list[ChatDelta]) -> str:
    """What was said."""
    return "".join(delta.text for delta in deltas)
