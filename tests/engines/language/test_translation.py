"""The translation engine: by a real (if tiny) model, by a language model, and what is refused or marked."""

from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from neuroedge.contract.chat import ChatDelta, ChatModel, ChatRequest, Policy
from neuroedge.contract.errors import InvalidInput, ModelUnavailable, Unavailable
from neuroedge.engines.language.translation import Input, Output, Translation
from neuroedge.runtimes.translation import CTranslate2Translator, load
from tests.dictionary_translator import write_argos
from tests.fakes import make_context

pytestmark = pytest.mark.anyio
WORDS = {
    "the": "das",
    "house": "Haus",
    "is": "ist",
    "big": "groß",
    "cell": "Zelle",
    "9": "9",
    "XQ0": "XQ0",
    "XQ1": "weg",
    "of": "von",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CTranslate2Translator]:
    """A real CTranslate2 model in an Argos package; it knows eight words."""
    folder = tmp_path_factory.mktemp("nmt")
    write_argos(folder, WORDS, source="en", target="de")
    opened = load("nmt-en-de", folder, threads=1, options={"compute_type": "float32"})
    yield opened
    opened.close()


class _Speaker:
    """A language model that answers by a function; None: it cannot be reached."""

    def __init__(self, answer: Callable[[str], str] | None) -> None:
        self._answer = answer
        self.asked: list[str] = []

    async def stream(self, request: ChatRequest, *, policy: Policy = Policy()) -> AsyncGenerator[ChatDelta, None]:
        """The answer to the last message."""
        if self._answer is None:
            raise Unavailable("no model is configured")
        self.asked.append(request.messages[-1].content)
        text = self._answer(self.asked[-1])
        yield ChatDelta(text=text, model="test/speaker", finish_reason="stop", prompt_tokens=7, completion_tokens=3)

    async def chosen(self, policy: Policy = Policy()) -> ChatModel:
        """Not asked for."""
        raise AssertionError


async def _run(text: str, *, by: Any = None, llm: Any = None, **fields: Any) -> Output:
    ctx = make_context(models={} if by is None else {"translation": by}, llm=llm)
    given = {"source": "en", "target": "de", **fields}
    return await Translation(probe=ctx).run(Input(text=text, **given), ctx)


async def test_a_model_of_the_pair_translates_and_keeps_the_formatting(model: CTranslate2Translator) -> None:
    """Heading, list, blank lines and code stay; the model's id and score are told."""
    told = await _run("# the house\n\n- big house is big\n```\nthe code\n```\n", by=model)
    assert told.text == "# das Haus\n\n- groß Haus ist groß\n```\nthe code\n```\n"
    assert (told.method, told.models, told.n_parts) == ("nmt-ctranslate2", ["nmt-en-de"], 2)
    assert told.score is not None
    assert told.reliable, told.warnings


async def test_terms_are_forced_by_marks(model: CTranslate2Translator) -> None:
    """The model copies the mark; the term stands where it was."""
    told = await _run("the Cell is big", by=model, terms=[{"source": "cell", "target": "Zellkörper"}])
    assert told.text == "das Zellkörper ist groß"
    assert [use.model_dump() for use in told.terms] == [
        {"source": "cell", "target": "Zellkörper", "found": 1, "used": 1}
    ]
    assert told.n_pieced == 0


async def test_where_marks_get_lost_the_text_between_them_is_translated(model: CTranslate2Translator) -> None:
    """The model knows one mark only, joined to nothing; nothing is lost all the same."""
    told = await _run("the **house** is {size} big", by=model)
    assert told.text == "das **Haus** ist {size} groß"
    assert told.n_pieced == 1
    assert any("piece by piece" in warning for warning in told.warnings)


async def test_a_lost_number_is_named(model: CTranslate2Translator) -> None:
    """The model does not know 17 in letters; the answer is marked."""
    speaker = _Speaker(lambda text: "Das Haus hat siebzehn große Zimmer und einen Garten.")
    told = await _run("The house has 17 big rooms and a garden.", llm=speaker)
    assert told.numbers_lost == ["17"]
    assert not told.reliable


async def test_a_language_model_translates_where_no_model_serves_the_pair(model: CTranslate2Translator) -> None:
    """It names itself, with its tokens; marks go through it."""
    speaker = _Speaker(lambda text: "पेड़ों की पत्तियाँ ⟦0⟧ से भोजन बनाती हैं।")
    terms = [{"source": "sunlight", "target": "सूर्य का प्रकाश"}]
    told = await _run("The leaves of trees make food from sunlight.", by=model, llm=speaker, target="hi", terms=terms)
    assert told.text == "पेड़ों की पत्तियाँ सूर्य का प्रकाश से भोजन बनाती हैं।"
    assert (told.method, told.models) == ("llm", ["test/speaker"])
    assert told.usage.prompt_tokens == 7
    assert not told.reliable
    assert len(told.warnings) == 1, "nothing that was checked is wrong"
    assert "language model" in told.warnings[0]
    assert speaker.asked == ["The leaves of trees make food from ⟦0⟧."]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda text: text, "the text itself"),
        (lambda text: "", "empty"),
        (lambda text: "नमस्ते दुनिया यह एक लंबा वाक्य है और कुछ नहीं।", "looks like"),
        (lambda text: "Das Haus. " * 40, "times as long"),
    ],
)
async def test_what_is_no_translation_is_marked(answer: Callable[[str], str], why: str) -> None:
    """Copied, empty, in another language, endless."""
    told = await _run("The children walk to the old school in the morning.", llm=_Speaker(answer))
    assert not told.reliable
    assert any(why in warning for warning in told.warnings), told.warnings


async def test_a_term_the_language_model_left_out_is_put_back_piece_by_piece() -> None:
    """Between the marks it is asked again."""
    speaker = _Speaker(lambda text: "etwas")
    told = await _run("Use {key} daily.", llm=speaker)
    assert told.text == "etwas {key} etwas"
    assert speaker.asked == ["Use ⟦0⟧ daily.", "Use", "daily."]


async def test_no_model_for_a_pair_names_the_command_that_gets_one(model: CTranslate2Translator) -> None:
    """Where nmt was asked for, and where no language model answers either."""
    with pytest.raises(ModelUnavailable, match="no model for this pair: en to hi") as told:
        await _run("the house", by=model, target="hi", method="nmt")
    assert "neuroedge models pull nmt-en-hi" in (told.value.hint or "")
    with pytest.raises(ModelUnavailable, match="no language model answers") as told:
        await _run("the house", llm=_Speaker(None), target="hi")
    assert "neuroedge models pull nmt-en-hi" in (told.value.hint or "")


async def test_the_language_is_told_where_it_was_not_given(model: CTranslate2Translator) -> None:
    """With its probability; a text that tells none is refused, and one in the language already stays."""
    text = "the house of the cell is big"
    told = await _run(text, by=model, source=None)
    assert (told.src, told.text) == ("en", "das Haus von das Zelle ist groß")
    assert told.src_p < 1
    same = await _run("Das Haus ist sehr groß und alt.", source=None)
    assert (same.method, same.text) == ("none", "Das Haus ist sehr groß und alt.")
    with pytest.raises(InvalidInput) as refused:
        await _run("OK 42", source=None)
    assert refused.value.errors[0]["loc"] == ["source"]


async def test_a_text_without_words_is_given_back() -> None:
    """Nobody is asked."""
    told = await _run("42 + 1 = 43\n---\n", llm=_Speaker(None))
    assert told.text == "42 + 1 = 43\n---\n"
    assert not told.reliable
    assert "no words" in told.warnings[-1]


async def test_languages_nobody_knows_and_too_many_sentences_are_refused(model: CTranslate2Translator) -> None:
    """With the field's name."""
    with pytest.raises(InvalidInput) as refused:
        await _run("the house", llm=_Speaker(str), target="qqq")
    assert refused.value.errors[0]["loc"] == ["target"]
    with pytest.raises(InvalidInput, match="1200 sentences"):
        await _run("big house.\n" * 1200, by=model)


async def test_health_is_degraded_without_a_translation_model(model: CTranslate2Translator) -> None:
    """And says what would mend it."""
    health = await Translation(probe=make_context()).health()
    assert (health.status, health.method) == ("degraded", "llm")
    assert "neuroedge models pull" in (health.detail or "")
    assert (await Translation(probe=make_context(models={"translation": model})).health()).status == "ready"


@pytest.mark.parametrize(
    "fields",
    [
        {"target": "de"},
        {"text": "x"},
        {"text": "", "target": "de"},
        {"text": "x" * 20_001, "target": "de"},
        {"text": 5, "target": "de"},
        {"text": "x", "target": "German"},
        {"text": "x", "target": "de", "method": "magic"},
        {"text": "x", "target": "de", "terms": [{"source": ""}]},
        {"text": "x", "target": "de", "terms": [{"source": "a", "colour": "b"}]},
        {"text": "x", "target": "de", "terms": [{"source": "a"}] * 501},
    ],
)
def test_bad_input_is_refused(fields: dict[str, Any]) -> None:
    """By the contract, with the field's name."""
    with pytest.raises(ValidationError):
        Input(**fields)


def test_a_model_of_the_test_is_a_real_one(tmp_path: Path) -> None:
    """Weights, vocabulary and pieces are files of the format."""
    write_argos(tmp_path, WORDS, source="en", target="de")
    assert (tmp_path / "model" / "model.bin").stat().st_size > 10_000
    assert (tmp_path / "sentencepiece.model").stat().st_size > 0
