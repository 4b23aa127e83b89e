"""Language models behind the organisation's safety policy, for conversations that come in from outside whole."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Literal

from neuroedge.contract.chat import LLM, ChatDelta, ChatMessage, ChatModel, ChatRequest, Policy
from neuroedge.contract.principal import Principal
from neuroedge.services.safety import Safety

_STAGES: Final[dict[str, Literal["input", "context"]]] = {"user": "input", "tool": "context"}
"""What a user wrote, and what a tool found: that is retrieved text."""


class JudgedLLM:
    """`llm` for one caller; what goes in and what comes out is as the policy allows.

    Where the policy can block or mask what goes in, every turn of a user or a tool is judged before a model is asked,
    as callers send their whole conversation each time. Where it only notes, the turns since the last answer are judged
    after the answer's end, however it ends: nothing waits for it, and the answer has the cores for itself.
    """

    def __init__(self, llm: LLM, safety: Safety, principal: Principal, *, request_id: str) -> None:
        self._llm = llm
        self._safety = safety
        self._principal = principal
        self._request_id = request_id

    async def stream(self, request: ChatRequest, *, policy: Policy = Policy()) -> AsyncGenerator[ChatDelta, None]:
        """Generate. Raises ContentBlocked, and what the model and the safety pass raise."""
        rules = await self._safety.policy(self._principal)
        holds = {stage for stage in ("input", "context") if getattr(rules, stage).changes_text()}
        messages = [await self._passed(m) if _STAGES.get(m.role) in holds else m for m in request.messages]
        notes = {stage for stage in ("input", "context") if getattr(rules, stage).rules} - holds
        noted = [message for message in _new(request.messages) if _STAGES.get(message.role) in notes]
        deltas = self._llm.stream(replace(request, messages=messages), policy=policy)
        judged = self._safety.stream(self._principal, deltas, request_id=self._request_id)
        try:
            async with aclosing(deltas), aclosing(judged):
                async for delta in judged:
                    yield delta
        finally:
            if noted:
                await self._note(noted)

    async def chosen(self, policy: Policy = Policy()) -> ChatModel:
        """As the model itself says; what it is asked by is not judged."""
        return await self._llm.chosen(policy)

    async def _passed(self, message: ChatMessage) -> ChatMessage:
        return replace(message, content=await self._judge(message))

    async def _judge(self, message: ChatMessage) -> str:
        verdict = await self._safety.check(
            self._principal, message.content, stage=_STAGES[message.role], request_id=self._request_id
        )
        return verdict.passed()

    async def _note(self, messages: list[ChatMessage]) -> None:
        texts = [(_STAGES[message.role], message.content) for message in messages]
        await self._safety.note(self._principal, texts, request_id=self._request_id)


def _new(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The turns since the last answer."""
    new: list[ChatMessage] = []
    for message in reversed(messages):
        if message.role == "assistant":
            break
        new.append(message)
    return new[::-1]
