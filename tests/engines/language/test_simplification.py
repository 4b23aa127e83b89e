"""The simplification engine: what gets easier, what is undone, and what is refused."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.chat import ChatDelta, ChatModel, ChatRequest, Policy
from neuroedge.contract.errors import Unavailable
from neuroedge.contract.models import Embeddings
from neuroedge.engines.language.simplification import Input, Output, Simplification
from neuroedge.engines.learning.grade_adaptation import GradeAdaptation
from neuroedge.engines.learning.grade_adaptation import Input as GradeInput
from neuroedge.engines.learning.grade_adaptation import Output as GradeOutput
from neuroedge.kit.parse import ParsedText
from neuroedge.runtimes import entities, text_encoder
from tests.fakes import make_context
from tests.kit.parses import parsed
from tests.kit.test_simplify import WE_AND_THEY

TEXT, PARSE = parsed(WE_AND_THEY)


class _Parser:
    """Knows one sentence."""

    model_id = "by-hand"

    async def parse(self, texts: Sequence[str]) -> list[ParsedText]:
        """The sentence's parse, or an empty one."""
        empty = ParsedText(tokens=(), sentences=(), names=())
        return [PARSE if text == TEXT else empty for text in texts]


class _Encoder:
    """Equal vectors, or opposite ones for what was changed."""

    model_id = "equal"
    dim = 2
    max_tokens = 256

    def __init__(self, *, opposite: bool = False) -> None:
        self._turn = -1.0 if opposite else 1.0
        self._calls = 0

    async def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> Embeddings:
        """Every second call is of the changed texts."""
        self._calls += 1
        sign = self._turn if self._calls % 2 == 0 else 1.0
        vectors = np.array([[sign, 0.0]] * len(texts), np.float32)
        return Embeddings(vectors=vectors, tokens=[1] * len(texts))


class _Writer:
    """A language model that says one thing, or nothing."""

    def __init__(self, answer: str | None) -> None:
        self._answer = answer

    async def stream(self, request: ChatRequest, *, policy: Policy = Policy()) -> AsyncGenerator[ChatDelta, None]:
        """The answer in one piece."""
        if self._answer is None:
            raise Unavailable("no model is configured")
        yield ChatDelta(text=self._answer, model="test/writer", finish_reason="stop", prompt_tokens=5)

    async def chosen(self, policy: Policy = Policy()) -> ChatModel:
        """Not asked for."""
        raise AssertionError


async def _run(text: str = TEXT, *, encoder: Any = None, llm: Any = None, **fields: Any) -> Output:
    models = {"entities": _Parser(), "text_embedding": encoder or _Encoder()}
    ctx = make_context(models=models, llm=llm)
    return await Simplification(probe=ctx).run(Input(text=text, **fields), ctx)


@pytest.mark.anyio
async def test_edits_are_told_and_measured() -> None:
    """Words and splits, with the grade before and after."""
    output = await _run()
    assert output.text == "We quickly used it . The men left the house ."
    assert [(e.kind, e.before, e.after) for e in output.edits] == [
        ("word", "utilized", "used"),
        ("split", ", and the", ". The"),
    ]
    assert output.grade_after is not None
    assert output.grade_before is not None
    assert output.grade_after < output.grade_before
    assert output.cosine == output.cosine_lowest == 1
    assert not output.reliable
    assert any("grades mean little" in w for w in output.warnings)


@pytest.mark.anyio
async def test_a_change_of_meaning_is_undone() -> None:
    """By the cosine of the sentence."""
    output = await _run(encoder=_Encoder(opposite=True))
    assert output.text == TEXT
    assert output.edits == []
    assert any("meaning moved too far" in w for w in output.warnings)


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["...", "Der schnelle braune Fuchs springt über den faulen Hund und läuft zurück."])
async def test_no_words_and_other_languages_are_left_alone(text: str) -> None:
    """Marked unreliable, never changed."""
    output = await _run(text)
    assert output.text == text
    assert output.method == "none"
    assert not output.reliable
    assert output.warnings


@pytest.mark.anyio
async def test_a_language_models_paragraph_is_taken_when_it_keeps_what_must_be() -> None:
    """And told as one edit, with its tokens."""
    output = await _run(method="llm", llm=_Writer("We used it. The men left the house."))
    assert output.text == "We used it. The men left the house."
    assert [e.kind for e in output.edits] == ["rewrite"]
    assert output.method == "llm-checked"
    assert "test/writer" in output.models
    assert output.usage.prompt_tokens == 5


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "why", "fields"),
    [
        ("We did not use it. The men left.", "negations changed", {}),
        ("We used 3 of it. The men left.", "numbers changed", {}),
        ("Notwithstanding considerable reluctance, everybody abandoned the accommodation.", "no easier", {}),
        ("We used it. The men went.", "words to keep are gone: house", {"keep": ["house"]}),
        (None, "does not answer", {}),
        ("", "no easier", {}),
    ],
)
async def test_a_language_model_that_changes_too_much_is_not_believed(
    answer: str | None, why: str, fields: dict[str, Any]
) -> None:
    """The rules' result stands in, with the reason."""
    output = await _run(method="llm", llm=_Writer(answer), **fields)
    assert output.text == "We quickly used it . The men left the house ."
    assert output.method == "plain-words+clause-splitting"
    assert any(why in w for w in output.warnings)


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({}, ("text",)),
        ({"text": ""}, ("text",)),
        ({"text": 5}, ("text",)),
        ({"text": "a" * 20_001}, ("text",)),
        ({"text": "a", "target_grade": -1}, ("target_grade",)),
        ({"text": "a", "target_grade": float("nan")}, ("target_grade",)),
        ({"text": "a", "method": "magic"}, ("method",)),
        ({"text": "a", "keep": ["x"] * 501}, ("keep",)),
        ({"text": "a", "keep": ["\ud800"]}, ("keep", 0)),
        ({"text": "a", "min_cosine": float("inf")}, ("min_cosine",)),
    ],
)
def test_bad_input_names_its_field(payload: dict[str, Any], path: tuple[Any, ...]) -> None:
    """Refused with the path of the field."""
    with pytest.raises(ValidationError) as refused:
        Input.model_validate(payload)
    assert path in [error["loc"] for error in refused.value.errors()]
    with pytest.raises(ValidationError):
        GradeInput.model_validate({**payload, "target_grade": payload.get("target_grade", 0)})


@pytest.fixture(scope="module")
def real(models_dir: Path) -> Iterator[dict[str, Any]]:
    """Parser and encoder as they are shipped."""
    encoder = text_encoder.load("all-minilm-l6-v2-int8", models_dir / "all-minilm-l6-v2-int8", threads=1, options={})
    parser = entities.load("en-core-web-sm", models_dir / "en-core-web-sm", threads=1, options={})
    yield {"text_embedding": encoder, "entities": parser}
    encoder.close()
    parser.close()


@pytest.mark.models
@pytest.mark.anyio
async def test_it_proves_itself_on_its_example(real: dict[str, Any]) -> None:
    """With the shipped models."""
    await Simplification(probe=make_context(models=real)).post_swap_test()


async def _adapt(real: dict[str, Any], **fields: Any) -> GradeOutput:
    async def call(name: str, payload: Any) -> Any:
        assert name == "simplification"
        return await Simplification(probe=ctx).run(payload, ctx)

    ctx = make_context(models=real, call=call)
    return await GradeAdaptation(probe=ctx).run(GradeInput(**fields), ctx)


@pytest.mark.models
@pytest.mark.anyio
async def test_grade_adaptation_hits_its_example(real: dict[str, Any]) -> None:
    """Every formula is given, and the spread between them."""
    example = GradeAdaptation.example
    assert isinstance(example, GradeInput)
    output = await _adapt(real, text=example.text, target_grade=example.target_grade)
    assert output.hit
    assert output.grade_median is not None
    assert abs(output.grade_median - 7) <= 1
    assert set(output.grade) == {"flesch_kincaid", "dale_chall", "spache", "smog"}
    assert output.spread is not None
    assert output.spread > 0
    assert output.rounds
    assert not output.reliable


@pytest.mark.models
@pytest.mark.anyio
async def test_thousands_of_sentences_are_simplified(real: dict[str, Any]) -> None:
    """As long as a text may be; a huge word among them."""
    text = ("We commenced early, and the men left the house. " * 500)[:19_000] + " " + "x" * 900
    output = await _adapt(real, text=text, target_grade=2)
    assert len(output.rounds) >= 1
    assert "commenced" not in output.text


@pytest.mark.anyio
async def test_a_text_that_is_easy_already_is_not_made_harder() -> None:
    """No model is asked."""
    text = "The cat sat on the mat. The dog ran to the cat. The cat ran up a tree and the dog was sad. " * 3
    ctx = make_context()
    easy = await GradeAdaptation(probe=ctx).run(GradeInput(text=text, target_grade=9), ctx)
    assert (easy.hit, easy.text, easy.rounds) == (False, text, [])
    assert "not made harder" in (easy.reason or "")
    foreign = await GradeAdaptation(probe=ctx).run(
        GradeInput(text="Der schnelle braune Fuchs springt über den faulen Hund und läuft zurück.", target_grade=3), ctx
    )
    assert not foreign.hit
    assert "does not look English" in (foreign.reason or "")
    none = await GradeAdaptation(probe=ctx).run(GradeInput(text="?!", target_grade=3), ctx)
    assert none.grade_median is None
