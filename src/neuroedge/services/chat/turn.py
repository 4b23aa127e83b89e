"""What the steps of a turn work with, beside its state: ports, tools, checks, and who listens."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from neuroedge.contract.chat import ChatMessage, ChatRequest, Policy
from neuroedge.contract.engine import EngineContext
from neuroedge.contract.engine import Usage as Spent
from neuroedge.services.artifacts import Artifacts
from neuroedge.services.chat.agent import Limits
from neuroedge.services.chat.intent import Examples
from neuroedge.services.chat.state import Event, Options
from neuroedge.services.chat.tools import Toolbox
from neuroedge.services.safety import Safety
from neuroedge.services.safety_policy import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Of one turn in one process."""

    ctx: EngineContext
    options: Options
    tell: Callable[[Event], Awaitable[None]]
    examples: Examples
    toolbox: Toolbox
    limits: Limits
    safety: Safety | None = None
    artifacts: Artifacts | None = None

    async def stage(self, name: str) -> None:
        """Say which step begins."""
        await self.tell(Event(name="stage", data={"name": name}))

    async def trace(self, name: str, **told: Any) -> list[dict[str, Any]]:
        """Say what a step did, and give it for the state."""
        entry = {"stage": name, **told}
        await self.tell(Event(name="trace", data=entry))
        return [entry]

    async def token(self, text: str) -> None:
        """Show a piece of the answer."""
        if text:
            await self.tell(Event(name="token", data={"text": text}))

    async def judged(self, text: str, stage: Stage) -> tuple[str, list[dict[str, Any]]]:
        """A text as the safety policy lets it through, and what the trace tells of that. Raises ContentBlocked."""
        if self.safety is None or not text.strip():
            return text, []
        verdict = await self.safety.check(self.ctx.principal, text, stage=stage, request_id=self.ctx.request_id)
        if verdict.action == "allow":
            return text, []
        rules = [reason.rule for reason in verdict.reasons]
        return verdict.passed(), await self.trace("safety", of=stage, action=verdict.action, rules=rules)

    async def holds_back(self) -> bool:
        """Whether the policy may keep words of an answer back, so that none may be shown unjudged."""
        return self.safety is not None and (await self.safety.policy(self.ctx.principal)).output.changes_text()

    async def pieces(
        self, messages: Sequence[ChatMessage], *, policy: Policy, max_tokens: int, spent: Spent, models: list[str]
    ) -> AsyncGenerator[str, None]:
        """A model's words as they come; `spent` and `models` are added to."""
        request = ChatRequest(messages, max_tokens=max_tokens)
        async with aclosing(self.ctx.llm.stream(request, policy=policy)) as deltas:
            async for delta in deltas:
                spent.count(delta)
                if delta.model and delta.model not in models:
                    models.append(delta.model)
                if delta.text:
                    yield delta.text
        if not models:
            models.append((await self.ctx.llm.chosen(policy)).model_id)
