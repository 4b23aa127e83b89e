"""What a turn of the assistant knows: JSON values only, because every step's state is saved."""

import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, TypedDict
from uuid import UUID

from neuroedge.contract.chat import Policy
from neuroedge.contract.engine import Usage as Spent

Intent = Literal["question", "artifact", "clarify", "small_talk", "tool"]
TRACE_CHARS: Final = 400
"""Most characters of an input or output that a trace shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a question is to be answered."""

    model: str | None = None
    """As Policy.model; None: the session's, else the organisation's choice."""
    local_only: bool = False
    max_tokens: int = 512
    top_k: int = 6
    include_context: bool = True
    """False: nothing is looked up."""
    tools: bool = False
    """Whether the assistant may use tools, in several steps."""
    recording_id: UUID | None = None
    document_ids: tuple[UUID, ...] = ()
    artifact: str | None = None
    """The type of artifact wanted; None: what the message says."""

    def policy(self, query_type: str) -> Policy:
        """Which models may answer a call of this turn."""
        return Policy(model=self.model, local_only=self.local_only, query_type=query_type)

    def as_json(self) -> dict[str, Any]:
        """For the state."""
        return {
            **asdict(self),
            "recording_id": str(self.recording_id) if self.recording_id else None,
            "document_ids": [str(each) for each in self.document_ids],
        }

    @classmethod
    def of_json(cls, kept: Mapping[str, Any]) -> "Options":
        """From the state."""
        return cls(
            **{
                **kept,
                "recording_id": UUID(kept["recording_id"]) if kept["recording_id"] else None,
                "document_ids": tuple(UUID(each) for each in kept["document_ids"]),
            }
        )


class Summary(TypedDict):
    """What was said before the turns that are shown word for word."""

    text: str
    upto: str
    """Id of the last message it covers."""
    messages: int
    """How many it covers."""


class SaidTurn(TypedDict):
    """An earlier message of the branch."""

    id: str
    role: str
    content: str


class Attached(TypedDict):
    """The text of an attachment."""

    id: str
    name: str
    text: str


class Usage(TypedDict):
    """Tokens read and written, and what they cost."""

    prompt_tokens: int
    completion_tokens: int
    cost: str
    """US dollars, a decimal number."""
    unpriced: bool
    """A model without a known price took part."""


def added(a: Usage, b: Usage) -> Usage:
    """Both together; LangGraph begins with none."""
    return Usage(
        prompt_tokens=a.get("prompt_tokens", 0) + b["prompt_tokens"],
        completion_tokens=a.get("completion_tokens", 0) + b["completion_tokens"],
        cost=str(Decimal(a.get("cost", "0")) + Decimal(b["cost"])),
        unpriced=a.get("unpriced", False) or b.get("unpriced", False),
    )


class State(TypedDict, total=False):
    """From the question to the answer."""

    question: str
    system_prompt: str | None
    options: dict[str, Any]
    limited: bool
    """Asked with an API key that may not use everything its user may."""
    turns: list[SaidTurn]
    attachments: list[Attached]
    summary: Summary | None
    query: str
    vector: list[float]
    hits: list[dict[str, Any]]
    """Excerpts that may be cited, in the order they are shown (engines/knowledge/search.Hit)."""
    intent: Intent
    work: dict[str, Any]
    """Of an agent: its messages, what it has used (agent.Work)."""
    claims: list[dict[str, Any]]
    """Sentences with the id of the excerpt each rests on, None for those that rest on none."""
    draft: str
    reason: str | None
    """Why there is no answer."""
    message: str
    citations: list[dict[str, Any]]
    artifacts: list[dict[str, Any]]
    answered: bool
    models: list[str]
    usage: Annotated[Usage, added]
    trace: Annotated[list[dict[str, Any]], operator.add]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a listener hears of a turn: started, stage, token, citation, artifact, trace, done, error."""

    name: str
    data: dict[str, Any]


def shortened(value: object) -> str:
    """A value as a trace shows it."""
    text = str(value)
    return text if len(text) <= TRACE_CHARS else f"{text[: TRACE_CHARS - 1]}…"


def options_of(state: State) -> Options:
    """The turn's options."""
    return Options.of_json(state["options"])


def usage_of(spent: Spent) -> Usage:
    """Of one call, or of several."""
    return Usage(
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
        cost=str(spent.cost_usd),
        unpriced=spent.unpriced,
    )
