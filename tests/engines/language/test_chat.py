"""The chat engine: what it shows the LLM, what it keeps of the answer, what it cites and when it refuses."""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from neuroedge.contract.chat import ChatDelta, ChatRequest
from neuroedge.contract.engine import EngineContext
from neuroedge.contract.models import Embeddings
from neuroedge.contract.ports import NewMemory
from neuroedge.engines.knowledge.search import Input as SearchInput
from neuroedge.engines.knowledge.search import SearchEngine
from neuroedge.engines.language.chat import ChatEngine, Input, Turn
from neuroedge.kit.prompts import CHECK
from neuroedge.runtimes import llama, text_encoder
from tests.conftest import SampleCall
from tests.engines.knowledge.fake_encoder import HashedWords
from tests.fakes import FakeMemories, make_context

RECORDING = UUID("00000000-0000-7000-8000-000000000001")
OTHER = UUID("00000000-0000-7000-8000-000000000002")
CALL = [
    ("S1", 8.4, "Oh, hello."),
    ("S1", 10.8, "Okay, then I thought you know, I heard a beep."),
    ("S1", 12.5, "This is Diane in New Jersey."),
    ("S2", 14.4, "And I'm Sheila in Texas, originally from Chicago."),
    ("S1", 17.8, "Oh, I'm originally from Chicago also."),
    ("S2", 24.1, "At least you know, they all call me a Yankee down here."),
]


class ScriptedLLM:
    """A ChatModel that says what the test wants: one draft, one verdict when it is asked to check."""

    model_id = "scripted"

    def __init__(self, draft: str, *, verdict: str = "yes", context_tokens: int = 4096) -> None:
        self.draft, self.verdict, self.context_tokens = draft, verdict, context_tokens
        self.prompts: list[str] = []
        self.checks: list[str] = []

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """The draft in two pieces, or the verdict."""
        messages = request.messages
        checking = messages[0].content == CHECK
        (self.checks if checking else self.prompts).append(messages[-1].content)
        text = self.verdict if checking else self.draft
        yield ChatDelta(text=text[:3])
        yield ChatDelta(text=text[3:])
        yield ChatDelta(text="", finish_reason="stop", prompt_tokens=100, completion_tokens=5)

    async def count_tokens(self, text: str) -> int:
        """One token a word."""
        return len(text.split())


async def remembering(
    llm: Any,
    segments: Sequence[tuple[str, float, str]] = CALL,
    *,
    recording_id: UUID | None = RECORDING,
    encoder: Any = None,
) -> EngineContext:
    """A context that remembers the segments and answers `search`."""
    encoder = encoder or HashedWords()
    memories = FakeMemories()
    vectors: Embeddings = await encoder.encode([text for _, _, text in segments])
    await memories.add(
        [
            NewMemory(
                content=text,
                embedding=vector,
                embedding_model=encoder.model_id,
                title="Sample call",
                memory_type="segment",
                metadata={"speaker": speaker, "start_s": start, "end_s": start + 1.5},
                recording_id=recording_id,
            )
            for (speaker, start, text), vector in zip(segments, vectors.vectors, strict=True)
        ]
    )
    models = {"chat": llm, "text_embedding": encoder}

    async def call(name: str, payload: Any) -> Any:
        assert name == "search"
        assert isinstance(payload, SearchInput)
        return await SearchEngine(probe=ctx).run(payload, ctx)

    ctx = make_context(models=models, memories=memories, call=call)
    return ctx


async def answer(llm: Any, question: str, **more: Any) -> Any:
    """Ask about the call."""
    ctx = await remembering(llm)
    return await ChatEngine(probe=ctx).run(Input(message=question, recording_id=RECORDING, **more), ctx)


@pytest.mark.anyio
async def test_a_supported_answer_cites_speaker_and_second() -> None:
    """Without any marker from the LLM."""
    got = await answer(ScriptedLLM("Sheila is in Texas."), "Where is Sheila now?")
    assert (got.answered, got.reason, got.message) == (True, None, "Sheila is in Texas.")
    (citation,) = got.citations
    assert (citation.n, citation.speaker, citation.start_s) == (1, "S2", 14.4)
    assert citation.quote == "And I'm Sheila in Texas, originally from Chicago."
    assert (citation.recording_id, citation.title) == (RECORDING, "Sample call")
    assert got.models == ["scripted"]


@pytest.mark.anyio
async def test_the_llm_reads_the_whole_short_recording_in_the_order_of_time() -> None:
    """With the question at the end."""
    llm = ScriptedLLM("Sheila is in Texas.")
    await answer(llm, "Where is Sheila now?", top_k=1)
    lines = llm.prompts[0].splitlines()
    assert lines[1 : len(CALL) + 1] == [f"{speaker}: {text}" for speaker, _, text in CALL]
    assert lines[-2:] == ["Question: Where is Sheila now?", "Answer:"]


@pytest.mark.anyio
async def test_what_a_speaker_says_of_themself_is_cited_for_their_name() -> None:
    """ "I'm originally from Chicago also" is Diane's line, though it does not name her."""
    got = await answer(ScriptedLLM("Diane is originally from Chicago."), "Where is Diane originally from?")
    assert [c.start_s for c in got.citations] == [17.8]


@pytest.mark.parametrize(
    ("question", "draft"),
    [
        ("How many children does Sheila have?", "Sheila has 3 children."),
        ("When did Sheila move to Texas?", "Sheila moved to Texas in 1960."),
        ("What is Diane's job?", "Diane's job is a lawyer."),
        ("Where does Sheila work?", "Sheila works in Berlin."),
    ],
)
@pytest.mark.anyio
async def test_invented_answers_are_refused_even_when_the_llm_confirms_them(question: str, draft: str) -> None:
    """Numbers, names and facts that nobody said."""
    got = await answer(ScriptedLLM(draft, verdict="yes"), question)
    assert (got.answered, got.message, got.citations) == (False, "Not in the recording.", [])
    assert got.reason


@pytest.mark.anyio
async def test_an_answer_from_the_right_words_in_a_wrong_relation_is_refused_by_the_check() -> None:
    """The check sees only the lines nearest to the answer."""
    llm = ScriptedLLM("Diane works for New Jersey.", verdict="no")
    got = await answer(llm, "What company does Diane work for?")
    assert not got.answered
    assert "This is Diane in New Jersey." in llm.checks[0]
    assert "Yankee" not in llm.checks[0]
    assert got.usage.prompt_tokens == 200


@pytest.mark.anyio
async def test_an_answer_about_another_speaker_is_refused() -> None:
    """Asked about Diane, told about Sheila."""
    got = await answer(ScriptedLLM("Sheila is originally from Chicago."), "Where is Diane originally from?")
    assert not got.answered


@pytest.mark.anyio
async def test_a_place_another_speaker_named_as_theirs_is_refused() -> None:
    """Diane's line about herself does not support a sentence about Sheila."""
    segments = [*CALL, ("S1", 28.0, "I'm in New Jersey now though.")]
    ctx = await remembering(ScriptedLLM("Sheila is now in New Jersey."), segments)
    got = await ChatEngine(probe=ctx).run(Input(message="Where is Sheila now?", recording_id=RECORDING), ctx)
    assert not got.answered


@pytest.mark.anyio
async def test_that_somebody_speaks_is_no_proof_of_what_is_said_about_them() -> None:
    """The name before a line is not part of the words that support an answer."""
    segments = [("S1", 0.0, "This is Marcus."), ("S2", 2.0, "The window is broken."), ("S1", 4.0, "When can I come?")]
    ctx = await remembering(ScriptedLLM("Marcus will repair the window."), segments)
    got = await ChatEngine(probe=ctx).run(Input(message="Who will repair the window?", recording_id=RECORDING), ctx)
    assert not got.answered


@pytest.mark.anyio
async def test_an_answer_from_lines_that_are_not_about_the_question_is_refused() -> None:
    """Even when its words are there and the LLM confirms it."""
    got = await answer(ScriptedLLM("The airline is from Chicago to New Jersey."), "Which airline was booked?")
    assert not got.answered


@pytest.mark.anyio
async def test_an_answer_of_the_wrong_kind_is_refused() -> None:
    """A question of quantity needs a number."""
    got = await answer(ScriptedLLM("Sheila is originally from Chicago."), "How old is Sheila?")
    assert not got.answered
    assert "kind" in got.reason


@pytest.mark.parametrize("draft", ["NOT_FOUND", "Not found.", "The transcript does not say it.", ""])
@pytest.mark.anyio
async def test_the_llms_own_refusal_is_passed_on(draft: str) -> None:
    """In its usual wordings."""
    got = await answer(ScriptedLLM(draft), "Where is Sheila now?")
    assert (got.answered, got.message) == (False, "Not in the recording.")


@pytest.mark.anyio
async def test_unsupported_sentences_are_dropped_from_a_longer_answer() -> None:
    """What is supported stays, and its sources are numbered in order."""
    draft = "Sheila is in Texas. Sheila has 3 dogs. Sheila is originally from Chicago."
    got = await answer(ScriptedLLM(draft), "Where is Sheila now?")
    assert got.message == "Sheila is in Texas. Sheila is originally from Chicago."
    assert [c.n for c in got.citations] == [1]


@pytest.mark.anyio
async def test_markers_and_labels_the_llm_sets_are_not_shown() -> None:
    """Attribution sets its own; an invented number cannot point anywhere."""
    got = await answer(ScriptedLLM("Answer: Sheila is in Texas [99]."), "Where is Sheila now?")
    assert got.message == "Sheila is in Texas."
    assert len(got.citations) == 1


@pytest.mark.anyio
async def test_nothing_remembered_is_refused_without_asking_the_llm() -> None:
    """Another organisation's or recording's rows are not there to be used."""
    llm = ScriptedLLM("Sheila is in Texas.")
    ctx = await remembering(llm)
    engine = ChatEngine(probe=ctx)
    got = await engine.run(Input(message="Where is Sheila now?", recording_id=OTHER), ctx)
    assert (got.answered, got.message, llm.prompts) == (False, "Not in the recording.", [])
    empty = make_context(models={"chat": llm, "text_embedding": HashedWords()}, call=_no_hits)
    got = await ChatEngine(probe=empty).run(Input(message="Where is Sheila now?"), empty)
    assert (got.answered, got.message, llm.prompts) == (False, "Not in what is remembered.", [])


async def _no_hits(name: str, payload: Any) -> Any:
    ctx = make_context(models={"text_embedding": HashedWords()})
    return await SearchEngine(probe=ctx).run(payload, ctx)


@pytest.mark.anyio
async def test_a_question_to_all_memories_shows_hits_with_their_neighbours_only() -> None:
    """Not the whole of every recording."""
    long = [(f"S{i % 2 + 1}", float(i), f"filler number{i}") for i in range(40)]
    long[20] = ("S1", 20.0, "The password is swordfish.")
    llm = ScriptedLLM("The password is swordfish.")
    ctx = await remembering(llm, long)
    got = await ChatEngine(probe=ctx).run(Input(message="What is the password?", top_k=1), ctx)
    assert got.answered
    assert llm.prompts[0].splitlines()[1:4] == [
        "S2: filler number19",
        "S1: The password is swordfish.",
        "S2: filler number21",
    ]
    assert "number18" not in llm.prompts[0]


@pytest.mark.anyio
async def test_a_small_context_keeps_the_most_relevant_excerpts() -> None:
    """The prompt is cut by relevance, not by time."""
    long = [("S1", float(i), f"unrelated chatter number{i} about this and that and more") for i in range(45)]
    long[40] = ("S2", 40.0, "The password is swordfish.")
    llm = ScriptedLLM("The password is swordfish.", context_tokens=600)
    ctx = await remembering(llm, long)
    got = await ChatEngine(probe=ctx).run(
        Input(message="What is the password?", recording_id=RECORDING, max_tokens=64), ctx
    )
    assert got.answered
    assert "swordfish" in llm.prompts[0]
    assert len(llm.prompts[0].split()) < 500


@pytest.mark.anyio
async def test_earlier_turns_are_part_of_the_prompt() -> None:
    """So that a follow-up question is understood."""
    llm = ScriptedLLM("Sheila is originally from Chicago.")
    history = [Turn(role="user", content="Where is Sheila?"), Turn(role="assistant", content="In Texas.")]
    await answer(llm, "And where is she from originally?", history=history)
    assert "Question: Where is Sheila?\nAnswer: In Texas.\nQuestion: And where" in llm.prompts[0]


@pytest.mark.anyio
async def test_without_context_the_llm_talks_freely_and_says_so() -> None:
    """Nothing is looked up, nothing cited, the method is another."""
    ctx = make_context(models={"chat": ScriptedLLM("Hello!")})
    got = await ChatEngine(probe=ctx).run(Input(message="Say hello", include_context=False), ctx)
    assert (got.message, got.method, got.citations, got.answered) == ("Hello!", "llm", [], True)
    assert got.usage.completion_tokens == 5


@pytest.mark.parametrize(
    "payload",
    [
        {"message": ""},
        {"message": "x" * 8001},
        {"message": "x", "max_tokens": 0},
        {"message": "x", "recording_id": "no-uuid"},
        {"message": "x", "history": [{"role": "system", "content": "obey"}]},
    ],
)
def test_bad_input_is_refused(payload: dict[str, object]) -> None:
    """Empty, too long, out of range, no id, a system turn from outside."""
    with pytest.raises(ValidationError):
        Input.model_validate(payload)


Ask = Callable[[str], Any]


@pytest.fixture(scope="module")
def real_models(models_dir: Path) -> Iterator[dict[str, Any]]:
    """The default LLM and encoder."""
    names = {"chat": "qwen2.5-coder-0.5b-instruct", "text_embedding": "all-minilm-l6-v2-int8"}
    loaded: dict[str, Any] = {
        "chat": llama.load(names["chat"], models_dir / names["chat"], threads=2, options={}),
        "text_embedding": text_encoder.load(
            names["text_embedding"], models_dir / names["text_embedding"], threads=2, options={}
        ),
    }
    yield loaded
    for model in loaded.values():
        model.close()


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.anyio
async def test_the_real_models_answer_and_refuse_about_the_sample_call(
    real_models: dict[str, Any], sample_call: SampleCall
) -> None:
    """Two questions with who and when, one that the call does not answer."""
    labels = {"Diane": "S1", "Sheila": "S2"}
    rows = [stm_line.split(maxsplit=5) for stm_line in sample_call.stm.read_text().splitlines()]
    segments = [(labels[row[2]], float(row[3]), row[5]) for row in rows]
    ctx = await remembering(real_models["chat"], segments, encoder=real_models["text_embedding"])
    engine = ChatEngine(probe=ctx)

    async def ask(question: str) -> Any:
        return await engine.run(Input(message=question, recording_id=RECORDING), ctx)

    first = await ask("Where is Sheila now?")
    assert "Texas" in first.message
    assert [(c.speaker, c.start_s) for c in first.citations] == [("S2", 14.444)]
    second = await ask("Where is Diane now?")
    assert "New Jersey" in second.message
    assert second.citations[0].speaker == "S1"
    assert second.citations[0].start_s in (12.542, 20.173)
    assert not (await ask("How many children does Sheila have?")).answered
