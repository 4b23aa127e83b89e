"""The assistant over the test's database, with a language model that says what the test wants."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from neuroedge.contract.chat import ChatDelta, ChatModel, ChatRequest, Policy, ToolCallPart
from neuroedge.contract.engine import EngineContext
from neuroedge.contract.ports import NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.engines.knowledge.search import SearchEngine
from neuroedge.infra.queue import JobQueue
from neuroedge.kit.prompts import AGENT, CHECK, CLARIFY, CONVERSE, INTENT, SOURCED, SUMMARISE, SYSTEM
from neuroedge.services.chat.agent import Limits
from neuroedge.services.chat.asking import Question
from neuroedge.services.chat.assistant import Assistant
from neuroedge.services.chat.state import Event, Options
from neuroedge.services.chat.workflow import STEPS, Step, Workflow
from neuroedge.services.engines import Registry
from neuroedge.services.mcp_tools import McpTools
from neuroedge.stores.postgres import Database
from tests.engines.knowledge.fake_encoder import HashedWords
from tests.fakes import FakeMemories, make_context
from tests.services.chat.chat_bench import Bench

RECORDING = UUID("00000000-0000-7000-8000-000000000001")
DOCUMENT = UUID("00000000-0000-7000-8000-000000000002")
PROMPTS = {
    "check": CHECK,
    "summary": SUMMARISE,
    "intent": INTENT,
    "agent": AGENT,
    "clarify": CLARIFY,
    "converse": CONVERSE,
    "spoken": SYSTEM,
    "answer": SOURCED,
}
Saying = str | Sequence[ToolCallPart] | Exception


class ScriptedLLM:
    """An LLM, and its own model: says the lines of each kind of prompt one after the other, the last one for ever."""

    def __init__(self, *, model_id: str = "small", context_tokens: int = 4096) -> None:
        self.model_id, self.context_tokens = model_id, context_tokens
        self.script: dict[str, list[Saying]] = {"check": ["yes"], "summary": ["They spoke."]}
        self.requests: list[tuple[str, ChatRequest, Policy]] = []
        self.before_piece: Callable[[str], Any] | None = None
        """Called with the kind of prompt before each piece; may wait."""

    def asked(self, kind: str) -> list[ChatRequest]:
        """The requests of one kind."""
        return [request for told, request, _ in self.requests if told == kind]

    async def chosen(self, policy: Policy = Policy()) -> ChatModel:
        """Itself."""
        return self

    async def count_tokens(self, text: str) -> int:
        """One token a word."""
        return len(text.split())

    async def stream(self, request: ChatRequest, *, policy: Policy = Policy()) -> AsyncGenerator[ChatDelta, None]:
        """The next line of its kind, word by word."""
        system = request.messages[0].content
        kind = next((name for name, prompt in PROMPTS.items() if system.startswith(prompt)), "other")
        self.requests.append((kind, request, policy))
        lines = self.script.get(kind, ["NOT_FOUND"])
        line = lines.pop(0) if len(lines) > 1 else lines[0]
        if isinstance(line, Exception):
            raise line
        if isinstance(line, str):
            for word in line.split(" "):
                if self.before_piece is not None:
                    await self.before_piece(kind)
                yield ChatDelta(text=f"{word} ", model=self.model_id)
        else:
            yield ChatDelta(tool_calls=line, model=self.model_id)
        yield ChatDelta(finish_reason="stop", prompt_tokens=10, completion_tokens=5, cost_usd=Decimal("0.001"))


class Shelf:
    """Documents of the caller, as the service lists and reads them."""

    def __init__(self) -> None:
        self.passages: list[Any] = []

    async def list(self, principal: Principal, *, limit: int) -> Sequence[Any]:
        """One manual."""
        return [SimpleNamespace(id=DOCUMENT, described=SimpleNamespace(title="Manual"), status="done")]

    async def chunks(self, principal: Principal, document_id: UUID, *, limit: int, after: int = -1) -> Sequence[Any]:
        """The passages the test put there."""
        return [passage for passage in self.passages if passage.position > after][:limit]


class AssistantBench(Bench):
    """Everything of chats with the assistant."""

    def __init__(
        self,
        db: Database,
        queue: JobQueue,
        folder: Path,
        *,
        llm: ScriptedLLM | None = None,
        steps: Mapping[str, Step] = STEPS,
        limits: Limits = Limits(),
        safety: Any = None,
        mcp: McpTools | None = None,
    ) -> None:
        super().__init__(db, queue, folder)
        self.llm = llm or ScriptedLLM()
        self.memories = FakeMemories()
        self.encoder = HashedWords()
        self.searched: list[str] = []
        self.registry = Registry([])
        self.shelf = Shelf()
        runner: Any = self
        documents: Any = self.shelf
        self.workflow = Workflow(db, steps=steps)
        self.assistant = Assistant(
            db=db,
            chats=self.chats,
            attachments=self.attachments,
            runner=runner,
            documents=documents,
            workflow=self.workflow,
            limits=limits,
            safety=safety,
            mcp=mcp,
        )

    def context(self, principal: Principal, *, request_id: str) -> EngineContext:
        """A context whose search is the real engine over memories in a list."""

        async def call(name: str, payload: Any) -> Any:
            assert name == "search"
            self.searched.append(payload.query)
            plain = payload.model_copy(update={"rerank": False})
            return await SearchEngine(probe=ctx).run(plain, ctx)

        made = make_context(models={"text_embedding": self.encoder}, memories=self.memories, call=call, llm=self.llm)
        ctx = replace(made, principal=principal)
        return ctx

    async def remember(self, *texts: str, **more: Any) -> list[UUID]:
        """Memories to answer from."""
        vectors = (await self.encoder.encode(list(texts))).vectors
        return await self.memories.add(
            [
                NewMemory(content=text, embedding=vector, embedding_model=self.encoder.model_id, **more)
                for text, vector in zip(texts, vectors, strict=True)
            ]
        )

    async def ask(
        self, caller: Principal, session_id: UUID, text: str, *, key: str | None = None, **options: Any
    ) -> list[Event]:
        """All events of a question at the end of the active branch."""
        asked = await self.assistant.begin(
            caller,
            session_id,
            Question(text=text, options=Options(**options)),
            request_id="r",
            idempotency_key=key,
        )
        return [event async for event in self.assistant.events(asked)]


def names(events: Sequence[Event]) -> list[str]:
    """What happened, stages by their name."""
    return [event.data["name"] if event.name == "stage" else event.name for event in events if event.name != "trace"]


def said(events: Sequence[Event]) -> str:
    """The tokens together."""
    return "".join(event.data["text"] for event in events if event.name == "token").strip()


def trace_of(events: Sequence[Event], stage: str) -> list[dict[str, Any]]:
    """Trace entries of a stage."""
    return [event.data for event in events if event.name == "trace" and event.data["stage"] == stage]
