"""The summarization engine: extracted and written summaries, what is dropped, and what is refused."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.chat import ChatDelta, ChatModel, ChatRequest, Policy
from neuroedge.contract.errors import InvalidInput, Unavailable
from neuroedge.contract.models import Embeddings
from neuroedge.engines.language.summarization import MOST_SENTENCES, Input, Output, Summarization
from tests.fakes import RecordedProgress, make_context

pytestmark = pytest.mark.anyio
EXAMPLE = Summarization.example
assert isinstance(EXAMPLE, Input)
TEXT = EXAMPLE.text


class _Reads:
    """A model of some context."""

    model_id = "writer"

    def __init__(self, context_tokens: int) -> None:
        self.context_tokens = context_tokens


class _Writer:
    """A language model that says one thing; None: it cannot be reached."""

    def __init__(self, answer: str | None, *, context_tokens: int = 8_192) -> None:
        self._answer = answer
        self._reads = _Reads(context_tokens)
        self.read = ""

    async def stream(self, request: ChatRequest, *, policy: Policy = Policy()) -> AsyncGenerator[ChatDelta, None]:
        """The answer in one piece."""
        if self._answer is None:
            raise Unavailable("no model is configured")
        self.read = request.messages[-1].content
        yield ChatDelta(text=self._answer, model="test/writer", finish_reason="stop", prompt_tokens=50)

    async def chosen(self, policy: Policy = Policy()) -> ChatModel:
        """The writer."""
        return self._reads  # type: ignore[return-value]


class _Encoder:
    """Sentences of the same first word are alike."""

    model_id = "first-words"
    dim = 26
    max_tokens = 256

    async def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> Embeddings:
        """A vector per letter."""
        rows = [[float(ord(text[0].lower()) - 97 == i) for i in range(26)] for text in texts]
        return Embeddings(vectors=np.array(rows, np.float32), tokens=[1] * len(texts))


async def _run(text: str = TEXT, *, llm: Any = None, progress: RecordedProgress | None = None, **fields: Any) -> Output:
    ctx = make_context(models={"text_embedding": _Encoder()}, llm=llm, progress=progress)
    return await Summarization(probe=ctx).run(Input(text=text, **fields), ctx)


@pytest.mark.parametrize("similarity", ["words", "meaning"])
async def test_an_extracted_summary_is_the_texts_own_sentences(similarity: str) -> None:
    """In the order of the text, each with its place."""
    told = await _run(sentences=3, similarity=similarity)
    assert [TEXT[s.start : s.end] for s in told.spans] == [sentence.text for sentence in told.sentences]
    assert told.summary == " ".join(sentence.text for sentence in told.sentences)
    assert len(told.sentences) == 3
    assert told.method == ("lexrank-tfidf" if similarity == "words" else "lexrank-embedding")
    assert told.models == ([] if similarity == "words" else ["first-words"])
    assert told.reliable
    assert max(span.score for span in told.spans) == 1


async def test_a_number_of_words_is_kept_to() -> None:
    """And where no sentence is short enough, the shortest is given with a warning."""
    told = await _run(words=25)
    assert 0 < told.n_words_summary <= 25
    long = "This very long sentence about nothing at all has many more words than ten. " * 3
    told = await _run(long, words=10)
    assert len(told.sentences) == 1
    assert any("shortest" in warning for warning in told.warnings)


async def test_what_is_said_twice_is_taken_once() -> None:
    """Maximal marginal relevance."""
    text = "The wall is high. The wall is high. The wall is high. The river by the wall is deep and wide."
    told = await _run(text, sentences=2, balance=0.4)
    assert {sentence.text for sentence in told.sentences} == {
        "The wall is high.",
        "The river by the wall is deep and wide.",
    }


async def test_a_text_of_one_sentence_is_its_own_summary_and_marked() -> None:
    """Nothing is central in it."""
    told = await _run("Only one sentence.")
    assert told.summary == "Only one sentence."
    assert not told.reliable
    assert "too few" in told.warnings[0]


async def test_other_languages_and_scripts_are_summarised() -> None:
    """Hindi with dandas, Chinese without spaces."""
    hindi = "नदी हर साल गाँव में आती है। गाँव नदी के पास एक दीवार चाहता है। दीवार महँगी है। बच्चे स्कूल जाते हैं।"
    assert len((await _run(hindi, sentences=2)).sentences) == 2
    chinese = "北京是中国的首都。中国的首都很大。很多人住在北京。我喜欢猫。"
    told = await _run(chinese, sentences=2)
    assert "猫" not in told.summary


async def test_a_written_summary_rests_on_sentences_of_the_text() -> None:
    """Each written sentence with what holds it."""
    writer = _Writer("The council wants a wall along the river. The wall would cost two million euros.")
    told = await _run(mode="abstractive", sentences=2, llm=writer)
    assert told.method == "llm-checked"
    assert told.models == ["test/writer"]
    assert told.usage.prompt_tokens == 50
    assert TEXT[told.sentences[1].spans[0].start : told.sentences[1].spans[0].end] == (
        "The wall would cost two million euros."
    )
    assert told.dropped == []


async def test_written_sentences_the_text_does_not_hold_are_dropped_and_named() -> None:
    """A wrong sum, an invention; the rest stays."""
    told = await _run(
        mode="abstractive",
        llm=_Writer(
            "- The wall would cost nine million euros.\n- The school supports the wall.\n- Aliens landed in Paris."
        ),
    )
    assert told.summary == "The school supports the wall."
    assert [drop.text for drop in told.dropped] == [
        "The wall would cost nine million euros.",
        "Aliens landed in Paris.",
    ]
    assert "9000000" in told.dropped[0].why
    assert any("dropped" in warning for warning in told.warnings)


@pytest.mark.parametrize(
    ("answer", "why"), [(None, "does not answer"), ("Aliens landed.", "nothing the"), ("", "nothing")]
)
async def test_without_a_faithful_answer_sentences_are_extracted(answer: str | None, why: str) -> None:
    """And the answer says so."""
    told = await _run(mode="abstractive", llm=_Writer(answer))
    assert told.method == "lexrank-tfidf"
    assert told.sentences
    assert any(why in warning for warning in told.warnings)


async def test_a_text_longer_than_the_model_reads_is_shortened_to_what_is_central() -> None:
    """With a warning; progress is told."""
    text = " ".join(f"The wall near house {n} is a big wall by the river." for n in range(200))
    writer, progress = _Writer("The wall near house 3 is a big wall.", context_tokens=1_000), RecordedProgress()
    told = await _run(text, mode="abstractive", llm=writer, progress=progress)
    assert len(writer.read) < len(text) / 3
    assert any("most central" in warning for warning in told.warnings)
    assert [fraction for _, fraction in progress.reports] == sorted(fraction for _, fraction in progress.reports)


@pytest.mark.parametrize("text", ["...", "!?!? --- \n\n", "Yes. " * (MOST_SENTENCES + 1)])
async def test_no_sentences_or_too_many_are_refused(text: str) -> None:
    """With the field's name."""
    with pytest.raises(InvalidInput) as refused:
        await _run(text)
    assert refused.value.errors[0]["loc"] == ["text"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"text": ""},
        {"text": ["a"]},
        {"text": "x" * 200_001},
        {"text": "x", "sentences": 0},
        {"text": "x", "sentences": -3},
        {"text": "x", "words": 5},
        {"text": "x", "sentences": 2, "words": 50},
        {"text": "x", "balance": float("nan")},
        {"text": "x", "min_coverage": 1.5},
        {"text": "x", "mode": "magic"},
    ],
)
def test_bad_input_is_refused(fields: dict[str, Any]) -> None:
    """By the contract, with the field's name."""
    with pytest.raises(ValidationError):
        Input(**fields)
