"""The engine contract: one capability, typed in and out, that proves itself.

An engine file holds, top to bottom: docstring (task, method with its paper, model, licence, limits of use), `Input`,
`Output`, the engine class, helpers. The file's name is the engine's name, its URL and its test's name.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.chat import LLM, ChatDelta
from neuroedge.contract.content import Documents, NoDocuments, NoPictures, Pictures
from neuroedge.contract.index_trials import Indexes, NoIndexes
from neuroedge.contract.models import ModelRef, Models
from neuroedge.contract.ports import (
    Blobs,
    Cache,
    Clock,
    Media,
    Memories,
    NoSound,
    NothingAllowed,
    NoVoices,
    Progress,
    Sound,
    Switches,
    Voices,
)
from neuroedge.contract.principal import RUN_ENGINES, Principal
from neuroedge.contract.speech import NoSpeechOutput, SpeechOutput
from neuroedge.contract.trained import NoTrainedModels, TrainedModels

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)
EngineCall = Callable[[str, BaseModel], Awaitable[BaseModel]]


class EngineInput(BaseModel):
    """Base of every engine's Input: unknown fields are an error, so that a typo is never ignored."""

    model_config = ConfigDict(extra="forbid")


class EngineOutput(BaseModel):
    """Base of every engine's Output: says which method and models answered."""

    method: str = Field(description="The method that produced this answer.")
    models: list[str] = Field(default_factory=list, description="Catalogue ids of the models that answered.")


class Usage(BaseModel):
    """What the language models read and wrote for an answer, all calls together."""

    prompt_tokens: int = Field(default=0, description="Tokens read.")
    completion_tokens: int = Field(default=0, description="Tokens written.")
    cost_usd: Decimal = Field(default=Decimal(0), description="US dollars of it, as far as prices are known.")
    unpriced: bool = Field(default=False, description="A model without a known price took part: it cost more.")

    def count(self, delta: ChatDelta) -> None:
        """Add what a call's last piece tells."""
        self.prompt_tokens += delta.prompt_tokens or 0
        self.completion_tokens += delta.completion_tokens or 0
        self.cost_usd += delta.cost_usd or 0
        self.unpriced |= delta.completion_tokens is not None and delta.cost_usd is None


class Health(BaseModel):
    """Whether an engine can answer now, and by which method."""

    status: Literal["ready", "degraded", "unavailable"] = Field(
        description="ready; degraded: a weaker default is active; unavailable: a call would fail."
    )
    method: str = Field(description="The method that would answer now.")
    models: dict[str, str] = Field(default_factory=dict, description="State of each model it needs, by catalogue id.")
    detail: str | None = Field(default=None, description="What is missing, with the remedy.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineContext:
    """What an engine may touch while it answers one call; every port is bound to `principal`'s organisation.

    `call(name, payload)` runs another engine under the same caller, deadline and request id.
    """

    principal: Principal
    request_id: str
    models: Models
    memories: Memories
    blobs: Blobs
    media: Media
    cache: Cache
    clock: Clock
    progress: Progress
    call: EngineCall
    llm: LLM
    switches: Switches = field(default_factory=NothingAllowed)
    speech_output: SpeechOutput = field(default_factory=NoSpeechOutput)
    sound: Sound = field(default_factory=NoSound)
    voices: Voices = field(default_factory=NoVoices)
    documents: Documents = field(default_factory=NoDocuments)
    pictures: Pictures = field(default_factory=NoPictures)
    indexes: Indexes = field(default_factory=NoIndexes)
    trained: TrainedModels = field(default_factory=NoTrainedModels)


class Engine(ABC, Generic[In, Out]):
    """One capability. `probe` is a context of the platform's own probe organisation, for health and self-tests."""

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    title: ClassVar[str]
    method: ClassVar[str]
    """Short name of the default method, as `Output.method` gives it."""
    Input: ClassVar[type[BaseModel]]
    Output: ClassVar[type[BaseModel]]
    example: ClassVar[BaseModel]
    needs: ClassVar[tuple[ModelRef[Any], ...]] = ()
    permission: ClassVar[str] = RUN_ENGINES
    timeout_s: ClassVar[float] = 60.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take `Input` and `Output` from the type arguments, so that an engine names them once."""
        super().__init_subclass__(**kwargs)
        for base in cls.__dict__.get("__orig_bases__", ()):
            arguments = get_args(base)
            if get_origin(base) is Engine and not any(isinstance(a, TypeVar) for a in arguments):
                cls.Input, cls.Output = arguments

    def __init__(self, *, probe: EngineContext) -> None:
        self.probe = probe

    @abstractmethod
    async def run(self, payload: In, ctx: EngineContext) -> Out:
        """Answer one call."""

    async def health(self) -> Health:
        """State of the models the engine needs, without loading any."""
        models: dict[str, str] = {}
        details: list[str] = []
        for ref in self.needs:
            status = self.probe.models.status(ref)
            models[status.id] = status.state
            if status.state in ("missing", "failed"):
                details.append(status.detail or f"{status.id} is {status.state}")
        return Health(
            status="unavailable" if details else "ready",
            method=self.method,
            models=models,
            detail="; ".join(details) or None,
        )

    async def post_swap_test(self) -> None:
        """Prove a (re)loaded engine on its own example; raises when it does not answer by its contract."""
        answer = await self.run(self.example, self.probe)  # type: ignore[arg-type]
        self.Output.model_validate(answer.model_dump())
