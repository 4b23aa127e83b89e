"""The official OpenAI SDK against /v1/responses and /v1/completions over a scripted model."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from neuroedge.contract.chat import ChatDelta, TokenLogprob, ToolCallPart
from neuroedge.contract.errors import NotFound, ProviderBroke
from tests.http.openai.scripted import END, Scripted

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}
CALLS = (
    ChatDelta(text="Let me see.", model="scripted/one"),
    ChatDelta(tool_calls=[ToolCallPart(index=0, id="call_a", name="weather", arguments='{"city":')]),
    ChatDelta(tool_calls=[ToolCallPart(index=0, arguments=' "Rome"}')]),
    ChatDelta(tool_calls=[ToolCallPart(index=1, id="call_b", name="weather", arguments="{}")]),
    ChatDelta(finish_reason="tool_calls", prompt_tokens=5, completion_tokens=9),
)


@pytest.fixture
def client(scripted: Scripted) -> Iterator[openai.OpenAI]:
    """The official client."""
    with openai.OpenAI(base_url=f"{scripted.url}/v1", api_key=scripted.token, max_retries=0) as client:
        yield client


def test_a_text_is_answered(client: openai.OpenAI, scripted: Scripted) -> None:
    """With instructions; counts and model are told; nothing is stored."""
    answer = client.responses.create(
        model="auto", input="Hello", instructions="Be brief.", max_output_tokens=9, temperature=0.5, top_p=0.8
    )
    assert answer.output_text == "Hello there"
    assert (answer.status, answer.model) == ("completed", "scripted/one")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (11, 3, 14)
    assert answer.usage.input_tokens_details.cached_tokens == 4
    asked = scripted.llm.request
    assert [(m.role, m.content) for m in asked.messages] == [("system", "Be brief."), ("user", "Hello")]
    assert (asked.max_tokens, asked.temperature, asked.top_p) == (9, 0.5, 0.8)


def test_a_stream_has_the_typed_events(client: openai.OpenAI) -> None:
    """In their order, numbered without a gap."""
    events = list(client.responses.create(model="auto", input="Hello", stream=True))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(10))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "Hello there"
    assert last.response.usage is not None
    assert last.response.usage.total_tokens == 14


def test_functions_are_called_and_answered(client: openai.OpenAI, scripted: Scripted) -> None:
    """Whole and streamed alike; what was called and what it gave go back as turns."""
    scripted.say(*CALLS)
    asked: dict[str, Any] = {"model": "auto", "input": "Hello", "tools": [WEATHER]}
    whole = client.responses.create(**asked, tool_choice={"type": "function", "name": "weather"})
    assert scripted.llm.request.tool_choice == "weather"
    with client.responses.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_response()
    assert kinds.count("response.function_call_arguments.delta") == 3
    assert kinds.count("response.output_item.done") == 3
    for answer in (whole, streamed):
        assert [item.type for item in answer.output] == ["message", "function_call", "function_call"]
        calls = [item for item in answer.output if item.type == "function_call"]
        assert [(c.call_id, c.name, c.arguments) for c in calls] == [
            ("call_a", "weather", '{"city": "Rome"}'),
            ("call_b", "weather", "{}"),
        ]
    results: Any = [{"type": "function_call_output", "call_id": c, "output": "sunny"} for c in ("call_a", "call_b")]
    before: Any = [item.model_dump() for item in whole.output]
    client.responses.create(model="auto", input=[{"role": "user", "content": "Hello"}, *before, *results])
    back = scripted.llm.request.messages
    assert [m.role for m in back] == ["user", "assistant", "tool", "tool"]
    assert (back[1].content, [c.id for c in back[1].tool_calls]) == ("Let me see.", ["call_a", "call_b"])


class City(BaseModel):
    """What is to be filled in."""

    name: str


def test_a_schema_gives_a_parsed_object(client: openai.OpenAI, scripted: Scripted) -> None:
    """The SDK's own parse."""
    scripted.say(ChatDelta(text='{"name": "Rome"}'), END)
    answer = client.responses.parse(model="auto", input="Hello", text_format=City)
    assert answer.output_parsed == City(name="Rome")
    assert scripted.llm.request.json_schema is not None


def test_an_answer_cut_short_is_incomplete(client: openai.OpenAI, scripted: Scripted) -> None:
    """With the reason, whole and streamed."""
    scripted.say(ChatDelta(text="Hel"), ChatDelta(finish_reason="length", prompt_tokens=1, completion_tokens=1))
    whole = client.responses.create(model="auto", input="Hello")
    last = list(client.responses.create(model="auto", input="Hello", stream=True))[-1]
    assert last.type == "response.incomplete"
    for answer in (whole, last.response):
        assert answer.status == "incomplete"
        assert answer.incomplete_details is not None
        assert answer.incomplete_details.reason == "max_output_tokens"


def test_errors_before_and_after_the_first_piece(client: openai.OpenAI, scripted: Scripted) -> None:
    """A status, or an event after what came so far."""
    scripted.say(NotFound("no model x"))
    with pytest.raises(openai.NotFoundError) as missing:
        client.responses.create(model="x", input="Hello", stream=True)
    assert missing.value.code == "model_not_found"
    scripted.say(ChatDelta(text="Hel"), ProviderBroke("the provider broke off"))
    events = list(client.responses.create(model="x", input="Hello", stream=True))
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    failed = events[-1]
    assert failed.type == "response.failed"
    assert failed.response.output_text == "Hel"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"input": []}, "input"),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input.0.content.0"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [{**WEATHER, "parameters": {"type": 3}}]}, "tools.0.parameters"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    ],
)
def test_bad_input_names_the_field(
    client: openai.OpenAI, scripted: Scripted, change: dict[str, Any], param: str
) -> None:
    """400 before any model is asked; what would have to be stored is refused clearly."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="auto", input="Hello", extra_body=change)
    assert refused.value.param == param
    assert scripted.llm.asked == []


def test_a_prompt_is_asked_as_a_users_message(client: openai.OpenAI, scripted: Scripted) -> None:
    """The older API, whole and streamed, with its own shape of logprobs."""
    token = TokenLogprob(token="Hello", logprob=-0.5, top=[("Hello", -0.5)])
    scripted.say(ChatDelta(text="Hello", logprobs=[token], model="scripted/one"), ChatDelta(text=" there"), END)
    whole = client.completions.create(model="auto", prompt=["Say hello"], max_tokens=5, stop="x", logprobs=1)
    assert whole.choices[0].text == "Hello there"
    assert whole.usage is not None
    assert whole.usage.total_tokens == 14
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.tokens == ["Hello"]
    assert whole.choices[0].logprobs.text_offset == [0]
    asked = scripted.llm.request
    assert [(m.role, m.content) for m in asked.messages] == [("user", "Say hello")]
    assert (asked.max_tokens, list(asked.stop), asked.logprobs) == (5, ["x"], 1)
    chunks = list(
        client.completions.create(model="auto", prompt="x", stream=True, stream_options={"include_usage": True})
    )
    assert "".join(c.choices[0].text for c in chunks[:-1]) == "Hello there"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None


@pytest.mark.parametrize(
    "change", [{"prompt": ["a", "b"]}, {"prompt": [1, 2]}, {"n": 2}, {"best_of": 2}, {"echo": True}, {"suffix": "x"}]
)
def test_what_only_a_raw_prompt_could_give_is_refused(client: openai.OpenAI, change: dict[str, Any]) -> None:
    """400 naming the field."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**{"model": "auto", "prompt": "x", **change})
    assert refused.value.param == next(iter(change))
