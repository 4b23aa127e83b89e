"""Intents: by examples where that is clear, else by what was found, else by the model."""

import json
from pathlib import Path

import numpy as np
import pytest

from neuroedge.contract.principal import Principal
from neuroedge.runtimes import text_encoder
from neuroedge.services.chat.intent import INTENTS, Examples, artifact_type
from neuroedge.stores.chat_sessions import Session
from tests.fakes import make_context
from tests.services.chat.assistant_bench import AssistantBench, said, trace_of

pytestmark = pytest.mark.anyio
CASES: dict[str, list[str]] = json.loads((Path(__file__).parent / "intent_cases.json").read_text())


def test_no_case_is_an_example() -> None:
    """What is measured was not learnt."""
    examples = {sentence.lower() for sentence in Examples().sentences}
    assert set(CASES) == set(INTENTS)
    assert not examples & {text.lower() for texts in CASES.values() for text in texts}


@pytest.mark.models
async def test_sure_guesses_are_right_on_the_fixed_set(models_dir: Path) -> None:
    """At least 97 % of them, and at least 65 % of the sentences are sure."""
    name = "all-minilm-l6-v2-int8"
    encoder = text_encoder.load(name, models_dir / name, threads=2, options={})
    try:
        examples, ctx = Examples(), make_context(models={"text_embedding": encoder})
        texts = [(text, label) for label, of in CASES.items() for text in of]
        vectors = (await encoder.encode([text for text, _ in texts])).vectors
        guesses = [await examples.guess(vector, ctx=ctx, model=None) for vector in vectors]
    finally:
        encoder.close()
    sure = [(guess, label) for guess, (_, label) in zip(guesses, texts, strict=True) if guess.sure]
    assert len(sure) / len(texts) >= 0.65
    assert sum(guess.intent == label for guess, label in sure) / len(sure) >= 0.97


def test_an_unclear_message_is_no_sure_guess() -> None:
    """Far from all examples, or between two of them."""
    examples = Examples()
    assert not examples.nearest(np.full(len(examples.labels), 0.1, np.float32)).sure
    assert not examples.nearest(np.full(len(examples.labels), 0.9, np.float32)).sure
    clear = np.asarray([0.9 if label == "small_talk" else 0.1 for label in examples.labels], np.float32)
    assert examples.nearest(clear).sure
    assert examples.nearest(clear).intent == "small_talk"


async def test_small_talk_is_answered_without_sources(
    bench: AssistantBench, caller: Principal, session: Session
) -> None:
    """The example's own words are sure; the answer is streamed as it comes."""
    bench.llm.script["converse"] = ["Hello, how can I help?"]
    events = await bench.ask(caller, session.id, "Nice to meet you.")
    assert trace_of(events, "intent")[0]["by"] == "examples"
    assert (said(events), events[-1].data["intent"]) == ("Hello, how can I help?", "small_talk")
    assert events[-1].data["message"].citations == []


@pytest.mark.parametrize(
    ("told", "intent"), [('{"intent": "clarify"}', "clarify"), ("no json", "question"), ('{"intent": 5}', "question")]
)
async def test_what_is_unclear_is_asked_of_the_model(
    bench: AssistantBench, caller: Principal, session: Session, told: str, intent: str
) -> None:
    """With nothing found; what it says wrongly is taken for a question."""
    bench.llm.script |= {"intent": [told], "clarify": ["Which one do you mean?"]}
    events = await bench.ask(caller, session.id, "Xylophone quartz?")
    assert trace_of(events, "intent")[0]["by"] == "model"
    assert events[-1].data["intent"] == intent
    assert bench.llm.asked("intent")[0].json_schema is not None


async def test_what_was_found_makes_it_a_question(bench: AssistantBench, caller: Principal, session: Session) -> None:
    """No model is asked for the intent."""
    await bench.remember("Xylophone quartz is at home.")
    bench.llm.script["answer"] = ["Xylophone quartz is at home."]
    events = await bench.ask(caller, session.id, "Xylophone quartz?")
    assert trace_of(events, "intent")[0]["by"] == "search"
    assert bench.llm.asked("intent") == []


@pytest.mark.parametrize(
    ("text", "wanted", "made"),
    [
        ("Make a slide deck about it.", None, ("slides", None)),
        ("Draw a flow chart.", None, ("diagram", None)),
        ("Write a Rust function.", None, ("code", "rust")),
        ("Write a script.", None, ("code", "python")),
        ("Put it in a table.", None, ("table", None)),
        ("As JSON please.", None, ("json", None)),
        ("Write a letter.", None, ("document", None)),
        ("Make a table.", "document", ("document", None)),
        ("Sort a list in SQL.", None, ("code", "sql")),
    ],
)
def test_the_type_of_an_artifact_is_read_from_the_message(
    text: str, wanted: str | None, made: tuple[str, str | None]
) -> None:
    """Unless the caller says it."""
    assert artifact_type(text, wanted=wanted) == made
