"""The local LLM with its real weights: streaming, cancelling, limits."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest

from neuroedge.contract.chat import ChatDelta, ChatMessage, ChatRequest
from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.runtimes.llama import LlamaChat, load

SMALL = "smollm2-135m-instruct"


def ask(text: str) -> list[ChatMessage]:
    """A conversation of one question."""
    return [ChatMessage(role="user", content=text)]


@pytest.fixture(scope="module")
def llm(models_dir: Path) -> Iterator[LlamaChat]:
    """The small model with a short context."""
    loaded = load(SMALL, models_dir / SMALL, threads=2, options={"n_ctx": 1024})
    yield loaded
    loaded.close()


def test_a_missing_or_broken_file_is_reported_with_the_remedy(tmp_path: Path) -> None:
    """Neither an empty folder nor other bytes are a model."""
    with pytest.raises(ModelUnavailable, match="missing") as caught:
        load("m", tmp_path, threads=1, options={})
    assert caught.value.hint is not None
    (tmp_path / "model.gguf").write_bytes(b"no model" * 1000)
    with pytest.raises(ModelUnavailable, match="does not load"):
        load("m", tmp_path, threads=1, options={})


@pytest.mark.models
@pytest.mark.anyio
async def test_an_answer_streams_and_ends_with_its_token_counts(llm: LlamaChat) -> None:
    """Several pieces, then the finish reason with the counts."""
    deltas = [delta async for delta in llm.stream(ChatRequest(ask("Count from one to twenty."), max_tokens=12))]
    assert len([d for d in deltas if d.text]) > 3
    last = deltas[-1]
    assert last.finish_reason == "length"
    assert last.completion_tokens == 12
    assert last.prompt_tokens is not None
    assert last.prompt_tokens > 5


@pytest.mark.models
@pytest.mark.anyio
async def test_the_same_seed_gives_the_same_answer(llm: LlamaChat) -> None:
    """Sampling is reproducible, and another seed differs."""

    async def sampled(seed: int) -> str:
        deltas = llm.stream(ChatRequest(ask("Tell me a story."), max_tokens=30, temperature=1.0, seed=seed))
        return "".join([d.text async for d in deltas])

    assert await sampled(1) == await sampled(1) != await sampled(2)


@pytest.mark.models
@pytest.mark.anyio
async def test_a_stop_string_ends_the_answer_before_it(llm: LlamaChat) -> None:
    """The stop string itself is not given out."""
    deltas = [d async for d in llm.stream(ChatRequest(ask("Write: one, two, three, four"), max_tokens=60, stop=[","]))]
    assert "," not in "".join(d.text for d in deltas)
    assert deltas[-1].finish_reason == "stop"


@pytest.mark.models
@pytest.mark.anyio
async def test_a_schema_constrains_the_answer(llm: LlamaChat) -> None:
    """Even a small model then writes valid JSON."""
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    deltas = llm.stream(ChatRequest(ask("Bob is 3 years old. Give name and age."), max_tokens=80, json_schema=schema))
    answer = json.loads("".join([d.text async for d in deltas]))
    assert set(answer) == {"name", "age"}
    assert isinstance(answer["age"], int)


class _Counting:
    """llama.cpp's server, and how many chunks it had for each request."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.chunks: list[int] = []
        self.ended = 0

    def handle_chat_completions(self, body: Any, on_chunk: Callable[[Any], bool]) -> None:
        """Counts."""
        at = len(self.chunks)
        self.chunks.append(0)

        def counted(chunk: Any) -> bool:
            self.chunks[at] += 1
            return on_chunk(chunk)

        self._server.handle_chat_completions(body, counted)
        self.ended += 1

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for what llama.cpp's threads bring about."""
        async with asyncio.timeout(120):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.fixture
def counting(llm: LlamaChat, monkeypatch: pytest.MonkeyPatch) -> _Counting:
    """Between the model and llama.cpp."""
    counting = _Counting(llm._server)
    monkeypatch.setattr(llm, "_server", counting)
    return counting


@pytest.mark.models
@pytest.mark.anyio
async def test_closing_the_stream_stops_the_generation(llm: LlamaChat, counting: _Counting) -> None:
    """The next request does not wait for hundreds of unwanted tokens."""
    async with aclosing(llm.stream(ChatRequest(ask("Write a long story about a king."), max_tokens=900))) as deltas:
        async for _ in deltas:
            break
    written = counting.chunks[0]
    assert [d async for d in llm.stream(ChatRequest(ask("Hi"), max_tokens=1))]
    await counting.until(lambda: counting.ended == 2)
    # One that was on its way when the stream was closed, and the one that is told to end.
    assert counting.chunks[0] <= written + 2


@pytest.mark.models
@pytest.mark.anyio
async def test_cancelling_the_task_stops_the_generation(llm: LlamaChat, counting: _Counting) -> None:
    """A caller who left costs nothing, even while others wait in the queue."""

    async def read() -> list[ChatDelta]:
        return [d async for d in llm.stream(ChatRequest(ask("Write a very long story about a queen."), max_tokens=900))]

    running, waiting = asyncio.create_task(read()), asyncio.create_task(read())
    await counting.until(lambda: counting.chunks and counting.chunks[0])
    running.cancel()
    waiting.cancel()
    results = await asyncio.gather(running, waiting, return_exceptions=True)
    assert all(isinstance(r, asyncio.CancelledError) for r in results)
    written = counting.chunks[0]
    assert [d async for d in llm.stream(ChatRequest(ask("Hi"), max_tokens=1))]
    await counting.until(lambda: counting.ended == 2)  # the one that waited never came to llama.cpp
    assert len(counting.chunks) == 2
    assert counting.chunks[0] <= written + 2


@pytest.mark.models
@pytest.mark.anyio
async def test_a_prompt_beyond_the_context_is_the_callers_error(llm: LlamaChat) -> None:
    """422 with the numbers and what to do."""
    with pytest.raises(InvalidInput, match="1024") as caught:
        async for _ in llm.stream(ChatRequest(ask("word " * 3000), max_tokens=5)):
            pass
    assert caught.value.hint is not None


@pytest.mark.models
@pytest.mark.anyio
async def test_tokens_are_counted_while_an_answer_is_written(llm: LlamaChat) -> None:
    """Counting does not wait for the generation."""
    async with aclosing(llm.stream(ChatRequest(ask("Write a long story."), max_tokens=900))) as deltas:
        async for _ in deltas:
            assert await llm.count_tokens("") == 0
            short, long = await llm.count_tokens("hello there"), await llm.count_tokens("hello there " * 10)
            break
    assert 2 <= short <= 4
    assert 8 * short <= long <= 11 * short


@pytest.mark.models
def test_loading_is_quiet_and_closing_frees_the_memory(models_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing on stdout or stderr; the weights leave the process."""
    process = psutil.Process()
    loaded = load(SMALL, models_dir / SMALL, threads=1, options={})
    held = process.memory_info().rss
    loaded.close()
    assert held - process.memory_info().rss > 50_000_000
    assert capfd.readouterr() == ("", "")
