"""Language models as an API key that is limited to some of them may use them."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from fnmatch import fnmatchcase

from neuroedge.contract.chat import LLM, ChatDelta, ChatModel, ChatRequest, Policy
from neuroedge.contract.errors import Forbidden
from neuroedge.contract.principal import Principal
from neuroedge.services.llm.offers import LOCAL


def permitted(llm: LLM, principal: Principal) -> LLM:
    """`llm`, with nothing but the models the caller may use."""
    return llm if principal.models is None else _Permitted(llm, principal.models)


class _Permitted:
    """Every call names its model: a choice or a fallback of somebody else's could leave the limits."""

    def __init__(self, llm: LLM, models: Sequence[str]) -> None:
        self._llm = llm
        self._models = models

    async def stream(self, request: ChatRequest, *, policy: Policy = Policy()) -> AsyncGenerator[ChatDelta, None]:
        """Generate with the model named, the first one permitted by default. Raises Forbidden."""
        async with aclosing(self._llm.stream(request, policy=self._limited(policy))) as deltas:
            async for delta in deltas:
                yield delta

    async def chosen(self, policy: Policy = Policy()) -> ChatModel:
        """The model named, the first one permitted by default. Raises Forbidden."""
        return await self._llm.chosen(self._limited(policy))

    def _limited(self, policy: Policy) -> Policy:
        asked = policy.model or next((name for name in self._models if not _is_pattern(name)), None)
        if asked is None:
            raise Forbidden("this API key has no model of its own choice", hint="name one of the models it allows")
        # Passed on in full: the same bare id may be another provider's too.
        model = _full(asked)
        if not any(fnmatchcase(model, _full(allowed)) for allowed in self._models):
            raise Forbidden(f"this API key does not allow the model {asked}", hint="name one of those it allows")
        return replace(policy, model=model, fallback=False)


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _full(name: str) -> str:
    """With its provider: a bare id is one of this machine's."""
    return name if "/" in name else f"{LOCAL}/{name}"
