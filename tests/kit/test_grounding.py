"""Word, number and name checks of answers against excerpts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroedge.kit.grounding import (
    Source,
    about_another,
    attribute,
    coverage,
    expected_kind,
    holds,
    invented,
    new_words,
    sentences,
    shares_words,
    stem,
    tokens,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the twenty-eighth of March", ["the", "28", "of", "march"]),
        ("March 14th", ["march", "14"]),
        ("forty thousand euros", ["40000", "euros"]),
        ("40,000 euros", ["40000", "euros"]),
        ("one hundred twenty five", ["125"]),
        ("four seven one", ["4", "7", "1"]),
        ("S1 said 3.5", ["s1", "said", "3.5"]),
        ("", []),
    ],
)
def test_spelled_numbers_and_digits_become_the_same_tokens(text: str, expected: list[str]) -> None:
    """Speech is written both ways."""
    assert tokens(text) == expected


@given(st.integers(0, 99))
def test_every_number_below_a_hundred_is_read_back(number: int) -> None:
    """Cardinals, with or without hyphen."""
    units = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    names = [*units.split(), "seventeen", "eighteen", "nineteen"]
    tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    spelled = (
        names[number] if number < 20 else tens[number // 10 - 2] + (f"-{names[number % 10]}" if number % 10 else "")
    )
    assert tokens(spelled) == [str(number)]


@pytest.mark.parametrize(
    ("a", "b"), [("lives", "living"), ("stopped", "stop"), ("planned", "plan"), ("city", "cities")]
)
def test_inflections_of_a_word_share_a_stem(a: str, b: str) -> None:
    """What an answer rephrases still counts as the excerpt's word."""
    assert stem(a) == stem(b)


def test_an_answer_in_the_excerpts_words_invents_nothing() -> None:
    """Numbers in another notation are no invention."""
    source = "Yes, it's four seven one nine two. I moved to Leeds in twenty nineteen."
    assert invented("Her number is 47192.", question="What is her number?", source=source) == []
    assert invented("She moved to Leeds in 2019.", question="When?", source=source) == []


def test_numbers_and_names_from_nowhere_are_invented() -> None:
    """A year, a phone number, a city that nobody said."""
    source = "And I'm Sheila in Texas, originally from Chicago."
    assert invented("She moved to Texas in 1960.", question="When did she move?", source=source) == ["1960"]
    assert invented("Her office is in Berlin.", question="Where is her office?", source=source) == ["berlin"]


def test_coverage_is_the_share_of_content_words_the_text_holds() -> None:
    """Function words do not count; nothing to cover is covered."""
    assert coverage("When is the next meeting?", "Next meeting is Thursday at ten.") == 1.0
    assert coverage("the blue logo", "I liked the blue one") == 0.5
    assert coverage("what is it?", "anything") == 1.0


def test_new_words_leave_out_what_the_question_said() -> None:
    """Only the rest has to come from the excerpts."""
    assert new_words("The light is blinking orange.", question="What colour is the light?") == ["blink", "orang"]


def test_sentences_that_share_no_content_word_are_told_apart() -> None:
    """Function words alone are nothing in common."""
    assert shares_words("Which part is not ready?", "The service isn't ready.")
    assert not shares_words("Which logo did they like?", "The designer sent three versions.")


@pytest.mark.parametrize(
    ("question", "answer", "good"),
    [
        ("How old is the router?", "The router is blinking orange.", False),
        ("How old is the router?", "It is two years old.", True),
        ("How often did she call?", "She called twice.", True),
        ("What is the name of the designer?", "The designer sent versions yesterday.", False),
        ("What is the name of the designer?", "The designer is Ines.", True),
        ("Who is in Texas?", "She is in Texas.", False),
        ("Where is Sheila?", "In the garden.", True),
    ],
)
def test_an_answer_must_hold_the_kind_the_question_asks_for(question: str, answer: str, good: bool) -> None:
    """A quantity needs a number, a "who" needs a name, the rest is free."""
    assert holds(expected_kind(question), answer, question=question) is good


def test_a_sentence_is_attributed_to_the_excerpt_with_its_new_words() -> None:
    """Not to the one that only repeats the question's."""
    sources = [
        Source(said="The launch is the first thing.", who="S1"),
        Source(said="Let's move the launch to the twenty-eighth of March.", who="S1"),
    ]
    claim = attribute(
        "The new launch date is March 28.",
        np.array([0.7, 0.7], np.float32),
        question="What is the new launch date?",
        asked=np.array([0.8, 0.6], np.float32),
        sources=sources,
        vectors=np.eye(2, dtype=np.float32),
    )
    assert claim.excerpt == 1
    assert claim.coverage == 1.0
    assert claim.invented == []
    assert claim.nearness == pytest.approx(0.6)
    assert claim.asked == pytest.approx(1 / 3)


def test_who_speaks_does_not_count_as_said() -> None:
    """A name before a line covers the question, never the answer."""
    claim = attribute(
        "Marcus will repair it.",
        np.ones(1, np.float32),
        question="Who will repair it?",
        asked=np.ones(1, np.float32),
        sources=[Source(said="When can I come to repair it?", who="Marcus")],
        vectors=np.ones((1, 1), np.float32),
    )
    assert claim.coverage == 0.0


def test_naming_the_speaker_of_a_line_does_not_weaken_an_answer() -> None:
    """ "Diane's beep" is as well supported as "a beep"."""
    claim = attribute(
        "It was Diane's beep.",
        np.ones(1, np.float32),
        question="What was heard?",
        asked=np.ones(1, np.float32),
        sources=[Source(said="I heard a beep.", who="Diane")],
        vectors=np.ones((1, 1), np.float32),
    )
    assert claim.coverage == 1.0


@pytest.mark.parametrize(
    ("sentence", "question", "another"),
    [
        ("Sheila is in New Jersey.", "Where is Sheila?", True),
        ("Diane is in New Jersey.", "Where is Diane?", False),
        ("Diane is in New Jersey.", "Where is Sheila?", True),
        ("In New Jersey.", "Where is Sheila?", False),
    ],
)
def test_a_sentence_about_another_person_than_source_or_question_is_noticed(
    sentence: str, question: str, another: bool
) -> None:
    """Diane speaks of herself."""
    source = Source(said="I'm in New Jersey now though.", who="Diane")
    assert about_another(sentence, question=question, source=source, people={"Diane", "Sheila"}) is another


def test_a_rank_is_no_number() -> None:
    """ "Two bedrooms" do not make a second floor."""
    assert tokens("the second of two") == ["the", "second", "of", "2"]


def test_sentences_end_at_marks_and_blank_text_has_none() -> None:
    """Decimal points do not end a sentence."""
    assert sentences("It costs 3.5 euros. Really? Yes!") == ["It costs 3.5 euros.", "Really?", "Yes!"]
    assert sentences("  ") == []
