"""Anthropic's messages on the wire, against a server that speaks it."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from neuroedge.contract.chat import ChatMessage, ChatRequest, ToolCall
from neuroedge.contract.errors import Overloaded, ProviderFailed
from neuroedge.runtimes.remote_llm.anthropic_chat import AnthropicChat
from tests.runtimes.remote_llm.asking import PERSON, TALK, WEATHER, answer, ask, calls, text
from tests.upstreams import Reply, Upstream

pytestmark = pytest.mark.anyio
Make = Callable[..., AnthropicChat]


async def test_the_whole_request_is_sent(upstream: Upstream, anthropic_model: Make) -> None:
    """System apart, pictures, tool calls and results as blocks, tools; no sampling, which it no longer takes."""
    request = ChatRequest(
        TALK, max_tokens=99, temperature=0.5, top_p=0.9, stop=["END"], tools=[WEATHER], tool_choice="required"
    )
    await answer(anthropic_model("m"), request)
    assert upstream.asked[0].body == {
        "model": "m",
        "max_tokens": 99,
        "system": "Be brief.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"town": "Riga"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "sunny"}]},
        ],
        "stop_sequences": ["END"],
        "tools": [
            {"name": "weather", "description": WEATHER.description, "input_schema": dict(WEATHER.parameters)},
        ],
        "tool_choice": {"type": "any"},
        "stream": True,
    }


@pytest.mark.parametrize(
    ("choice", "sent"),
    [("auto", {"type": "auto"}), ("none", {"type": "none"}), ("weather", {"type": "tool", "name": "weather"})],
)
async def test_tools_can_be_left_or_made_to_choose(
    upstream: Upstream, anthropic_model: Make, choice: str, sent: dict[str, str]
) -> None:
    """As the request says."""
    await answer(anthropic_model("m"), ask(tools=[WEATHER], tool_choice=choice))
    assert upstream.asked[0].body["tool_choice"] == sent


async def test_json_by_a_schema(upstream: Upstream, anthropic_model: Make) -> None:
    """What the provider's grammar does not know of a schema becomes words."""
    limited = {**PERSON, "properties": {**PERSON["properties"], "age": {"type": "integer", "maximum": 9}}}
    await answer(anthropic_model("m"), ask(json_schema=limited))
    form = upstream.asked[0].body["output_config"]["format"]
    assert form["type"] == "json_schema"
    assert form["schema"]["required"] == ["name", "age"]
    assert "maximum" not in form["schema"]["properties"]["age"]


async def test_any_json_is_asked_for_in_words(upstream: Upstream, anthropic_model: Make) -> None:
    """It has no such mode."""
    await answer(anthropic_model("m"), ask(json_object=True))
    assert "JSON" in upstream.asked[0].body["system"]


async def test_the_answer_comes_in_pieces_with_its_count_at_the_end(upstream: Upstream, anthropic_model: Make) -> None:
    """Cached tokens are part of the prompt's."""
    upstream.script("m", Reply(text="one two", finish="max_tokens", cached_tokens=2))
    deltas = await answer(anthropic_model("m"))
    assert text(deltas) == "one two"
    last = deltas[-1]
    assert (last.finish_reason, last.prompt_tokens, last.completion_tokens, last.cached_tokens) == ("length", 3, 2, 2)


async def test_tool_calls_come_in_pieces(upstream: Upstream, anthropic_model: Make) -> None:
    """After text, several in one answer, counted from 0."""
    upstream.script("m", Reply(text="Let me see.", tool_calls=(("weather", '{"town": "Riga"}'), ("other", "{}"))))
    deltas = await answer(anthropic_model("m"), ask(tools=[WEATHER]))
    assert calls(deltas) == [("toolu_0", "weather", '{"town": "Riga"}'), ("toolu_1", "other", "{}")]
    assert text(deltas) == "Let me see."
    assert deltas[-1].finish_reason == "tool_calls"


async def test_arguments_that_are_no_object_are_kept(upstream: Upstream, anthropic_model: Make) -> None:
    """A conversation in which a model wrote nonsense goes on."""
    talk = [
        ChatMessage(role="user", content="hi"),
        ChatMessage(role="assistant", content="", tool_calls=[ToolCall(id="c", name="f", arguments="{nonsense")]),
        ChatMessage(role="tool", content="no", tool_call_id="c"),
    ]
    await answer(anthropic_model("m"), ChatRequest(talk))
    assert upstream.asked[0].body["messages"][1]["content"][0]["input"] == {"arguments": "{nonsense"}


async def test_an_overload_in_the_stream_is_an_overload(upstream: Upstream, anthropic_model: Make) -> None:
    """It comes with status 200 and says so only in its event."""
    upstream.script("m", Reply(error_after=0, error_type="overloaded_error"))
    with pytest.raises(Overloaded):
        await answer(anthropic_model("m"))


async def test_closing_the_iterator_closes_the_connection(upstream: Upstream, anthropic_model: Make) -> None:
    """The provider sees it at once, so that it stops generating."""
    upstream.script("m", Reply(stall_after=1))
    async with aclosing(anthropic_model("m").stream(ask())) as deltas:
        while not (await anext(deltas)).text:
            pass
    assert await asyncio.to_thread(upstream.asked[0].wait) == "left"


async def test_silence_ends_the_wait_without_any_gateway(upstream: Upstream, anthropic_model: Make) -> None:
    """Every wait on the network has an end."""
    upstream.script("m", Reply(stall_after=1))
    with pytest.raises(ProviderFailed):
        await answer(anthropic_model("m", silence_s=0.3))
