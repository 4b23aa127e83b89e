"""What an answer rests on: sentences as they come, markers, citations checked against what was retrieved."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from neuroedge.contract.chat import Policy
from neuroedge.contract.engine import Usage
from neuroedge.engines.knowledge.search import Hit, Parts
from neuroedge.engines.language.chat import attribution_over
from neuroedge.services.chat.citations import Gate, by_sentence, citation, composed, marked, without_markers
from neuroedge.stores.ids import new_id
from tests.engines.knowledge.fake_encoder import HashedWords
from tests.fakes import make_context
from tests.services.chat.assistant_bench import ScriptedLLM

pytestmark = pytest.mark.anyio


def hit(content: str, **more: Any) -> Hit:
    """A found text."""
    fields: dict[str, Any] = {
        "id": new_id(),
        "score": 1.0,
        "parts": Parts(dense=0.5, keyword=1.0),
        "title": "Note",
        "tags": [],
        "metadata": {},
        "recording_id": None,
        "created_at": datetime.now(UTC),
    }
    return Hit(content=content, **{**fields, **more})


async def pieces(*texts: str) -> AsyncIterator[str]:
    """As a model streams them."""
    for text in texts:
        yield text


@pytest.mark.parametrize(
    ("streamed", "whole"),
    [
        (["Bill li", "ves in Leeds. He", " has a cat."], ["Bill lives in Leeds.", "He has a cat."]),
        (["One. ", "Two. "], ["One.", "Two."]),
        (["It costs 3.", "50 euros"], ["It costs 3.50 euros"]),
        (["Answer: Yes [1]. ", "No [2]"], ["Yes.", "No"]),
        ([" ", ""], []),
        (["[1]"], []),
    ],
)
async def test_sentences_come_whole_and_unmarked(streamed: list[str], whole: list[str]) -> None:
    """Whatever the pieces are."""
    assert [sentence async for sentence in by_sentence(pieces(*streamed))] == whole


def test_markers_stand_before_the_stop_and_can_be_taken_out() -> None:
    """Also without a stop, or with several."""
    assert marked("Bill lives in Leeds.", 1) == "Bill lives in Leeds [1]."
    assert marked("Really?!", 12) == "Really [12]?!"
    assert marked("No stop", 2) == "No stop [2]"
    assert without_markers("Bill lives [1]. He [2] stays [13].") == "Bill lives. He stays."


def test_a_citation_of_what_was_never_retrieved_is_left_out() -> None:
    """Its claim too; claims without excerpt stay without a marker."""
    known, other = hit("Bill lives in Leeds."), hit("Bill has a cat.")
    claims: list[dict[str, Any]] = [
        {"sentence": "He has a cat.", "hit_id": str(other.id)},
        {"sentence": "Bill lives in Leeds.", "hit_id": str(known.id)},
        {"sentence": "So be it.", "hit_id": None},
        {"sentence": "Bill flies.", "hit_id": str(new_id())},
        {"sentence": "Leeds it is.", "hit_id": str(known.id)},
    ]
    text, citations, unknown = composed(claims, [known, other])
    assert text == "He has a cat [1]. Bill lives in Leeds [2]. So be it. Leeds it is [2]."
    assert [(c["n"], c["memory_id"]) for c in citations] == [(1, str(other.id)), (2, str(known.id))]
    assert [claim["sentence"] for claim in unknown] == ["Bill flies."]
    assert composed([], [known]) == ("", [], [])


def test_a_citation_names_the_kind_of_its_source() -> None:
    """Attachments and tools have no memory."""
    assert citation(1, hit("x"))["kind"] == "memory"
    assert citation(1, hit("x", recording_id=new_id()))["kind"] == "recording"
    assert citation(1, hit("x", document_id=new_id()))["kind"] == "document"
    told = citation(1, hit("x", memory_type="attachment", source="file"))
    assert (told["kind"], told["memory_id"], told["attachment_id"]) == ("attachment", None, "file")
    assert citation(1, hit("x", memory_type="tool"))["memory_id"] is None


class Judge:
    """A gate over one line, and what it showed."""

    def __init__(self, verdict: str = "yes") -> None:
        self.llm = ScriptedLLM()
        self.llm.script["check"] = [verdict]
        self.ctx = make_context(models={"text_embedding": HashedWords()}, llm=self.llm)
        self.hits = [hit("Bill moved to Leeds in spring."), hit("The kitchen was painted twice by Anna.")]
        self.shown: list[str] = []

    async def gate(self, question: str) -> Gate:
        """For a question."""

        async def show(sentence: str, excerpt: int) -> None:
            self.shown.append(sentence)

        attribution = await attribution_over(self.hits, question, self.ctx)
        return Gate(attribution, self.hits, ctx=self.ctx, policy=Policy(), usage=Usage(), show=show)


async def test_nothing_is_shown_before_the_kind_of_answer_is_there() -> None:
    """Then what waited is shown with it."""
    judge = Judge()
    gate = await judge.gate("How often was the kitchen painted?")
    assert await gate.take("The kitchen was painted by Anna.")
    assert judge.shown == []
    assert await gate.take("The kitchen was painted twice.")
    assert judge.shown == ["The kitchen was painted by Anna.", "The kitchen was painted twice."]
    assert gate.reason is None


async def test_what_the_model_does_not_confirm_is_not_shown() -> None:
    """And no further sentence is asked for."""
    judge = Judge("no")
    gate = await judge.gate("What was the reason for moving to Leeds?")
    assert not await gate.take("Bill moved to Leeds in spring.")
    assert judge.shown == []
    assert gate.reason == "the lines nearest to the model's answer do not answer the question"


async def test_a_refusal_among_sentences_is_left_out() -> None:
    """Alone it is the reason."""
    judge = Judge()
    gate = await judge.gate("When did Bill move to Leeds?")
    assert not await gate.take("NOT_FOUND")
    assert gate.reason == "the model found no answer in the excerpts"
    assert await gate.take("Bill moved to Leeds in spring.")
    assert judge.shown == ["Bill moved to Leeds in spring."]
