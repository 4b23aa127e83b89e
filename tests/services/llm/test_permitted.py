"""A key that is limited to some models: what it may name, what it gets by default, and no way around."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from neuroedge.contract.chat import ChatDelta, ChatMessage, ChatModel, ChatRequest, Policy
from neuroedge.contract.errors import Forbidden
from neuroedge.services.llm.permitted import permitted
from tests.fakes import make_principal

pytestmark = pytest.mark.anyio
HELLO = ChatRequest([ChatMessage(role="user", content="Hello")])


class _Asked:
    """Keeps the policies it is asked by."""

    def __init__(self) -> None:
        self.policies: list[Policy] = []

    async def stream(self, request: ChatRequest, *, policy: Policy = Policy()) -> AsyncGenerator[ChatDelta, None]:
        """One piece."""
        self.policies.append(policy)
        yield ChatDelta(text="x", finish_reason="stop")

    async def chosen(self, policy: Policy = Policy()) -> ChatModel:
        """Nothing to count with."""
        self.policies.append(policy)
        model: Any = object()
        return model


async def _got(models: tuple[str, ...] | None, asked: str | None) -> list[Policy]:
    llm = _Asked()
    limited = permitted(llm, replace(make_principal(), models=models))
    assert [delta.text async for delta in limited.stream(HELLO, policy=Policy(model=asked))] == ["x"]
    await limited.chosen(Policy(model=asked))
    assert llm.policies[0] == llm.policies[1]
    return llm.policies


async def test_no_limit_changes_nothing() -> None:
    """The same policy, with its fallback."""
    assert (await _got(None, "openai/gpt"))[0] == Policy(model="openai/gpt")


@pytest.mark.parametrize(
    ("models", "asked", "given"),
    [
        (("openai/gpt", "local/small"), None, "openai/gpt"),
        (("openai/*", "local/small"), None, "local/small"),
        (("openai/*",), "openai/gpt", "openai/gpt"),
        (("small",), "local/small", "local/small"),
        (("local/small",), "small", "local/small"),
    ],
)
async def test_what_is_allowed_is_named_in_full_and_has_no_fallback(
    models: tuple[str, ...], asked: str | None, given: str
) -> None:
    """So that nobody else's choice can leave the limits."""
    assert (await _got(models, asked))[0] == Policy(model=given, fallback=False)


@pytest.mark.parametrize(
    ("models", "asked"),
    [
        (("openai/gpt",), "openai/gpt-5"),
        (("openai/gpt",), "gpt"),
        (("local/*",), "openai/gpt"),
        (("openai/*",), None),
        ((), "local/small"),
        (("local/[a-z]mall",), None),
    ],
)
async def test_anything_else_is_forbidden(models: tuple[str, ...], asked: str | None) -> None:
    """Named or by default, for asking and for counting."""
    llm = _Asked()
    limited = permitted(llm, replace(make_principal(), models=models))
    with pytest.raises(Forbidden):
        await anext(limited.stream(HELLO, policy=Policy(model=asked)))
    with pytest.raises(Forbidden):
        await limited.chosen(Policy(model=asked))
    assert llm.policies == []
