"""The artifact engine with a scripted model: every type there and back, one repair, and what never passes for right."""

import hashlib
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from neuroedge.contract.chat import ChatDelta, ChatRequest
from neuroedge.contract.errors import ContextTooLong, InvalidInput
from neuroedge.engines.language.artifact import (
    MAX_CHARACTERS,
    ArtifactEngine,
    Input,
    Material,
    Output,
)
from neuroedge.kit.artifact_checks import SLIDES_SCHEMA, TABLE_SCHEMA
from tests.fakes import RecordedProgress, make_context

pytestmark = pytest.mark.anyio
PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
SLIDES = {"title": "Pumps", "slides": [{"title": "Why", "bullets": ["a"], "notes": ""}]}
TABLE = {"columns": ["pump", "hours"], "rows": [["1", "20"], ["2", "4"]]}


class Scripted:
    """A ChatModel that gives one answer after the other; keeps what it was asked."""

    model_id = "scripted"

    def __init__(self, *answers: str, finish: str = "stop", context_tokens: int = 4096) -> None:
        self.answers = list(answers)
        self.finish: Any = finish
        self.context_tokens = context_tokens
        self.asked: list[ChatRequest] = []

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """The next answer in pieces of ten characters."""
        self.asked.append(request)
        text = self.answers.pop(0)
        for start in range(0, len(text), 10):
            yield ChatDelta(text=text[start : start + 10], model="local/scripted")
        yield ChatDelta(finish_reason=self.finish, prompt_tokens=100, completion_tokens=5)

    async def count_tokens(self, text: str) -> int:
        """One token a word."""
        return len(text.split())


async def _made(llm: Scripted, *, progress: RecordedProgress | None = None, **order: Any) -> Output:
    order = {"instruction": "Write it.", **order}
    ctx = make_context(models={"chat": llm}, progress=progress)
    return await ArtifactEngine(probe=ctx).run(Input(**order), ctx)


@pytest.mark.parametrize(
    ("order", "answer", "content", "schema"),
    [
        ({"type": "document"}, "# A\n\nText.", "# A\n\nText.\n", None),
        ({"type": "code", "format": "Python"}, "```python\nx = 1\n```", "x = 1\n", None),
        ({"type": "diagram"}, "flowchart TD\nA --> B", "flowchart TD\nA --> B\n", None),
        ({"type": "table"}, json.dumps(TABLE), "pump,hours\n1,20\n2,4\n", TABLE_SCHEMA),
        (
            {"type": "table", "format": "json"},
            json.dumps(TABLE),
            json.dumps([{"pump": "1", "hours": "20"}, {"pump": "2", "hours": "4"}], indent=2),
            TABLE_SCHEMA,
        ),
        ({"type": "json", "json_schema": PERSON}, '{"age": 36}', '{\n  "age": 36\n}', PERSON),
        ({"type": "slides"}, json.dumps(SLIDES), json.dumps(SLIDES, indent=2), SLIDES_SCHEMA),
    ],
)
async def test_every_type_there_and_back(order: dict[str, Any], answer: str, content: str, schema: Any) -> None:
    """Written, opened, found right at the first try; constrained where a schema can be."""
    llm = Scripted(answer)
    made = await _made(llm, **order)
    assert (made.artifact, made.valid, made.attempts, made.version) == (content, True, 1, 1)
    assert made.sha256 == hashlib.sha256(content.encode()).hexdigest()
    assert made.checks
    assert all(check.ok for check in made.checks)
    assert llm.asked[0].json_schema == schema
    assert made.method == ("schema-constrained" if schema else "format-instructed")
    assert made.models == ["local/scripted"]
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (100, 5)


async def test_a_failed_check_is_repaired_once() -> None:
    """The model sees its draft and what was wrong; tokens of both drafts are counted."""
    llm = Scripted("def f(:", "def f():\n    return 1")
    progress = RecordedProgress()
    made = await _made(llm, type="code", format="python", progress=progress)
    assert (made.valid, made.attempts, made.artifact) == (True, 2, "def f():\n    return 1\n")
    roles = [(message.role, message.content) for message in llm.asked[1].messages[2:]]
    assert roles[0] == ("assistant", "def f(:")
    assert "parses: line 1" in roles[1][1]
    assert made.usage.prompt_tokens == 200
    stages = [stage for stage, _ in progress.reports]
    assert stages == ["draft", "check", "repair", "check"]
    assert all(0 <= fraction <= 1 for _, fraction in progress.reports)


@pytest.mark.parametrize(
    ("answers", "kept"),
    [
        (["a,b", "still no JSON"], "still no JSON"),
        ([json.dumps({"columns": ["a", "b"], "rows": [["1"]]}), "{}"], "{}"),
    ],
)
async def test_what_fails_twice_is_returned_as_invalid(answers: Sequence[str], kept: str) -> None:
    """With its checks, after two drafts and no third."""
    llm = Scripted(*answers)
    made = await _made(llm, type="table")
    assert (made.valid, made.attempts, made.artifact) == (False, 2, kept)
    assert any(check.ok is False for check in made.checks)
    assert llm.answers == []


async def test_the_better_draft_is_kept() -> None:
    """A repair that fails in more ways than the draft does not replace it."""
    slide = {"title": "", "bullets": [], "notes": ""}
    llm = Scripted(
        json.dumps({"title": "x", "slides": [{**slide, "title": "a"}]}), json.dumps({"title": "x", "slides": [slide]})
    )
    made = await _made(llm, type="slides", slides=2)
    assert json.loads(made.artifact)["slides"][0]["title"] == "a"
    assert [check.name for check in made.checks if check.ok is False] == ["count"]


async def test_what_was_cut_off_is_not_valid() -> None:
    """Though it parses: the model had more to say."""
    made = await _made(Scripted("x = 1", "x = 2", finish="length"), type="code", format="python")
    assert not made.valid
    assert {check.name: check.ok for check in made.checks} == {"parses": True, "complete": False}


async def test_a_model_that_does_not_stop_is_stopped() -> None:
    """At the most characters an artifact may have."""
    endless = "word " * (MAX_CHARACTERS // 5 + 100)
    made = await _made(Scripted(endless, endless, context_tokens=10**7), type="document", max_tokens=32_768)
    assert not made.valid
    assert len(made.artifact) <= MAX_CHARACTERS + 1


async def test_material_that_does_not_fit_is_left_out_and_counted() -> None:
    """From the end; the instruction and the present version must fit."""
    llm = Scripted("Text.")
    texts = [Material(text="word " * 60, title=f"t{n}") for n in range(5)]
    made = await _made(llm, type="document", context=texts, max_tokens=100)
    assert made.context_used == 5
    llm = Scripted("Text.", context_tokens=380)
    made = await _made(llm, type="document", context=texts, max_tokens=100)
    assert made.context_used == 2
    asked = llm.asked[0].messages[1].content
    assert "[2] t1: word" in asked
    assert "t2" not in asked
    assert llm.asked[0].max_tokens == 100
    with pytest.raises(ContextTooLong):
        await _made(Scripted(context_tokens=200), type="document", present="word " * 300)


async def test_a_repair_that_does_not_fit_is_not_tried() -> None:
    """The draft stays, invalid."""
    made = await _made(Scripted("def f(: " + "x " * 150, context_tokens=240), type="code", format="python")
    assert (made.valid, made.attempts) == (False, 1)


async def test_a_change_shows_the_present_version() -> None:
    """The model gets it whole, and the number counts on."""
    llm = Scripted("# New")
    made = await _made(llm, type="document", present="# Old", version=3, instruction="Rename it.")
    assert (made.version, made.title) == (4, "New")
    assert "# Old" in llm.asked[0].messages[1].content
    assert llm.asked[0].messages[1].content.endswith("Rename it.")


@pytest.mark.parametrize(
    "order",
    [
        {"type": "film"},
        {"type": "code"},
        {"type": "document", "format": "html"},
        {"type": "document", "json_schema": {}},
        {"type": "json", "slides": 2},
        {"type": "slides", "slides": 0},
        {"type": "json", "instruction": ""},
        {"type": "json", "max_tokens": 10**9},
    ],
)
async def test_what_does_not_go_together_is_refused(order: dict[str, Any]) -> None:
    """Before any model is asked."""
    with pytest.raises(ValidationError):
        Input(**{"instruction": "x", **order})


async def test_a_schema_that_is_none_is_refused() -> None:
    """Before any model is asked."""
    llm = Scripted()
    with pytest.raises(InvalidInput, match="objekt"):
        await _made(llm, type="json", json_schema={"type": "objekt"})
    assert llm.asked == []
