"""A real HTTP server of the chat surfaces over a language model that says what a test tells it to."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import uvicorn
from fastapi import FastAPI

from neuroedge.contract.chat import ChatDelta, ChatModel, ChatRequest, Policy
from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.contract.principal import Principal
from neuroedge.http import anthropic, openai, problems
from neuroedge.http.anthropic import messages
from neuroedge.http.middleware import DirectRoute, RequestEnvelope
from neuroedge.http.openai import chat_completions, completions, responses
from neuroedge.infra.limits import Quota
from neuroedge.infra.telemetry import Metrics
from neuroedge.infra.tokens import AccessTokens
from neuroedge.services.safety import Verdict
from neuroedge.services.safety_policy import PassPolicy, SafetyPolicy
from tests.fakes import SystemClock, make_context, make_principal

Step = ChatDelta | NeuroEdgeError | threading.Event | Exception
END = ChatDelta(finish_reason="stop", prompt_tokens=11, completion_tokens=3, cached_tokens=4)


@dataclass
class ScriptedLLM:
    """Says its steps: yields a piece, raises an error, waits for an event."""

    steps: Sequence[Step] = (ChatDelta(text="Hello", model="scripted/one"), ChatDelta(text=" there"), END)
    asked: list[tuple[ChatRequest, Policy]] = field(default_factory=list)
    waiting: threading.Event = field(default_factory=threading.Event)
    """Set when it has come to an event among its steps."""
    closed: threading.Event = field(default_factory=threading.Event)

    async def stream(self, request: ChatRequest, *, policy: Policy = Policy()) -> AsyncGenerator[ChatDelta, None]:
        """The steps."""
        self.asked.append((request, policy))
        try:
            for step in self.steps:
                if isinstance(step, threading.Event):
                    self.waiting.set()
                    while not step.is_set():  # noqa: ASYNC110 - set by a thread
                        await asyncio.sleep(0.01)
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        finally:
            self.closed.set()

    async def chosen(self, policy: Policy = Policy()) -> ChatModel:
        """A model whose tokens are words."""

        async def count_tokens(text: str) -> int:
            return len(text.split())

        return SimpleNamespace(model_id="one", context_tokens=4096, count_tokens=count_tokens)  # type: ignore[return-value]

    @property
    def request(self) -> ChatRequest:
        """What was asked last."""
        return self.asked[-1][0]

    @property
    def policy(self) -> Policy:
        """By which policy."""
        return self.asked[-1][1]


class _NoSafety:
    """A policy that asks for nothing."""

    async def policy(self, principal: Principal) -> SafetyPolicy:
        """Every pass switched off."""
        off = PassPolicy(enabled=False)
        return SafetyPolicy(input=off, context=off, output=off)

    async def check(self, principal: Principal, text: str, *, stage: Any, request_id: str) -> Verdict:
        """All is allowed."""
        return Verdict(action="allow", text=text, stage=stage)

    async def stream(
        self, principal: Principal, deltas: AsyncGenerator[ChatDelta, None], *, request_id: str
    ) -> AsyncGenerator[ChatDelta, None]:
        """The pieces as they come."""
        async for delta in deltas:
            yield delta


class _Limits:
    """A quota that never ends."""

    async def spend(self, per_minute: int, *key: str) -> Quota:
        """One call less."""
        return Quota(granted=True, limit=100, remaining=99, reset_s=7)


class _Budgets:
    """None is set."""

    async def reached(self, principal: Principal) -> list[Any]:
        """No soft limit."""
        return []


@dataclass
class Scripted:
    """The server, with a caller's token."""

    url: str
    token: str
    llm: ScriptedLLM

    def say(self, *steps: Step) -> None:
        """What the model says from now on."""
        self.llm.steps = steps
        self.llm.waiting.clear()
        self.llm.closed.clear()


def _app(llm: ScriptedLLM, principal: Principal) -> tuple[FastAPI, str]:
    app = FastAPI()
    for module in (chat_completions, completions, responses, messages):
        app.include_router(module.build_router())
    app.add_middleware(DirectRoute, path=chat_completions.PATH, endpoint=chat_completions.complete)
    app.add_middleware(
        RequestEnvelope,
        max_body_bytes=10**6,
        max_upload_bytes=10**6,
        refusals={**openai.REFUSALS, **anthropic.REFUSALS},
    )
    problems.install(app)
    tokens = AccessTokens("x" * 32)

    def context(caller: Principal, *, request_id: str) -> Any:
        return make_context(llm=llm)

    app.state.platform = SimpleNamespace(
        runner=SimpleNamespace(context=context, contexts=SimpleNamespace(llm=lambda caller, *, request_id: llm)),
        tokens=tokens,
        api_keys=None,
        metrics=Metrics(),
        settings=SimpleNamespace(requests_per_minute=100, request_timeout_s=300.0),
        limits=_Limits(),
        safety=_NoSafety(),
        budgets=_Budgets(),
    )
    return app, tokens.issue(principal, now=SystemClock().now(), ttl_s=600)


@contextlib.contextmanager
def running() -> Iterator[Scripted]:
    """Serve on a free port until the block ends."""
    llm = ScriptedLLM()
    app, token = _app(llm, make_principal())
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < until
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Scripted(url=f"http://127.0.0.1:{port}", token=token, llm=llm)
    finally:
        server.should_exit = True
        thread.join(timeout=60)
