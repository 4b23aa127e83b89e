"""Passages cover the text; a growing text is cut only where a sentence has ended."""

import pytest

from neuroedge.kit.passages import ended, passages


@pytest.mark.parametrize(
    "text",
    ["One. Two! Three? " * 50, "x" * 3000, "no end of words " * 100, "", ".", "\n\n\n", "。" * 900, "a\nb\n" * 300],
)
def test_passages_cover_the_text_in_order(text: str) -> None:
    """Nothing left out, nothing twice, none too long."""
    cut = list(passages(text, max_chars=100))
    assert "".join(text[a:b] for a, b in cut) == text
    assert all(0 < b - a <= 100 for a, b in cut)


def test_sentences_stay_whole() -> None:
    """Cut after full stops, not in the middle of words."""
    text = "The first sentence is here. The second one follows it! And a third?"
    assert [text[a:b] for a, b in passages(text, max_chars=39)] == [
        "The first sentence is here.",
        " The second one follows it!",
        " And a third?",
    ]


def test_only_ended_sentences_are_ready() -> None:
    """A full stop counts once something follows it: 3.5 or example.org may go on."""
    assert ended("Half a sent", max_chars=100) == 0
    assert ended("It costs 3.", max_chars=100) == 0
    assert ended("It costs 3. And", max_chars=100) == len("It costs 3.")
    assert ended("line\nnext", max_chars=100) == len("line\n")
    assert ended("好。下", max_chars=100) == len("好。")


def test_an_endless_sentence_is_cut_between_two_words() -> None:
    """Not within a number; all of it where there is no such place."""
    text = "card 4111 1111 and more words " * 8
    cut = ended(text, max_chars=100)
    assert 100 < cut <= len(text)
    assert text[:cut].rstrip().endswith(("and", "more", "words", "card"))
    assert ended("x" * 101, max_chars=100) == 101
