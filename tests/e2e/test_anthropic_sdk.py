"""The official Anthropic SDK against a real server with a real small model; API keys as it sends them."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import httpx
import pytest

from tests.conftest import Server
from tests.e2e.test_openai_sdk import new_key

pytestmark = [pytest.mark.models, pytest.mark.anyio]
HELLO: Any = [{"role": "user", "content": "Say hello."}]
BRIEF: dict[str, Any] = {"model": "smollm2-135m-instruct", "messages": HELLO, "max_tokens": 8}
BRIEF["extra_body"] = {"temperature": 0}


@pytest.fixture(scope="module")
def key(server: Server) -> Iterator[str]:
    """An API key."""
    with server.new_account() as owner:
        yield new_key(owner)["key"]


@pytest.fixture
def client(server: Server, key: str) -> Iterator[anthropic.Anthropic]:
    """The official client; it sends x-api-key."""
    with anthropic.Anthropic(base_url=server.url, api_key=key, auth_token=None, max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(server: Server, key: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """The official asynchronous client; it sends a bearer token."""
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key=None, auth_token=key, max_retries=0) as client:
        yield client


async def test_a_stream_says_what_the_whole_answer_says(
    client: anthropic.Anthropic, async_client: anthropic.AsyncAnthropic
) -> None:
    """Greedy, so the same words; both count the same tokens."""
    whole = client.messages.create(**BRIEF)
    async with async_client.messages.stream(**BRIEF) as stream:
        said = "".join([text async for text in stream.text_stream])
        final = await stream.get_final_message()
    (block,) = whole.content
    assert block.type == "text"
    assert said == block.text != ""
    assert final.usage.output_tokens == whole.usage.output_tokens > 0
    assert final.stop_reason == whole.stop_reason


def test_the_count_is_near_what_the_model_counts(client: anthropic.Anthropic) -> None:
    """Within what a chat template may add."""
    text: Any = [{"role": "user", "content": "one two three four five six seven eight nine ten " * 20}]
    counted = client.messages.count_tokens(model=BRIEF["model"], messages=text).input_tokens
    usage = client.messages.create(**{**BRIEF, "messages": text, "max_tokens": 1}).usage
    used = usage.input_tokens + (usage.cache_read_input_tokens or 0)
    assert counted == pytest.approx(used, abs=40)


def test_errors_by_the_class_the_sdk_has_for_them(server: Server, client: anthropic.Anthropic) -> None:
    """A wrong key, an unknown model, a prompt that is too long."""
    with (
        anthropic.Anthropic(base_url=server.url, api_key="sk-ne-abcdefghijkl-wrong", max_retries=0) as wrong,
        pytest.raises(anthropic.AuthenticationError),
    ):
        wrong.messages.create(**BRIEF)
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**{**BRIEF, "model": "claude-of-nobody"})
    long: Any = [{"role": "user", "content": "word " * 20_000}]
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**{**BRIEF, "messages": long})


def test_a_key_of_anthropics_own_is_no_token_of_ours(server: Server) -> None:
    """401 in Anthropic's shape."""
    answer = httpx.post(f"{server.url}/v1/messages", json=BRIEF, headers={"x-api-key": "sk-ant-x"}, timeout=60)
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
