"""The official OpenAI SDK against a real server with a real small model: answers, streams, keys, errors."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import Server

pytestmark = [pytest.mark.models, pytest.mark.anyio]
MODEL = "smollm2-135m-instruct"
HELLO: Any = [{"role": "user", "content": "Say hello."}]
BRIEF: dict[str, Any] = {"model": MODEL, "messages": HELLO, "max_tokens": 8, "temperature": 0}
COUNT: Any = [{"role": "user", "content": "Count from 1 to 1000: 1, 2, 3, 4,"}]
LONG: dict[str, Any] = {**BRIEF, "messages": COUNT, "max_tokens": 1500}
"""The model counts on until it is stopped, which takes a minute."""


@pytest.fixture(scope="module")
def owner(server: Server) -> Iterator[httpx.Client]:
    """The owner of an organisation that all harmless tests share."""
    with server.new_account() as client:
        yield client


def new_key(client: httpx.Client, **asked: Any) -> dict[str, Any]:
    """An API key of the client's user."""
    answer = client.post("/v1/api-keys", json={"name": "sdk", **asked})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


@contextlib.contextmanager
def _client(server: Server, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def client(server: Server, owner: httpx.Client) -> Iterator[openai.OpenAI]:
    """The official client with an API key."""
    with _client(server, new_key(owner)["key"]) as client:
        yield client


@pytest.fixture
async def async_client(server: Server, owner: httpx.Client) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official asynchronous client with an access token."""
    token = owner.headers["Authorization"].removeprefix("Bearer ")
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=token, max_retries=0, timeout=60) as client:
        yield client


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    """Greedy, so the same words; both count the same tokens."""
    whole = client.chat.completions.create(**BRIEF)
    chunks = list(client.chat.completions.create(**BRIEF, stream=True, stream_options={"include_usage": True}))
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == whole.choices[0].message.content != ""
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert 0 < chunks[-1].usage.completion_tokens == whole.usage.completion_tokens <= 8
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens > 0
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


async def test_streams_at_the_same_time(async_client: openai.AsyncOpenAI) -> None:
    """Each gets its own answer. Each has a schema that allows but one, for company changes a free answer's rounding."""

    async def ask(number: int) -> str:
        schema = {"type": "object", "properties": {"number": {"const": number}}, "required": ["number"]}
        stream = await async_client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Say a number."}],
            max_tokens=40,
            temperature=0,
            stream=True,
            response_format={"type": "json_schema", "json_schema": {"name": "number", "schema": schema}},
        )
        return "".join([c.choices[0].delta.content or "" async for c in stream])

    numbers = (1111, 2222, 3333)
    for said, number in zip(await asyncio.gather(*map(ask, numbers)), numbers, strict=True):
        assert json.loads(said) == {"number": number}


def test_a_schema_holds_the_model(client: openai.OpenAI) -> None:
    """Even a small model writes nothing else."""
    schema = {
        "type": "object",
        "properties": {"word": {"type": "string", "enum": ["yes", "no"]}},
        "required": ["word"],
        "additionalProperties": False,
    }
    shape: Any = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": True}}
    answer = client.chat.completions.create(**{**BRIEF, "max_tokens": 40}, response_format=shape)
    assert json.loads(answer.choices[0].message.content or "")["word"] in ("yes", "no")


def test_responses_and_completions(client: openai.OpenAI) -> None:
    """The newer and the older API say something too."""
    response = client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=8, temperature=0)
    assert response.output_text
    with client.responses.stream(model=MODEL, input="Say hello.", max_output_tokens=8, temperature=0) as stream:
        assert "".join(e.delta for e in stream if e.type == "response.output_text.delta") == response.output_text
    completion = client.completions.create(model=MODEL, prompt="Say hello.", max_tokens=8, temperature=0)
    assert completion.choices[0].text


def test_a_prompt_longer_than_the_context(client: openai.OpenAI) -> None:
    """Told by the code OpenAI has for it, streamed or not."""
    long: Any = [{"role": "user", "content": "word " * 20_000}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**{**BRIEF, "messages": long}, stream=stream)
        assert refused.value.code == "context_length_exceeded"


def test_an_unknown_model(client: openai.OpenAI) -> None:
    """404 with the code that clients look for."""
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(**{**BRIEF, "model": "gpt-of-nobody"})
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")


def test_wrong_revoked_expired_and_limited_keys(server: Server, owner: httpx.Client) -> None:
    """Each by the exception the SDK has for it."""
    revoked, limited = new_key(owner), new_key(owner, scopes=["read"])
    soon = datetime.now(UTC) + timedelta(seconds=6)  # or a busy machine makes the key too late
    expired = new_key(owner, expires_at=soon.isoformat())
    assert owner.delete(f"/v1/api-keys/{revoked['id']}").status_code == 204
    while datetime.now(UTC) < soon:
        time.sleep(0.05)
    for key in ("sk-ne-abcdefghijkl-wrong", "sk-somebody-elses", revoked["key"], expired["key"]):
        with _client(server, key) as client, pytest.raises(openai.AuthenticationError) as refused:
            client.chat.completions.create(**BRIEF)
        assert refused.value.code == "invalid_api_key"
    with _client(server, limited["key"]) as client, pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(**BRIEF)


def test_a_key_may_be_limited_to_models(server: Server, owner: httpx.Client) -> None:
    """Its own model answers, also by default; others are refused, by whatever name."""
    key = new_key(owner, models=[f"local/{MODEL}"])["key"]
    with _client(server, key) as client:
        for name in (MODEL, f"local/{MODEL}", "auto"):
            assert client.chat.completions.create(**{**BRIEF, "model": name}).choices[0].message.content
        for name in ("qwen2.5-1.5b-instruct", "openai/gpt-5", "local/anything"):
            with pytest.raises(openai.PermissionDeniedError, match="does not allow the model"):
                client.chat.completions.create(**{**BRIEF, "model": name})


def test_a_repeated_request_is_answered_once(server: Server, client: openai.OpenAI, owner: httpx.Client) -> None:
    """The same answer with the same id; another body or user is another matter; a failure is not kept."""
    headers = {"Idempotency-Key": f"test-{time.time_ns()}"}
    first = client.chat.completions.with_raw_response.create(**BRIEF, extra_headers=headers)
    again = client.chat.completions.with_raw_response.create(**BRIEF, extra_headers=headers)
    assert first.parse().id == again.parse().id
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**{**BRIEF, "max_tokens": 7}, extra_headers=headers)
    with server.new_account() as stranger, _client(server, new_key(stranger)["key"]) as other:
        assert other.chat.completions.create(**BRIEF, extra_headers=headers).id != first.parse().id
    failing = {"Idempotency-Key": f"fails-{time.time_ns()}"}
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**BRIEF, "model": "nobody"}, extra_headers=failing)
    assert client.chat.completions.create(**BRIEF, extra_headers=failing).choices


def test_the_same_key_at_the_same_time_is_a_conflict(client: openai.OpenAI) -> None:
    """While the first runs, streamed or not; after a stream the key is free."""
    headers = {"Idempotency-Key": f"busy-{time.time_ns()}"}
    asked: dict[str, Any] = {**LONG, "extra_headers": headers}
    stream = client.chat.completions.create(**asked, stream=True)
    next(iter(stream))
    for streamed in (True, False):
        with pytest.raises(openai.ConflictError):
            client.chat.completions.create(**asked, stream=streamed)
    stream.close()
    until = time.monotonic() + 60
    while True:
        try:
            assert client.chat.completions.create(**{**asked, "max_tokens": 4}).choices
            break
        except openai.ConflictError:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_a_client_that_leaves_frees_the_model(client: openai.OpenAI) -> None:
    """After a dozen abandoned long streams the next caller is served at once, not when they would have ended."""
    for _ in range(12):
        stream = client.chat.completions.create(**LONG, stream=True)
        next(iter(stream))
        stream.close()
    done = threading.Event()

    def ask() -> None:
        client.chat.completions.create(**BRIEF)
        done.set()

    threading.Thread(target=ask, daemon=True).start()
    assert done.wait(60)
