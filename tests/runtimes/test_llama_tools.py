"""The local LLM as a caller of tools, with logprobs and JSON, several answers at once: real weights."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.chat import ChatDelta, ChatMessage, ChatRequest, Image, Tool, ToolCall, ToolCallPart
from neuroedge.contract.errors import InvalidInput
from neuroedge.runtimes.llama import LlamaChat, load
from neuroedge.runtimes.llama_request import question
from neuroedge.runtimes.llama_tools import CallReader

pytestmark = pytest.mark.anyio

SMALL = "smollm2-135m-instruct"
DEFAULT = "qwen2.5-coder-0.5b-instruct"
WEATHER = Tool(
    name="get_weather",
    description="The weather in a city now",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
TIME = Tool(name="get_time", description="The time now")


class Fruit(BaseModel):
    """An apple."""

    sku: Literal["apple"]


class Basket(BaseModel):
    """One fruit, by reference."""

    model_config = ConfigDict(extra="forbid")
    items: list[Fruit] = Field(min_length=1, max_length=1)


class Branch(BaseModel):
    """A branch that may bear another one."""

    model_config = ConfigDict(extra="forbid")
    leaf: Literal[True]
    branches: list["Branch"] = Field(max_length=1)


BASKET = Tool(name="fill_basket", parameters=Basket.model_json_schema())
GROW = Tool(name="grow", parameters=Branch.model_json_schema())
PEARS = json.loads(json.dumps(Basket.model_json_schema()).replace("apple", "pear"))
"""The schema of a basket, in which Fruit is something else."""
ASKED = ChatMessage(role="user", content="What is the weather in Paris?")


@pytest.fixture(scope="module")
def small(models_dir: Path) -> Iterator[LlamaChat]:
    """A model whose template knows no tools."""
    loaded = load(SMALL, models_dir / SMALL, threads=2, options={"n_ctx": 1024})
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def default(models_dir: Path) -> Iterator[LlamaChat]:
    """A model trained to call tools."""
    loaded = load(DEFAULT, models_dir / DEFAULT, threads=2, options={"n_ctx": 1024})
    yield loaded
    loaded.close()


async def answer(model: LlamaChat, *messages: ChatMessage, **asked: Any) -> list[ChatDelta]:
    """All that comes."""
    return [delta async for delta in model.stream(ChatRequest(messages or [ASKED], **{"max_tokens": 40} | asked))]


def text(deltas: Sequence[ChatDelta]) -> str:
    """The words."""
    return "".join(delta.text for delta in deltas)


def calls(deltas: Sequence[ChatDelta]) -> dict[int, ToolCall]:
    """The calls put together as a client does."""
    made: dict[int, ToolCall] = {}
    for part in (part for delta in deltas for part in delta.tool_calls):
        old = made.get(part.index, ToolCall(id="", name="", arguments=""))
        made[part.index] = ToolCall(
            id=part.id or old.id, name=part.name or old.name, arguments=old.arguments + part.arguments
        )
    return made


def read(pieces: Sequence[str], *tools: Tool) -> tuple[str, str | None, str, CallReader]:
    """Words, the called name and its arguments."""
    reader, words, name, arguments = CallReader(tools), "", None, ""
    for piece in pieces:
        for found in reader.read(piece):
            if isinstance(found, ToolCallPart):
                name, arguments = found.name or name, arguments + found.arguments
            else:
                words += found
    return words + reader.rest(), name, arguments, reader


@pytest.mark.parametrize(
    "written",
    [
        '{"name": "get_weather", "arguments": {"city": "Pa\\"}ris", "in": [{"a": 1}]}}',
        '\n<tool_call>\n{"name":"get_weather","arguments":{"city": "Pa\\"}ris", "in": [{"a": 1}]}}\n</tool_call>',
        '```json\n{ "name": "get_weather",\n "parameters": {"city": "Pa\\"}ris", "in": [{"a": 1}]}}\n``` and more',
    ],
)
async def test_a_call_written_as_json_is_read_however_it_is_cut(written: str) -> None:
    """Whole, by characters, and nothing after it is part of the answer."""
    for size in (len(written), 7, 1):
        pieces = [written[at : at + size] for at in range(0, len(written), size)]
        words, name, arguments, reader = read(pieces, WEATHER)
        assert (words, name) == ("", "get_weather")
        assert json.loads(arguments) == {"city": 'Pa"}ris', "in": [{"a": 1}]}
        assert reader.done


@pytest.mark.parametrize(
    "written",
    [
        "It is sunny.",
        '{"name": "other", "arguments": {}}',
        '{"name": "get_weather"}',
        '```json\n{"city": 1}\n```',
        "```python\nprint()\n```",
        "<b>bold</b>",
        '{"name": "' + "x" * 500,
        "",
    ],
)
async def test_words_stay_words(written: str) -> None:
    """Also those that begin like a call, call no known tool, or end before it is clear."""
    for size in (len(written) or 1, 3):
        words, name, _, reader = read([written[at : at + size] for at in range(0, len(written), size)], WEATHER)
        assert (words, name) == (written, None)
        assert not reader.called


async def test_what_a_model_cannot_do_is_the_callers_error() -> None:
    """Images without vision, a choice without its tool."""
    image = ChatMessage(role="user", content="?", images=[Image(media_type="image/png", data=b"x")])
    with pytest.raises(InvalidInput, match="images"):
        question(ChatRequest([image]), knows_tools=True)
    for choice, tools in (("required", []), ("other", [WEATHER])):
        with pytest.raises(InvalidInput, match="tool_choice"):
            question(ChatRequest([ASKED], tools=tools, tool_choice=choice), knows_tools=True)


async def test_arguments_that_were_no_json_reach_the_template_as_an_object() -> None:
    """Templates need an object; the model still sees what it wrote."""
    said = ChatMessage(
        role="assistant", content="", tool_calls=[ToolCall(id="c1", name="get_weather", arguments="Paris")]
    )
    made = question(ChatRequest([ASKED, said], tools=[WEATHER]), knows_tools=True).body["messages"][1]
    assert json.loads(made["tool_calls"][0]["function"]["arguments"]) == {"not_json": "Paris"}


@pytest.mark.models
async def test_a_required_call_comes_out_of_the_default_model(default: LlamaChat) -> None:
    """The right tool of two, with arguments its schema allows, and the finish reason clients wait for."""
    deltas = await answer(default, tools=[TIME, WEATHER], tool_choice="required")
    (call,) = calls(deltas).values()
    assert call.name == "get_weather"
    assert json.loads(call.arguments) == {"city": "Paris"}
    assert call.id
    assert text(deltas) == ""
    assert deltas[-1].finish_reason == "tool_calls"
    assert (deltas[-1].prompt_tokens or 0) > 150
    assert 10 < (deltas[-1].completion_tokens or 0) < 40


@pytest.mark.models
async def test_the_default_model_calls_by_itself_and_uses_the_result(default: LlamaChat) -> None:
    """With tool_choice auto, its bare JSON is a call; the result goes back in and is heard."""
    deltas = await answer(default, tools=[WEATHER], max_tokens=60)
    (call,) = calls(deltas).values()
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    assert deltas[-1].finish_reason == "tool_calls"
    assert (deltas[-1].completion_tokens or 0) < 30
    result = ChatMessage(role="tool", content="18 degrees and rain", tool_call_id=call.id)
    said = ChatMessage(role="assistant", content="", tool_calls=[call])
    told = text(await answer(default, ASKED, said, result, tools=[WEATHER], tool_choice="none"))
    assert "rain" in told


@pytest.mark.models
async def test_a_template_without_tools_is_told_of_them(small: LlamaChat) -> None:
    """A named tool is called by a model that was never trained for it; its history may hold calls and results."""
    history = [
        ASKED,
        ChatMessage(role="assistant", content="", tool_calls=[ToolCall(id="1", name="get_time", arguments="{}")]),
        ChatMessage(role="tool", content="noon", tool_call_id="1"),
    ]
    deltas = await answer(small, *history, tools=[TIME, WEATHER], tool_choice="get_weather", max_tokens=80)
    (call,) = calls(deltas).values()
    assert call.name == "get_weather"
    assert isinstance(json.loads(call.arguments)["city"], str)
    assert (deltas[-1].prompt_tokens or 0) > 100


def allowed(answer: Any, **asked: Any) -> bool:
    """Whether the grammar of a request allows this answer."""
    body = question(ChatRequest([ASKED], **asked), knows_tools=False).body
    return Draft202012Validator(body["response_format"]["json_schema"]["schema"]).is_valid(answer)


def call_of(tool: Tool, **arguments: Any) -> dict[str, Any]:
    """As a model writes it."""
    return {"name": tool.name, "arguments": arguments}


async def test_schemas_that_refer_to_their_own_parts_stay_apart() -> None:
    """Each keeps its meaning inside the one of the answer, also where another one has a part of the same name."""
    asked: dict[str, Any] = {"tools": [BASKET, GROW], "json_schema": PEARS}
    assert allowed(call_of(BASKET, items=[{"sku": "apple"}]), **asked)
    assert not allowed(call_of(BASKET, items=[{"sku": "pear"}]), **asked)
    assert allowed({"items": [{"sku": "pear"}]}, **asked)
    assert not allowed({"items": [{"sku": "apple"}]}, **asked)
    assert allowed(call_of(GROW, leaf=True, branches=[{"leaf": True, "branches": []}]), **asked)
    assert not allowed(call_of(GROW, leaf=True, branches=[{"leaf": True}]), **asked)
    itself = Tool(name="t", parameters={"properties": {"$ref": {"$ref": "#"}, "is": {"const": {"$ref": "#/x"}}}})
    assert allowed(call_of(itself, **{"$ref": {"is": {"$ref": "#/x"}}}), tools=[itself], tool_choice="t")
    assert not allowed(call_of(itself, **{"$ref": {"is": {"$ref": "#/y"}}}), tools=[itself], tool_choice="t")


@pytest.mark.parametrize("knows_tools", [True, False])
async def test_a_schema_nested_too_deeply_is_the_callers_error(knows_tools: bool) -> None:
    """And no error of ours."""
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(2000):
        deep = {"items": deep}
    asked = ChatRequest([ASKED], tools=[Tool(name="t", parameters=deep)], tool_choice="t")
    with pytest.raises(InvalidInput, match="deeply"):
        question(asked, knows_tools=knows_tools)


@pytest.mark.models
@pytest.mark.parametrize("choice", ["auto", "required", "bad"])
async def test_a_malformed_tool_schema_is_refused_with_the_reason(
    small: LlamaChat, default: LlamaChat, choice: str
) -> None:
    """And the next request is served."""
    bad = Tool(name="bad", parameters={"type": "object", "properties": {"a": {"type": "nonsense"}}})
    for model in (small, default):
        with pytest.raises(InvalidInput, match="nonsense"):
            await answer(model, tools=[bad], tool_choice=choice)
        assert (await answer(model, max_tokens=1))[-1].completion_tokens == 1


@pytest.mark.models
async def test_logprobs_come_with_their_tokens(small: LlamaChat) -> None:
    """Of each token, with as many others as asked: none, or two in order of probability."""
    plain = await answer(small, max_tokens=5)
    for top in (0, 2):
        deltas = await answer(small, max_tokens=5, logprobs=top)
        tokens = [token for delta in deltas for token in delta.logprobs]
        assert "".join(token.token for token in tokens) == text(plain) == text(deltas)
        assert len(tokens) == 5
        assert all(token.logprob <= 0 and len(token.top) == top for token in tokens)
    assert all(token.top[0] == (token.token, token.logprob) for token in tokens)
    assert all(token.top[0][1] >= token.top[1][1] for token in tokens)


@pytest.mark.models
async def test_sampling_options_reach_the_model(small: LlamaChat) -> None:
    """A tiny top_p makes sampling greedy; the model's own temperature varies with the seed; penalties change words."""
    story = ChatMessage(role="user", content="Tell me a story.")
    greedy = text(await answer(small, story))
    assert text(await answer(small, story, temperature=1.5, top_p=0.0001, seed=3)) == greedy
    assert len({text(await answer(small, story, temperature=None, seed=seed)) for seed in (1, 2, 3)}) > 1
    assert text(await answer(small, story, presence_penalty=2.0, frequency_penalty=2.0)) != greedy


@pytest.mark.models
async def test_any_json_object_may_be_asked_for(default: LlamaChat) -> None:
    """Without a schema."""
    asked = ChatMessage(role="user", content="Bob is 3. Give his name and age as a JSON object.")
    assert isinstance(json.loads(text(await answer(default, asked, json_object=True, max_tokens=60))), dict)


@pytest.mark.models
async def test_a_prompt_seen_before_is_not_computed_again(small: LlamaChat) -> None:
    """The cached tokens are counted."""
    asked = ChatMessage(role="user", content="Tell me about the sea. " * 20)
    first, second = [(await answer(small, asked, max_tokens=1))[-1] for _ in range(2)]
    assert first.prompt_tokens == second.prompt_tokens
    assert (second.cached_tokens or 0) > 100 > (first.cached_tokens or 0)


@pytest.mark.models
async def test_several_answers_are_written_at_the_same_time(small: LlamaChat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four begin before one has ended, each says what only it was made to say, and cores are held once."""
    held, server = set[int](), small._server

    class Watching:
        def handle_chat_completions(self, body: Any, on_chunk: Callable[[Any], bool]) -> None:
            def watched(chunk: Any) -> bool:
                held.add(small.surroundings.cores.in_use)
                return on_chunk(chunk)

            server.handle_chat_completions(body, watched)

    monkeypatch.setattr(small, "_server", Watching())
    made_to_say = [f"{name} " * 25 for name in ("one", "two", "three", "four")]
    began: list[str] = []
    began_before_an_end: list[int] = []

    async def said(words: str) -> str:
        spoken = ""
        request = ChatRequest([ASKED], max_tokens=180, json_schema={"const": words})
        async with aclosing(small.stream(request)) as deltas:
            async for delta in deltas:
                if not spoken and delta.text:
                    began.append(words)
                spoken += delta.text
        began_before_an_end.append(len(began))
        return str(json.loads(spoken))

    assert await asyncio.gather(*(said(words) for words in made_to_say)) == made_to_say
    assert min(began_before_an_end) == len(made_to_say)
    assert held == {1}


@pytest.mark.models
async def test_answers_that_do_not_fit_together_wait_for_room(small: LlamaChat) -> None:
    """Three that may take most of the context each are answered one after the other, none is broken off."""
    asked = ChatMessage(role="user", content="Write the word sea. " * 60)
    async with asyncio.timeout(240):
        answers = await asyncio.gather(*(answer(small, asked, max_tokens=400 + n, stop=["sea"]) for n in range(3)))
    assert all(a[-1].finish_reason in ("stop", "length") for a in answers)
    await _until(lambda: small._room._free == small.context_tokens)


@pytest.mark.models
async def test_a_request_that_waits_for_room_leaves_at_once(small: LlamaChat) -> None:
    """It is gone before the one it waits for has ended."""
    story = ChatMessage(role="user", content="Write a very long story about a king.")
    async with aclosing(small.stream(ChatRequest([story], max_tokens=900))) as running:
        await anext(running)
        waiting = asyncio.create_task(answer(small, story, max_tokens=900))
        await _until(lambda: small._room._queue)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await answer(small, max_tokens=1))[-1].completion_tokens == 1
        assert (await anext(running)).finish_reason is None


async def _until(holds: Callable[[], object]) -> None:
    """Wait for what the model's threads bring about."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class _Counting:
    """llama.cpp's server, and how many prompts it had at a time."""

    def __init__(self, server: Any) -> None:
        self._server, self.prompts, self.most = server, set[int](), 0

    def handle_chat_completions(self, body: Any, on_chunk: Callable[[Any], bool]) -> None:
        """Counts until the first chunk."""
        me = threading.get_ident()
        self.prompts.add(me)
        self.most = max(self.most, len(self.prompts))

        def counted(chunk: Any) -> bool:
            self.prompts.discard(me)
            return on_chunk(chunk)

        self._server.handle_chat_completions(body, counted)


@pytest.mark.models
async def test_a_processor_is_given_two_prompts_at_a_time(small: LlamaChat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four asked at once; all are answered, and every turn is given back."""
    counting = _Counting(small._server)
    monkeypatch.setattr(small, "_server", counting)
    asked = [ChatMessage(role="user", content=f"Tell me of the number {n}. " * 12) for n in range(4)]
    async with asyncio.timeout(240):
        answers = await asyncio.gather(*(answer(small, one, max_tokens=2) for one in asked))
    assert [one[-1].completion_tokens for one in answers] == [2] * 4
    assert counting.most == 2
    await _until(lambda: small._prompts._free == small._prompts.units)


@pytest.mark.models
async def test_a_request_that_waits_for_its_prompts_turn_leaves_at_once(small: LlamaChat) -> None:
    """It never reaches llama.cpp, and takes no turn with it."""
    long_ = ChatMessage(role="user", content="Tell me about the sea. " * 100)
    running = [asyncio.create_task(answer(small, long_, max_tokens=1)) for _ in range(2)]
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(answer(small, long_, max_tokens=900))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(240):
        await asyncio.gather(*running)
    await _until(lambda: small._prompts._free == 2)


@pytest.mark.models
@pytest.mark.parametrize("choice", ["required", "fill_basket"])
async def test_a_call_with_a_nested_schema_comes_out_of_a_small_model(small: LlamaChat, choice: str) -> None:
    """Required or named, as pydantic writes its schema."""
    deltas = await answer(small, tools=[BASKET], tool_choice=choice, max_tokens=80)
    (call,) = calls(deltas).values()
    assert Basket.model_validate_json(call.arguments).items[0].sku == "apple"
    assert deltas[-1].finish_reason == "tool_calls"


@pytest.mark.models
async def test_a_schema_that_refers_to_itself_is_one_a_small_model_is_held_to(small: LlamaChat) -> None:
    """However far it gets."""
    (call,) = calls(await answer(small, tools=[GROW], tool_choice="required", max_tokens=60)).values()
    assert "".join(call.arguments.split()).startswith('{"leaf":true,"branches":[')


@pytest.mark.models
async def test_tools_and_an_answer_with_a_nested_schema_go_together(small: LlamaChat) -> None:
    """What comes is a call, or what the schema allows."""
    deltas = await answer(small, tools=[BASKET], json_schema=PEARS, max_tokens=80)
    called = list(calls(deltas).values())
    schema, said = (BASKET.parameters, called[0].arguments) if called else (PEARS, text(deltas))
    assert Draft202012Validator(schema).is_valid(json.loads(said))
