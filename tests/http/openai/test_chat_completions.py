"""The official OpenAI SDK against /v1/chat/completions over a scripted model: every field, every event, every error."""

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
from PIL import Image
from pydantic import BaseModel

from neuroedge.contract.chat import ChatDelta, TokenLogprob, ToolCallPart
from neuroedge.contract.errors import (
    BudgetExceeded,
    ContentBlocked,
    ContextTooLong,
    NeuroEdgeError,
    NotFound,
    Overloaded,
    ProviderBroke,
    ProviderFailed,
    Unavailable,
)
from tests.http.openai.scripted import END, Scripted

HELLO: Any = [{"role": "user", "content": "Hello"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALLS = (
    ChatDelta(text="Let me see.", model="scripted/one"),
    ChatDelta(tool_calls=[ToolCallPart(index=0, id="call_a", name="weather")]),
    ChatDelta(tool_calls=[ToolCallPart(index=0, arguments='{"city":')]),
    ChatDelta(tool_calls=[ToolCallPart(index=0, arguments=' "Rome"}')]),
    ChatDelta(tool_calls=[ToolCallPart(index=1, name="weather", arguments='{"city": "Oslo"}')]),
    ChatDelta(finish_reason="tool_calls", prompt_tokens=5, completion_tokens=9),
)


@pytest.fixture
def client(scripted: Scripted) -> Iterator[openai.OpenAI]:
    """The official client."""
    with openai.OpenAI(base_url=f"{scripted.url}/v1", api_key=scripted.token, max_retries=0) as client:
        yield client


def test_an_answer_with_its_counts_and_headers(client: openai.OpenAI, scripted: Scripted) -> None:
    """Text, who answered, token counts, request id, rate limit."""
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=HELLO)
    answer = raw.parse()
    assert answer.choices[0].message.content == "Hello there"
    assert (answer.model, answer.choices[0].finish_reason) == ("scripted/one", "stop")
    assert answer.usage is not None
    assert answer.usage.model_dump(include={"prompt_tokens", "completion_tokens", "total_tokens"}) == {
        "prompt_tokens": 11,
        "completion_tokens": 3,
        "total_tokens": 14,
    }
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 4
    assert raw.headers["x-request-id"]
    assert raw.headers["x-ratelimit-limit-requests"] == "100"
    assert raw.headers["x-ratelimit-remaining-requests"] == "99"
    assert raw.headers["x-ratelimit-reset-requests"] == "7s"
    assert scripted.llm.policy.model is None


def test_a_stream_has_openais_chunks(client: openai.OpenAI, scripted: Scripted) -> None:
    """Role first, words, the reason it ended, the usage, [DONE]."""
    stream = client.chat.completions.create(
        model="scripted/one", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == "Hello there"
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None, None, None, "stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 14
    assert len({(c.id, c.created, c.model, c.object) for c in chunks}) == 1
    assert scripted.llm.policy.model == "scripted/one"


def test_the_stream_ends_with_done(scripted: Scripted) -> None:
    """On the wire; without include_usage no chunk tells of usage."""
    body = {"model": "auto", "messages": HELLO, "stream": True}
    answer = httpx.post(f"{scripted.url}/v1/chat/completions", json=body, headers=_bearer(scripted), timeout=60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert "usage" not in answer.text
    assert all(line == "" or line.startswith("data: ") for line in answer.text.splitlines())


def _bearer(scripted: Scripted) -> dict[str, str]:
    return {"Authorization": f"Bearer {scripted.token}"}


def test_every_field_reaches_the_model(client: openai.OpenAI, scripted: Scripted) -> None:
    """Sampling, limits, stops, seed, logprobs; what is OpenAI's alone is ignored, also what nobody knows."""
    client.chat.completions.create(
        model="auto",
        messages=[{"role": "developer", "content": "Be brief."}, *HELLO],
        temperature=0.3,
        top_p=0.9,
        presence_penalty=0.1,
        frequency_penalty=-0.2,
        max_completion_tokens=77,
        seed=5,
        stop=["a", "b"],
        n=1,
        logprobs=True,
        top_logprobs=2,
        user="somebody",
        metadata={"k": "v"},
        parallel_tool_calls=False,
        service_tier="auto",
        extra_body={"nobody_knows": {"deep": [1]}, "neuroedge": {"local_only": True, "prefer": "cost"}},
    )
    asked = scripted.llm.request
    assert [(m.role, m.content) for m in asked.messages] == [("system", "Be brief."), ("user", "Hello")]
    assert (asked.temperature, asked.top_p, asked.presence_penalty, asked.frequency_penalty) == (0.3, 0.9, 0.1, -0.2)
    assert (asked.max_tokens, asked.seed, list(asked.stop), asked.logprobs) == (77, 5, ["a", "b"], 2)
    assert scripted.llm.policy.local_only
    assert scripted.llm.policy.prefer == "cost"


def test_tools_are_offered_called_and_answered(client: openai.OpenAI, scripted: Scripted) -> None:
    """Two calls in one answer, whole and streamed; a call without an id gets one; their results go back."""
    scripted.say(*CALLS)
    asked: dict[str, Any] = {"model": "auto", "messages": HELLO, "tools": [WEATHER]}
    answer = client.chat.completions.create(**asked, tool_choice="required")
    message = answer.choices[0].message
    assert scripted.llm.request.tool_choice == "required"
    assert scripted.llm.request.tools[0].parameters == WEATHER["function"]["parameters"]
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = [call for call in message.tool_calls or [] if call.type == "function"]
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Rome", "Oslo"]
    assert calls[0].id == "call_a"
    assert calls[1].id.startswith("call_")
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion().choices[0].message
    assert final.content == "Let me see."
    assert [call.function.arguments for call in final.tool_calls or []] == ['{"city": "Rome"}', '{"city": "Oslo"}']
    results: Any = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in calls]
    client.chat.completions.create(model="auto", messages=[*HELLO, message, *results])  # type: ignore[list-item]
    back = scripted.llm.request.messages
    assert [m.role for m in back] == ["user", "assistant", "tool", "tool"]
    assert [c.id for c in back[1].tool_calls] == [m.tool_call_id for m in back[2:]]
    named: Any = {"type": "function", "function": {"name": "weather"}}
    client.chat.completions.create(**asked, tool_choice=named)
    assert scripted.llm.request.tool_choice == "weather"


class City(BaseModel):
    """What is to be filled in."""

    name: str
    people: int


def test_a_schema_gives_a_parsed_object(client: openai.OpenAI, scripted: Scripted) -> None:
    """The SDK's own parse, and any JSON object."""
    scripted.say(ChatDelta(text='{"name": "Rome", '), ChatDelta(text='"people": 3}'), END)
    answer = client.chat.completions.parse(model="auto", messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Rome", people=3)
    schema = scripted.llm.request.json_schema
    assert schema is not None
    assert set(schema["properties"]) == {"name", "people"}
    client.chat.completions.create(model="auto", messages=HELLO, response_format={"type": "json_object"})
    assert scripted.llm.request.json_object
    assert scripted.llm.request.json_schema is None


def test_logprobs_where_the_model_gives_them(client: openai.OpenAI, scripted: Scripted) -> None:
    """Whole and streamed, with the bytes and the alternatives."""
    token = TokenLogprob(token="ä", logprob=-0.5, top=[("ä", -0.5), ("a", -1.5)])
    scripted.say(ChatDelta(text="ä", logprobs=[token]), END)
    asked: dict[str, Any] = {"model": "auto", "messages": HELLO, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**asked).choices[0].logprobs
    streamed = [c.choices[0].logprobs for c in client.chat.completions.create(**asked, stream=True)]
    for found in (whole, next(f for f in streamed if f)):
        assert found is not None
        assert found.content is not None
        assert (found.content[0].token, found.content[0].bytes) == ("ä", [195, 164])
        assert [top.logprob for top in found.content[0].top_logprobs] == [-0.5, -1.5]


def _png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (2, 3), "red").save(data, "PNG")
    return data.getvalue()


def _with_picture(url: str) -> Any:
    return [
        {"role": "user", "content": [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]}
    ]


def test_a_picture_reaches_the_model_as_what_its_bytes_are(client: openai.OpenAI, scripted: Scripted) -> None:
    """Whatever type the data URL claims."""
    url = f"data:image/jpeg;base64,{base64.b64encode(_png()).decode()}"
    client.chat.completions.create(model="auto", messages=_with_picture(url))
    (picture,) = scripted.llm.request.messages[0].images
    assert (picture.media_type, picture.data) == ("image/png", _png())


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": _with_picture("https://example.org/a.png")}, "messages.0.content.1.image_url.url"),
        ({"messages": _with_picture("data:image/png;base64,!!!")}, "messages.0.content.1.image_url.url"),
        ({"messages": _with_picture(f"data:image/png;base64,{base64.b64encode(b'no picture').decode()}")}, None),
        ({"messages": _with_picture(f"data:image/png;base64,{base64.b64encode(_png()[:20]).decode()}")}, None),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages.0.content.0",
        ),
        ({"n": 2}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"model": " "}, "model"),
        ({"model": "x" * 300}, "model"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"tools": [{"type": "function", "function": {"name": "no name!"}}]}, "tools.0.function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "wrong"}}}]},
            "tools.0.function.parameters",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
            "tools.0.function.parameters",
        ),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice.function.name"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": 7}}}},
            "response_format.json_schema.schema",
        ),
        ({"neuroedge": {"prefer": "luck"}}, "neuroedge.prefer"),
    ],
)
def test_bad_input_names_the_field(
    client: openai.OpenAI, scripted: Scripted, change: dict[str, Any], param: str | None
) -> None:
    """400 before any model is asked."""
    asked: dict[str, Any] = {"model": "auto", "messages": HELLO}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**asked, extra_body=change)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert refused.value.request_id
    assert scripted.llm.asked == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"model": "a", "model": "b"}', b'{"model": NaN}', b"\xff", b"[" * 9999]
)
def test_a_body_that_is_no_json_object_is_400(scripted: Scripted, body: bytes) -> None:
    """In OpenAI's shape."""
    headers = {**_bearer(scripted), "Content-Type": "application/json"}
    answer = httpx.post(f"{scripted.url}/v1/chat/completions", content=body, headers=headers, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_body_too_large_is_refused_in_openais_shape(scripted: Scripted) -> None:
    """413; without a token 401, unread."""
    body = b'{"model": "' + b"x" * 10**6 + b'"}'
    headers = {**_bearer(scripted), "Content-Type": "application/json"}
    answer = httpx.post(f"{scripted.url}/v1/chat/completions", content=body, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    nobody = httpx.post(f"{scripted.url}/v1/chat/completions", content=body, timeout=60)
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (401, "invalid_api_key")


ERRORS = [
    (NotFound("no model x"), openai.NotFoundError, "model_not_found"),
    (ContextTooLong("too long"), openai.BadRequestError, "context_length_exceeded"),
    (ContentBlocked("blocked"), openai.BadRequestError, "content_policy_violation"),
    (BudgetExceeded("spent"), openai.RateLimitError, "insufficient_quota"),
    (Overloaded("full", retry_after_s=9), openai.RateLimitError, "rate_limit_exceeded"),
    (Unavailable("away"), openai.InternalServerError, "unavailable"),
    (ProviderFailed("failed"), openai.InternalServerError, "provider_failed"),
    (RuntimeError("a secret of ours"), openai.InternalServerError, "internal"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("error", "kind", "code"), ERRORS)
def test_errors_before_the_first_piece_have_a_status(
    client: openai.OpenAI,
    scripted: Scripted,
    error: Exception,
    kind: type[openai.APIStatusError],
    code: str,
    stream: bool,
) -> None:
    """The SDK raises the class it has for them, streamed or not; a defect tells nothing internal."""
    scripted.say(error)
    with pytest.raises(kind) as raised:
        client.chat.completions.create(model="x", messages=HELLO, stream=stream)
    assert raised.value.code == code
    assert "secret" not in raised.value.message
    if isinstance(error, Overloaded):
        assert raised.value.response.headers["retry-after"] == "9"
    if isinstance(error, BudgetExceeded):
        assert raised.value.response.headers["x-should-retry"] == "false"
    assert scripted.llm.closed.wait(60)


def test_an_error_after_the_first_piece_is_an_event(client: openai.OpenAI, scripted: Scripted) -> None:
    """What came so far was given; the SDK raises; nothing follows."""
    scripted.say(ChatDelta(text="Hel"), ProviderBroke("the provider broke off"))
    chunks = client.chat.completions.create(model="x", messages=HELLO, stream=True)
    got = [next(chunks).choices[0].delta.content for _ in range(2)]
    with pytest.raises(openai.APIError, match="broke off") as raised:
        next(chunks)
    assert got == ["", "Hel"]
    assert raised.value.code == "provider_broke"
    body = {"model": "x", "messages": HELLO, "stream": True}
    wire = httpx.post(f"{scripted.url}/v1/chat/completions", json=body, headers=_bearer(scripted), timeout=60).text
    assert "[DONE]" not in wire
    scripted.say(ChatDelta(text="Hel"), RuntimeError("a secret of ours"))
    wire = httpx.post(f"{scripted.url}/v1/chat/completions", json=body, headers=_bearer(scripted), timeout=60).text
    assert '"code":"internal"' in wire
    assert "secret" not in wire
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="x", messages=HELLO)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_leaves_ends_the_generation(scripted: Scripted, stream: bool, begun: bool) -> None:
    """Before the first piece and in the middle."""
    held = threading.Event()
    scripted.say(*([ChatDelta(text="a")] if begun else []), held, END)
    with _asked(scripted, stream=stream):
        assert scripted.llm.waiting.wait(60)
    assert scripted.llm.closed.wait(60)
    assert not held.is_set()


@contextmanager
def _asked(scripted: Scripted, *, stream: bool) -> Iterator[None]:
    """A client that has sent its request and reads nothing; after the block it is gone."""
    host, port = scripted.url.removeprefix("http://").split(":")
    body = json.dumps({"model": "x", "messages": HELLO, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {scripted.token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        yield


def test_pieces_are_sent_as_they_come(client: openai.OpenAI, scripted: Scripted) -> None:
    """The first is read while the model still waits for leave to go on."""
    held = threading.Event()
    scripted.say(ChatDelta(text="first"), held, ChatDelta(text="second"), END)
    texts = []
    for chunk in client.chat.completions.create(model="x", messages=HELLO, stream=True):
        if chunk.choices[0].delta.content:
            texts.append(chunk.choices[0].delta.content)
            held.set()
    assert texts == ["first", "second"]


def test_a_client_that_does_not_read_is_given_up(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its buffers fill, and the generation does not wait for it for ever."""
    monkeypatch.setattr("neuroedge.http.chat_answer.UNREAD_S", 0.3)
    scripted.say(*[ChatDelta(text="x" * 65536)] * 2000, END)
    with _asked(scripted, stream=True):
        assert scripted.llm.closed.wait(60)


def test_a_client_that_reads_slowly_gets_everything(scripted: Scripted) -> None:
    """Nothing is dropped, and other callers do not wait for it."""
    pieces = [ChatDelta(text="~" * 10_000)] * 50
    scripted.say(*pieces, END)
    body = {"model": "x", "messages": HELLO, "stream": True}
    size = 0
    url, headers = f"{scripted.url}/v1/chat/completions", _bearer(scripted)
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
        for n, part in enumerate(answer.iter_bytes(4096)):
            size += part.count(b"~")
            if n % 20 == 0:
                time.sleep(0.01)
    assert size == 500_000


def test_nobody_gets_in_without_a_key(scripted: Scripted) -> None:
    """The SDK's AuthenticationError."""
    with (
        openai.OpenAI(base_url=f"{scripted.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        client.chat.completions.create(model="x", messages=HELLO)
    assert refused.value.code == "invalid_api_key"


def test_an_answer_without_words_is_an_empty_one(client: openai.OpenAI, scripted: Scripted) -> None:
    """Also of a model that says nothing at all."""
    scripted.say(END)
    assert client.chat.completions.create(model="x", messages=HELLO).choices[0].message.content == ""
    scripted.say()
    chunks = list(client.chat.completions.create(model="x", messages=HELLO, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_known_error_is_told_with_its_hint(client: openai.OpenAI, scripted: Scripted) -> None:
    """These clients show nothing but the message."""
    scripted.say(NeuroEdgeError("it failed", hint="turn it off and on"))
    with pytest.raises(openai.InternalServerError, match=r"it failed \(turn it off and on\)"):
        client.chat.completions.create(model="x", messages=HELLO)
