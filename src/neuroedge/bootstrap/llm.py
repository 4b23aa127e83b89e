"""Language models of this process and of others, behind one gateway."""

from collections.abc import Callable
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from neuroedge.contract.chat import ChatModel
from neuroedge.contract.models import Models
from neuroedge.contract.ports import Clock
from neuroedge.infra.breaker import Breakers
from neuroedge.infra.llm_metrics import LLMMetrics
from neuroedge.runtimes.remote_llm.anthropic_chat import AnthropicChat
from neuroedge.runtimes.remote_llm.connections import Address, Addresses, Connections
from neuroedge.runtimes.remote_llm.openai_chat import OpenAIChat
from neuroedge.services.llm.attempt import Ledger
from neuroedge.services.llm.gateway import Gateway, Offers
from neuroedge.services.llm.local import Leased
from neuroedge.services.llm.offers import Offer

SLACK_S = 5.0
"""The gateway's own limits come first; those of a connection are for who asks past it."""


def gateway_of(
    *,
    models: Models,
    offers: Offers,
    ledger: Ledger,
    breakers: Breakers,
    registry: CollectorRegistry,
    clock: Clock,
    stack: AsyncExitStack,
    addresses: Addresses | None = None,
) -> Gateway:
    """The gateway; the stack closes it, and its connections after it. `addresses`: as Connections takes them."""
    connections = Connections(addresses=addresses)
    stack.push_async_callback(connections.close)
    gateway = Gateway(
        offers=offers,
        ledger=ledger,
        open_model=model_opener(models, connections),
        breakers=breakers,
        metrics=LLMMetrics(registry),
        clock=clock,
    )
    stack.push_async_callback(gateway.close)
    return gateway


def model_opener(models: Models, connections: Connections) -> Callable[[Offer], ChatModel]:
    """What makes a ChatModel of an offer; nothing is loaded or connected by that."""

    def open_model(offer: Offer) -> ChatModel:
        if offer.wire == "local":
            return Leased(models, offer.model, offer.context_tokens)
        kind = OpenAIChat if offer.wire == "openai" else AnthropicChat
        return kind(
            connections=connections,
            provider=offer.provider,
            model_id=offer.id,
            model=offer.model,
            address=Address(
                wire=offer.wire,
                base_url=offer.base_url,
                api_key=offer.api_key,
                direct=offer.private,
                checked=offer.own and offer.base_url is not None,
            ),
            context_tokens=offer.context_tokens,
            silence_s=max(offer.first_token_s, offer.idle_s) + SLACK_S,
        )

    return open_model
