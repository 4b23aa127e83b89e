"""langchain-openai's ChatOpenAI against a real server: invoke, stream, structured output."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel, SecretStr

from tests.conftest import Server
from tests.e2e.test_openai_sdk import MODEL, new_key

pytestmark = [pytest.mark.models, pytest.mark.anyio]


class Verdict(BaseModel):
    """Whether it is so."""

    so: bool


@pytest.fixture
async def chat(server: Server) -> AsyncIterator[Any]:
    """The chat model as a program would make it."""
    from langchain_openai import ChatOpenAI

    # A client of its own: the ones langchain makes are shared and never closed.
    with server.new_account() as owner:
        async with openai.DefaultAsyncHttpxClient() as http:
            yield ChatOpenAI(
                http_async_client=http,
                model=MODEL,
                base_url=f"{server.url}/v1",
                api_key=SecretStr(new_key(owner)["key"]),
                temperature=0,
                max_completion_tokens=30,
                max_retries=0,
                stream_usage=True,
            )


async def test_it_answers_with_its_counts(chat: Any) -> None:
    """Text, tokens, who answered."""
    answer = await chat.ainvoke("Say hello.")
    assert answer.content
    assert answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["finish_reason"] in ("stop", "length")


async def test_its_stream_adds_up_to_the_answer(chat: Any) -> None:
    """Greedy, so the same words; the counts come with it."""
    whole = await chat.ainvoke("Say hello.")
    total = None
    async for chunk in chat.astream("Say hello."):
        total = chunk if total is None else total + chunk
    assert total is not None
    assert total.content == whole.content
    assert total.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]


async def test_structured_output_is_parsed(chat: Any) -> None:
    """By a JSON schema that the model is held to."""
    verdict = await chat.with_structured_output(Verdict, method="json_schema").ainvoke("Is water wet?")
    assert isinstance(verdict, Verdict)
