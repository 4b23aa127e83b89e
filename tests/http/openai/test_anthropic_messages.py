"""The official Anthropic SDK against /v1/messages over a scripted model."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
from PIL import Image

from neuroedge.contract.chat import ChatDelta, ToolCallPart
from neuroedge.contract.errors import (
    BudgetExceeded,
    ContextTooLong,
    NotFound,
    Overloaded,
    ProviderBroke,
    ProviderFailed,
    Unavailable,
)
from tests.http.openai.scripted import END, Scripted

HELLO: Any = [{"role": "user", "content": "Hello"}]
WEATHER: Any = {
    "name": "weather",
    "description": "Of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALLS = (
    ChatDelta(text="Let me see.", model="scripted/one"),
    ChatDelta(tool_calls=[ToolCallPart(index=0, id="call_a", name="weather")]),
    ChatDelta(tool_calls=[ToolCallPart(index=0, arguments='{"city":')]),
    ChatDelta(tool_calls=[ToolCallPart(index=0, arguments=' "Rome"}')]),
    ChatDelta(tool_calls=[ToolCallPart(index=1, id="call_b", name="weather", arguments='{"city": "Oslo"}')]),
    ChatDelta(finish_reason="tool_calls", prompt_tokens=5, completion_tokens=9),
)


@pytest.fixture
def client(scripted: Scripted) -> Iterator[anthropic.Anthropic]:
    """The official client."""
    with anthropic.Anthropic(base_url=scripted.url, auth_token=scripted.token, api_key=None, max_retries=0) as client:
        yield client


def test_an_answer_with_its_counts_and_headers(client: anthropic.Anthropic, scripted: Scripted) -> None:
    """Text, who answered, token counts, request id, rate limit."""
    raw = client.messages.with_raw_response.create(
        model="auto",
        max_tokens=50,
        messages=HELLO,
        system=[{"type": "text", "text": "Be brief."}],
        stop_sequences=["x"],
        extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 3},
        metadata={"user_id": "u"},
    )
    answer = raw.parse()
    assert [block.text for block in answer.content if block.type == "text"] == ["Hello there"]
    assert (answer.model, answer.stop_reason, answer.role) == ("scripted/one", "end_turn", "assistant")
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens, answer.usage.output_tokens) == (7, 4, 3)
    assert raw.headers["request-id"] == raw.headers["x-request-id"]
    assert raw.headers["anthropic-ratelimit-requests-limit"] == "100"
    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "99"
    assert raw.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    asked = scripted.llm.request
    assert [(m.role, m.content) for m in asked.messages] == [("system", "Be brief."), ("user", "Hello")]
    assert (asked.max_tokens, asked.temperature, asked.top_p, list(asked.stop)) == (50, 0.5, 0.9, ["x"])


def test_a_stream_has_anthropics_events(client: anthropic.Anthropic) -> None:
    """In their order; the SDK puts the same message together."""
    events = list(client.messages.create(model="auto", max_tokens=50, messages=HELLO, stream=True))
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    with client.messages.stream(model="auto", max_tokens=50, messages=HELLO) as stream:
        assert "".join(stream.text_stream) == "Hello there"
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    assert (final.usage.input_tokens, final.usage.output_tokens) == (7, 3)


def test_tools_are_offered_used_and_answered(client: anthropic.Anthropic, scripted: Scripted) -> None:
    """Two calls after words, whole and streamed alike; their results go back as turns of tools."""
    scripted.say(*CALLS)
    asked: dict[str, Any] = {"model": "auto", "max_tokens": 50, "messages": HELLO, "tools": [WEATHER]}
    whole = client.messages.create(**asked, tool_choice={"type": "any"})
    assert scripted.llm.request.tool_choice == "required"
    with client.messages.stream(**asked, tool_choice={"type": "tool", "name": "weather"}) as stream:
        streamed = stream.get_final_message()
    assert scripted.llm.request.tool_choice == "weather"
    for answer in (whole, streamed):
        assert answer.stop_reason == "tool_use"
        assert [block.type for block in answer.content] == ["text", "tool_use", "tool_use"]
        used = [block for block in answer.content if block.type == "tool_use"]
        assert [(u.id, u.name, u.input) for u in used] == [
            ("call_a", "weather", {"city": "Rome"}),
            ("call_b", "weather", {"city": "Oslo"}),
        ]
    results: Any = [
        {"type": "tool_result", "tool_use_id": "call_a", "content": [{"type": "text", "text": "sunny"}]},
        {"type": "tool_result", "tool_use_id": "call_b", "content": "no such city", "is_error": True},
        {"type": "text", "text": "And now?"},
    ]
    turns: Any = [*HELLO, {"role": "assistant", "content": whole.content}, {"role": "user", "content": results}]
    client.messages.create(model="auto", max_tokens=50, messages=turns, tools=[WEATHER])
    back = scripted.llm.request.messages
    assert [(m.role, m.content, m.tool_call_id) for m in back] == [
        ("user", "Hello", None),
        ("assistant", "Let me see.", None),
        ("tool", "sunny", "call_a"),
        ("tool", "Error: no such city", "call_b"),
        ("user", "And now?", None),
    ]


def test_a_picture_reaches_the_model(client: anthropic.Anthropic, scripted: Scripted) -> None:
    """In base64."""
    data = io.BytesIO()
    Image.new("RGB", (2, 3), "red").save(data, "PNG")
    source: Any = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(data.getvalue()).decode()}
    turn: Any = {"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "?"}]}
    client.messages.create(model="auto", max_tokens=5, messages=[turn])
    assert scripted.llm.request.messages[0].images[0].data == data.getvalue()


def test_tokens_are_counted_without_asking_a_model(client: anthropic.Anthropic, scripted: Scripted) -> None:
    """Words of all turns, of the system and of the tools."""
    few = client.messages.count_tokens(model="auto", messages=HELLO).input_tokens
    more = client.messages.count_tokens(model="auto", messages=HELLO, system="Be very brief.", tools=[WEATHER])
    assert 0 < few < more.input_tokens
    assert scripted.llm.asked == []


ERRORS = [
    (NotFound("no model x"), anthropic.NotFoundError, "not_found_error"),
    (ContextTooLong("too long"), anthropic.BadRequestError, "invalid_request_error"),
    (BudgetExceeded("spent"), anthropic.APIStatusError, "billing_error"),
    (Overloaded("full", retry_after_s=9), anthropic.RateLimitError, "rate_limit_error"),
    (Unavailable("away"), anthropic.InternalServerError, "overloaded_error"),
    (ProviderFailed("failed"), anthropic.InternalServerError, "api_error"),
    (RuntimeError("a secret of ours"), anthropic.InternalServerError, "api_error"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("error", "kind", "name"), ERRORS)
def test_errors_before_the_first_piece_have_a_status(
    client: anthropic.Anthropic,
    scripted: Scripted,
    error: Exception,
    kind: type[anthropic.APIStatusError],
    name: str,
    stream: bool,
) -> None:
    """The SDK raises the class it has for them, streamed or not."""
    scripted.say(error)
    with pytest.raises(kind) as raised:
        client.messages.create(model="x", max_tokens=5, messages=HELLO, stream=stream)
    body: Any = raised.value.body
    assert (body["type"], body["error"]["type"]) == ("error", name)
    assert "secret" not in str(body)
    assert raised.value.request_id
    if isinstance(error, Overloaded):
        assert raised.value.response.headers["retry-after"] == "9"


def test_an_error_after_the_first_piece_is_an_event(client: anthropic.Anthropic, scripted: Scripted) -> None:
    """What came so far was given; the SDK raises."""
    scripted.say(ChatDelta(text="Hel"), ProviderBroke("the provider broke off"))
    events = client.messages.create(model="x", max_tokens=5, messages=HELLO, stream=True)
    kinds = [next(events).type for _ in range(3)]
    assert kinds == ["message_start", "content_block_start", "content_block_delta"]
    with pytest.raises(anthropic.APIStatusError, match="broke off"):
        next(events)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 2}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages.0.content.0"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": {}}]}]},
            "tool_use",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0"),
        ({"tools": [{**WEATHER, "input_schema": {"type": "nothing"}}]}, "tools.0.parameters"),
        ({"tool_choice": {"type": "tool", "name": "nobody"}}, "tool_choice"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
    ],
)
def test_bad_input_names_the_field(
    client: anthropic.Anthropic, scripted: Scripted, change: dict[str, Any], place: str
) -> None:
    """400 before any model is asked."""
    with pytest.raises(anthropic.BadRequestError, match=place):
        client.messages.create(model="auto", max_tokens=5, messages=HELLO, extra_body=change)
    assert scripted.llm.asked == []


def test_a_body_that_is_none_and_one_too_large(scripted: Scripted) -> None:
    """In Anthropic's shape."""
    headers = {"Authorization": f"Bearer {scripted.token}", "Content-Type": "application/json"}
    for body, status, kind in ((b"{", 400, "invalid_request_error"), (b"x" * 1_000_001, 413, "request_too_large")):
        answer = httpx.post(f"{scripted.url}/v1/messages", content=body, headers=headers, timeout=60)
        assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    nobody = httpx.post(f"{scripted.url}/v1/messages", content=b"x" * 1_000_001, timeout=60)
    assert (nobody.status_code, nobody.json()["error"]["type"]) == (401, "authentication_error")


def test_an_answer_without_words_has_no_block(client: anthropic.Anthropic, scripted: Scripted) -> None:
    """Whole and streamed."""
    scripted.say(END)
    assert client.messages.create(model="x", max_tokens=5, messages=HELLO).content == []
    with client.messages.stream(model="x", max_tokens=5, messages=HELLO) as stream:
        assert stream.get_final_message().content == []
