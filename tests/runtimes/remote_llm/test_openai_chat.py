"""Chat completions on the wire, against a server that speaks it."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from neuroedge.contract.chat import ChatRequest, TokenLogprob
from neuroedge.contract.errors import ProviderFailed, ProviderRefused
from neuroedge.runtimes.remote_llm.connections import Address
from neuroedge.runtimes.remote_llm.openai_chat import OpenAIChat, is_strict
from tests.runtimes.remote_llm.asking import PERSON, TALK, WEATHER, answer, ask, calls, text
from tests.runtimes.remote_llm.conftest import KEY
from tests.upstreams import Reply, Upstream

pytestmark = pytest.mark.anyio
Make = Callable[..., OpenAIChat]


async def test_the_whole_request_is_sent(upstream: Upstream, openai_model: Make) -> None:
    """Messages with pictures and tool calls, tools, sampling, format; always streamed, with usage."""
    request = ChatRequest(
        TALK,
        max_tokens=99,
        temperature=0.5,
        top_p=0.9,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        seed=7,
        stop=["\n"],
        json_schema=PERSON,
        tools=[WEATHER],
        tool_choice="weather",
        logprobs=2,
    )
    await answer(openai_model("m"), request)
    body = upstream.asked[0].body
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Riga"}'}}
            ],
        },
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
    ]
    function = {"name": "weather", "description": WEATHER.description, "parameters": dict(WEATHER.parameters)}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    schema = {"name": "answer", "schema": PERSON, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema}
    rest = {name: body[name] for name in body if name not in ("messages", "tools", "tool_choice", "response_format")}
    assert rest == {
        "model": "m",
        "max_tokens": 99,
        "temperature": 0.5,
        "top_p": 0.9,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "seed": 7,
        "stop": ["\n"],
        "logprobs": True,
        "top_logprobs": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert upstream.asked[0].headers["authorization"] == f"Bearer {KEY}"


async def test_what_is_not_asked_is_not_sent(upstream: Upstream, openai_model: Make) -> None:
    """The provider's defaults hold."""
    await answer(openai_model("m"), ask(temperature=None, json_object=True))
    body = upstream.asked[0].body
    assert set(body) == {"model", "messages", "max_tokens", "response_format", "stream", "stream_options"}
    assert body["response_format"] == {"type": "json_object"}


async def test_the_answer_comes_in_pieces_with_its_count_at_the_end(upstream: Upstream, openai_model: Make) -> None:
    """Text, finish reason, tokens and those of them that were cached."""
    upstream.script("m", Reply(text="one two", finish="length", cached_tokens=2))
    deltas = await answer(openai_model("m"))
    assert [delta.text for delta in deltas] == ["", "one ", "two", ""]
    last = deltas[-1]
    assert (last.finish_reason, last.prompt_tokens, last.completion_tokens, last.cached_tokens) == ("length", 3, 2, 2)


async def test_tool_calls_come_in_pieces(upstream: Upstream, openai_model: Make) -> None:
    """Several in one answer, each with its id and name, and arguments that may be no JSON."""
    upstream.script("m", Reply(text="", tool_calls=(("weather", '{"town": "Riga"}'), ("other", "{broken"))))
    deltas = await answer(openai_model("m"), ask(tools=[WEATHER]))
    assert calls(deltas) == [("call_0", "weather", '{"town": "Riga"}'), ("call_1", "other", "{broken")]
    assert deltas[-1].finish_reason == "tool_calls"


async def test_logprobs_come_with_their_tokens(upstream: Upstream, openai_model: Make) -> None:
    """Of the token, and of the most probable ones in its place."""
    upstream.script("m", Reply(text="yes"))
    deltas = await answer(openai_model("m"), ask(logprobs=1))
    logprobs = [token for delta in deltas for token in delta.logprobs]
    assert logprobs == [TokenLogprob(token="yes", logprob=-0.25, top=[("other0", -1.0)])]


async def test_a_parameter_the_model_does_not_take_is_left_out(upstream: Upstream, openai_model: Make) -> None:
    """Reasoning models refuse some; what was learnt holds for the next call, and for no other model."""

    def refusal(name: str) -> Reply:
        return Reply(status=400, error=f"no {name}", error_code="unsupported_value", error_param=name)

    upstream.script("m", refusal("temperature"), refusal("max_tokens"), Reply(text="fine"))
    assert text(await answer(openai_model("m"), ask(max_tokens=9))) == "fine"
    assert text(await answer(openai_model("m"), ask(max_tokens=9))) == "fine"
    await answer(openai_model("n"))
    bodies = [asked.body for asked in upstream.asked]
    assert [("temperature" in body, body.get("max_tokens")) for body in bodies] == [
        (True, 9),
        (False, 9),
        (False, None),
        (False, None),
        (True, 256),
    ]
    assert [body.get("max_completion_tokens") for body in bodies[2:4]] == [9, 9]


async def test_a_parameter_that_matters_is_not_left_out(upstream: Upstream, openai_model: Make) -> None:
    """Tools the model does not know are the caller's business."""
    upstream.script("m", Reply(status=400, error="no tools", error_code="unsupported_parameter", error_param="tools"))
    with pytest.raises(ProviderRefused, match="no tools"):
        await answer(openai_model("m"), ask(tools=[WEATHER]))
    assert len(upstream.asked) == 1


async def test_closing_the_iterator_closes_the_connection(upstream: Upstream, openai_model: Make) -> None:
    """The provider sees it at once, so that it stops generating."""
    upstream.script("m", Reply(stall_after=1))
    async with aclosing(openai_model("m").stream(ask())) as deltas:
        while not (await anext(deltas)).text:
            pass
    assert await asyncio.to_thread(upstream.asked[0].wait) == "left"


async def test_silence_ends_the_wait_without_any_gateway(upstream: Upstream, openai_model: Make) -> None:
    """Every wait on the network has an end."""
    upstream.script("m", Reply(stall_after=1))
    with pytest.raises(ProviderFailed):
        await answer(openai_model("m", silence_s=0.3))


async def test_a_redirect_is_not_followed(upstream: Upstream, openai_model: Make) -> None:
    """What was meant for one server goes to no other."""
    upstream.script("m", Reply(status=307, location="/v1/chat/completions"))
    with pytest.raises(ProviderFailed) as caught:
        await answer(openai_model("m"))
    assert not caught.value.transient
    assert len(upstream.asked) == 1


async def test_nothing_of_the_environment_is_told(
    upstream: Upstream, openai_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator's own account with a vendor is not the business of other providers, nor is its proxy of private
    servers."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-operator")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-operator")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-operator")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    address = Address(wire="openai", base_url=upstream.openai_url, api_key=None, direct=True)
    assert text(await answer(openai_model("m", address=address)))
    assert "operator" not in str(upstream.asked[0].headers)


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (PERSON, True),
        ({**PERSON, "required": ["name"]}, False),
        ({"type": "object", "properties": {}}, False),
        ({"type": "array", "items": PERSON}, True),
        ({"type": "array", "items": {"type": "object", "properties": {}}}, False),
        ({**PERSON, "$defs": {"x": {"type": "object", "properties": {}}}}, False),
    ],
)
def test_only_schemas_it_can_hold_to_are_strict(schema: dict[str, Any], strict: bool) -> None:
    """OpenAI refuses strictness for any other."""
    assert is_strict(schema) is strict
