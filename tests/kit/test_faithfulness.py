"""Whether a written sentence is held by a text."""

import pytest

from neuroedge.kit.faithfulness import Faithfulness

TEXT = [
    "The river floods the lower town every spring.",
    "The wall would cost two million euros.",
    "Traders do not like the wall.",
    "Anna Berg leads the council.",
]


@pytest.mark.parametrize(
    ("sentence", "sources"),
    [
        ("The wall would cost two million euros.", [1]),
        ("The wall costs 2000000 euros.", [1]),
        ("Floods hit the lower town in spring.", [0]),
        ("Traders do not like the wall that would cost two million euros.", [1, 2]),
        ("The council is led by Anna Berg.", [3]),
    ],
)
def test_what_the_text_says_is_held_by_its_sentences(sentence: str, sources: list[int]) -> None:
    """Also with other endings, and by two sentences together."""
    support = Faithfulness(TEXT, min_coverage=0.6).check(sentence)
    assert support.faults == []
    assert set(support.sources) == set(sources)
    assert support.coverage >= 0.6


@pytest.mark.parametrize(
    ("sentence", "fault"),
    [
        ("The wall would cost three million euros.", "3000000"),
        ("The council is led by Anna Holm.", "holm"),
        ("Peter likes the wall.", "Peter"),
        ("The river does not flood the lower town.", "denies"),
        ("Traders like the wall.", "negation"),
        ("A bridge opened yesterday in the harbour.", "of its words"),
        ("And so it is.", "says nothing"),
        ("", "says nothing"),
    ],
)
def test_what_the_text_does_not_say_is_named(sentence: str, fault: str) -> None:
    """Numbers, names, turned negations, other topics, nothing at all."""
    faults = Faithfulness(TEXT).check(sentence).faults
    assert any(fault in each for each in faults), faults


def test_a_text_without_sentences_holds_nothing() -> None:
    """No error."""
    assert Faithfulness([]).check("The wall is high.").faults
