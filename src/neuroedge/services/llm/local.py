"""The local language model, leased from the pool for each call."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from neuroedge.contract.chat import ChatDelta, ChatModel, ChatRequest, Policy
from neuroedge.contract.models import CHAT, Models
from neuroedge.services.llm.offers import LOCAL


@dataclass(slots=True)
class Leased:
    """A ChatModel that holds its lease only while it works."""

    models: Models
    model_id: str
    context_tokens: int

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """Generate. Raises ModelUnavailable, NotEnoughMemory, InvalidInput."""
        async with self.models.lease(CHAT.named(self.model_id)) as model, aclosing(model.stream(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def count_tokens(self, text: str) -> int:
        """Tokens in the model's vocabulary."""
        async with self.models.lease(CHAT.named(self.model_id)) as model:
            return await model.count_tokens(text)


class LocalLLM:
    """An LLM of this machine alone."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def stream(self, request: ChatRequest, *, policy: Policy = Policy()) -> AsyncGenerator[ChatDelta, None]:
        """Generate with the model of the role, or the one named."""
        model = await self.chosen(policy)
        async with aclosing(model.stream(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def chosen(self, policy: Policy = Policy()) -> ChatModel:
        """The model of the role, or the one named."""
        ref = CHAT.named(policy.model.removeprefix(f"{LOCAL}/") if policy.model else None)
        async with self._models.lease(ref) as model:
            return Leased(self._models, model.model_id, model.context_tokens)
