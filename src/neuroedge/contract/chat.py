"""Conversation with language models: what is asked, what comes back piece by piece, and who may be asked."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from decimal import Decimal
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant", "tool"]
Finish = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture in a message; the bytes as they were sent."""

    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call the model asks for."""

    id: str
    name: str
    arguments: str
    """JSON as the model wrote it, which may be none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """One turn of a conversation as an LLM sees it."""

    role: Role
    content: str
    images: Sequence[Image] = ()
    tool_calls: Sequence[ToolCall] = ()
    """Of an assistant's turn."""
    tool_call_id: str | None = None
    """Of a tool's turn: the call it answers."""
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function the model may ask for; `parameters` is a JSON Schema of an object."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked of a model. None leaves a choice to the model's own default."""

    messages: Sequence[ChatMessage]
    _: KW_ONLY
    max_tokens: int = 256
    temperature: float | None = 0.0
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: Sequence[str] = ()
    json_object: bool = False
    """Any JSON object."""
    json_schema: Mapping[str, Any] | None = None
    """JSON that this schema allows."""
    tools: Sequence[Tool] = ()
    tool_choice: str = "auto"
    """auto, none, required, or the name of a tool."""
    logprobs: int | None = None
    """None: no logprobs; n: of each token, and of the n most probable ones in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallPart:
    """A piece of a tool call: `id` and `name` come with its first piece, `arguments` bit by bit."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token with its natural log-probability."""

    token: str
    logprob: float
    top: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatDelta:
    """A piece of a generated answer; the last one carries `finish_reason` and the token counts."""

    text: str = ""
    tool_calls: Sequence[ToolCallPart] = ()
    logprobs: Sequence[TokenLogprob] = ()
    finish_reason: Finish | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    """Of the prompt, those that were not computed anew."""
    cost_usd: Decimal | None = None
    """US dollars of the call, with the last piece; None where no price is known."""
    model: str | None = None
    """Who answers, as `provider/model`; with the first piece."""


class ChatModel(Protocol):
    """A conversational LLM, wherever it runs."""

    model_id: str
    context_tokens: int

    def stream(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """Generate; closing the iterator cancels. Raises InvalidInput when the prompt does not fit."""
        ...

    async def count_tokens(self, text: str) -> int:
        """Tokens `text` takes in this model's vocabulary; an upper estimate where that is not known."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which models may answer, and which of them should."""

    model: str | None = None
    """`provider/model`, a model's id, or None for the organisation's choice."""
    local_only: bool = False
    """Nothing leaves the machine; an organisation's own setting can only make it stricter."""
    prefer: Literal["cost", "latency", "quality"] | None = None
    query_type: str | None = None
    """chat, grounded, summary, code, artifact, …: what the organisation may have chosen a model for."""
    fallback: bool = True
    """Whether another model may answer when the first one cannot."""


class LLM(Protocol):
    """Language models as one caller may use them: chosen by policy, with fallback, every call in the ledger."""

    def stream(self, request: ChatRequest, *, policy: Policy = Policy()) -> AsyncGenerator[ChatDelta, None]:
        """Generate with the best model that answers; closing the iterator cancels.

        Before the first piece another model is tried when one fails; after it, ProviderBroke. Raises InvalidInput,
        NotFound for an unknown model, BudgetExceeded, Overloaded, Unavailable.
        """
        ...

    async def chosen(self, policy: Policy = Policy()) -> ChatModel:
        """The model that would be asked first: its context and its way to count tokens. It is not loaded for this."""
        ...
