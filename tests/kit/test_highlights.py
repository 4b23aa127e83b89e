"""Highlights: what is marked, and which part of a long text is shown."""

import pytest

from neuroedge.kit.highlights import best_window, highlights


def marked(query: str, text: str) -> list[str]:
    """The highlighted words."""
    return [text[start:end] for start, end in highlights(query, text)]


def test_other_forms_of_a_word_are_marked_where_they_stand() -> None:
    """By stem, whatever the case; offsets are of the text as it is."""
    text = "She LIVED there; her lives, plural, and living."
    assert marked("live", text) == ["LIVED", "lives", "living"]


def test_stop_words_and_punctuation_are_not_marked() -> None:
    """Only content words of the query count."""
    assert marked("Is it in the house?", "It is in the house, the big one.") == ["house"]


def test_offsets_hold_where_folding_changes_the_length() -> None:
    """The ligature and the sharp s fold to more letters than they are."""
    assert marked("fine strasse", "a \ufb01ne Straße") == ["\ufb01ne", "Straße"]


@pytest.mark.parametrize(("query", "text"), [("", "words"), ("words", ""), ("the", "the"), ("?!", "?!")])
def test_nothing_to_mark(query: str, text: str) -> None:
    """Empty texts, stop words, punctuation."""
    assert highlights(query, text) == []


def test_the_window_holds_most_of_the_different_words() -> None:
    """Two different words beat one word three times."""
    text = "texas texas texas " + "filler " * 40 + "Sheila lives in Texas today " + "filler " * 40
    window = best_window("Sheila Texas", text, max_chars=40)
    shown = text[window.start : window.end]
    assert "Sheila lives in Texas" in shown
    assert [text[s:e] for s, e in window.spans] == ["Sheila", "Texas"]
    assert len(shown) <= 40
    assert shown.split()[0] in ("filler", "Sheila")
    assert shown.split()[-1] in ("filler", "today", "Texas")


def test_without_a_match_the_beginning_is_shown_in_whole_words() -> None:
    """And a short text is shown whole."""
    window = best_window("nothing", "one two three four", max_chars=9)
    assert (window.start, window.end, window.spans) == (0, 7, [])
    whole = best_window("two", "one two", max_chars=100)
    assert (whole.start, whole.end, whole.spans) == (0, 7, [(4, 7)])


def test_a_word_longer_than_the_window_is_not_shown_in_part_as_a_match() -> None:
    """A span lies inside its window or is left out."""
    assert best_window("abcdefghij", "abcdefghij", max_chars=5).spans == []


def test_a_window_of_no_characters_is_refused() -> None:
    """Zero and less."""
    with pytest.raises(ValueError, match="at least one character"):
        best_window("a", "b", max_chars=0)
