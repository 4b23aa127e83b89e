"""What is the same for every provider, whatever wire format it speaks."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from neuroedge.contract.chat import ChatDelta, ChatRequest
from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.runtimes.remote_llm.connections import Address, Client, Connections
from neuroedge.runtimes.remote_llm.errors import cause, wrapped
from neuroedge.runtimes.remote_llm.tokens import tokens_at_most


@dataclass(slots=True, kw_only=True)
class RemoteChat(ABC):
    """A ChatModel of a provider; a subclass speaks one wire format."""

    connections: Connections
    provider: str
    model_id: str
    """`provider/model`."""
    model: str
    address: Address
    context_tokens: int
    silence_s: float
    """Longest time without a byte."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """Generate; closing the iterator closes the connection, which ends the generation.

        Raises Overloaded, ProviderFailed, ProviderRefused, ContextTooLong.
        """
        try:
            async with self.connections.client(self.address) as client, aclosing(self._deltas(client, request)) as out:
                async for delta in out:
                    yield delta
        except NeuroEdgeError:
            raise
        except Exception as error:
            key = self.address.api_key
            raise wrapped(error, provider=self.provider, key=key) from cause(error, key)

    async def count_tokens(self, text: str) -> int:
        """An upper estimate (tokens.py): vendors' vocabularies are not at hand, or only over the network."""
        return tokens_at_most(text)

    @abstractmethod
    def _deltas(self, client: Client, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """The answer's pieces, in this wire format."""
