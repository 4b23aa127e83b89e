"""A language model behind a safety policy: turns blocked, masked or only noted; answers cut short."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from neuroedge.contract.chat import ChatDelta, ChatMessage, ChatModel, ChatRequest, Policy
from neuroedge.contract.errors import ContentBlocked, Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.services.llm.judged import JudgedLLM
from neuroedge.services.safety import Verdict
from neuroedge.services.safety_policy import PassPolicy, Rule, SafetyPolicy
from neuroedge.services.safety_stream import guarded
from tests.fakes import make_principal

pytestmark = pytest.mark.anyio


class _Model:
    """Says two sentences, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[ChatRequest] = []
        self.closed = False

    async def stream(self, request: ChatRequest, *, policy: Policy = Policy()) -> AsyncGenerator[ChatDelta, None]:
        """The answer."""
        self.asked.append(request)
        try:
            yield ChatDelta(text="Fine so far. ", model="m")
            yield ChatDelta(text="Now something bad. ")
            yield ChatDelta(text="Unheard.", finish_reason="stop", prompt_tokens=1, completion_tokens=1)
        finally:
            self.closed = True

    async def chosen(self, policy: Policy = Policy()) -> ChatModel:
        """Not asked for here."""
        raise Unavailable("no model")


class _Safety:
    """Blocks "bad", masks "Bob", notes the rest, by the given policy."""

    def __init__(self, policy: SafetyPolicy) -> None:
        self._policy = policy
        self.seen: list[tuple[str, str]] = []

    async def policy(self, principal: Principal) -> SafetyPolicy:
        """As given."""
        return self._policy

    async def check(self, principal: Principal, text: str, *, stage: Any, request_id: str) -> Verdict:
        """By the words."""
        if "bad" in text:
            return Verdict(action="block", text="", stage=stage)
        return Verdict(action="mask", text=text.replace("Bob", "[PERSON]"), stage=stage)

    async def note(self, principal: Principal, texts: Sequence[tuple[str, str]], *, request_id: str) -> None:
        """Kept."""
        self.seen += texts

    async def stream(
        self, principal: Principal, deltas: AsyncGenerator[ChatDelta, None], *, request_id: str
    ) -> AsyncGenerator[ChatDelta, None]:
        """Sentence by sentence, as the real one does."""

        async def check(text: str) -> Verdict:
            return await self.check(principal, text, stage="output", request_id=request_id)

        async def note(text: str) -> None:
            await self.note(principal, [("output", text)], request_id=request_id)

        output = self._policy.output
        judged = guarded(deltas, check=check if output.changes_text() else None, note=note if output.rules else None)
        async with aclosing(judged):
            async for delta in judged:
                yield delta


OFF = PassPolicy(enabled=False)
HOLDS = PassPolicy(hate=Rule(action="block"))
NOTES = PassPolicy(hate=Rule(action="flag"))


def _policy(**passes: PassPolicy) -> SafetyPolicy:
    return SafetyPolicy(**{"input": OFF, "context": OFF, "output": OFF, **passes})


async def _said(model: _Model, safety: _Safety, turns: Sequence[tuple[Any, str]]) -> tuple[str, str | None]:
    llm = JudgedLLM(model, safety, make_principal(), request_id="r")  # type: ignore[arg-type]
    request = ChatRequest([ChatMessage(role=role, content=text) for role, text in turns])
    deltas = [delta async for delta in llm.stream(request)]
    return "".join(d.text for d in deltas), deltas[-1].finish_reason


TURNS = [("system", "bad Bob"), ("user", "I am Bob"), ("assistant", "bad Bob"), ("tool", "Bob"), ("user", "Hello")]


async def test_what_users_and_tools_say_is_masked_before_a_model_hears_it() -> None:
    """Every turn of theirs; not what the program or the model said."""
    model, safety = _Model(), _Safety(_policy(input=HOLDS, context=HOLDS))
    said, _ = await _said(model, safety, TURNS)
    assert said == "Fine so far. Now something bad. Unheard."
    heard = [message.content for message in model.asked[0].messages]
    assert heard == ["bad Bob", "I am [PERSON]", "bad Bob", "[PERSON]", "Hello"]


@pytest.mark.parametrize("role", ["user", "tool"])
async def test_a_blocked_turn_reaches_no_model(role: str) -> None:
    """Also an earlier one: callers send the whole conversation each time."""
    model, safety = _Model(), _Safety(_policy(input=HOLDS, context=HOLDS))
    with pytest.raises(ContentBlocked):
        await _said(model, safety, [(role, "bad"), ("assistant", "x"), ("user", "Hello")])
    assert model.asked == []


async def test_what_is_only_noted_holds_nothing_up() -> None:
    """The answer and the new turns are noted, each in its pass, after the answer's end."""
    model, safety = _Model(), _Safety(_policy(input=NOTES, context=NOTES, output=NOTES))
    said, _ = await _said(model, safety, TURNS)
    assert safety.seen == [("output", said), ("context", "Bob"), ("input", "Hello")]


async def test_nothing_is_judged_while_the_model_answers() -> None:
    """The answer has the cores for itself; a reader who leaves in its middle leaves what was asked noted."""
    model, safety = _Model(), _Safety(_policy(input=NOTES, output=NOTES))
    llm = JudgedLLM(model, safety, make_principal(), request_id="r")  # type: ignore[arg-type]
    deltas = llm.stream(ChatRequest([ChatMessage(role="user", content="Hello")]))
    await anext(deltas)
    await anext(deltas)
    assert safety.seen == []
    await deltas.aclose()
    assert safety.seen == [("output", "Fine so far. Now something bad. "), ("input", "Hello")]


async def test_a_question_that_no_model_answers_is_noted() -> None:
    """What was asked was asked."""

    class Away(_Model):
        async def stream(self, request: ChatRequest, *, policy: Policy = Policy()) -> AsyncGenerator[ChatDelta, None]:
            raise Unavailable("no model")
            yield ChatDelta()

    safety = _Safety(_policy(input=NOTES))
    with pytest.raises(Unavailable):
        await _said(Away(), safety, [("user", "Hello")])
    assert safety.seen == [("input", "Hello")]


async def test_what_was_said_before_its_reader_left_is_noted() -> None:
    """It was shown."""
    model, safety = _Model(), _Safety(_policy(output=NOTES))
    llm = JudgedLLM(model, safety, make_principal(), request_id="r")  # type: ignore[arg-type]
    deltas = llm.stream(ChatRequest([ChatMessage(role="user", content="Hello")]))
    await anext(deltas)
    await deltas.aclose()
    assert safety.seen == [("output", "Fine so far. ")]


async def test_a_blocked_sentence_ends_the_answer_and_the_generation() -> None:
    """What was fine before it was said."""
    model = _Model()
    said, finish = await _said(model, _Safety(_policy(output=HOLDS)), [("user", "Hello")])
    assert said.strip() == "Fine so far."
    assert finish == "content_filter"
    assert model.closed


async def test_leaving_closes_the_model_at_once() -> None:
    """In the middle of an answer that is held back."""
    model = _Model()
    llm = JudgedLLM(model, _Safety(_policy(output=HOLDS)), make_principal(), request_id="r")  # type: ignore[arg-type]
    deltas = llm.stream(ChatRequest([ChatMessage(role="user", content="Hello")]))
    await anext(deltas)
    await deltas.aclose()
    assert model.closed
