"""Language identification: scripts, what comes into question, and where a text changes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroedge.kit.language_id import UNDETERMINED, guesses, known_languages, pieces, scripts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello", {"Latn": 5}),
        ("नमस्ते", {"Deva": 6}),
        ("東京です", {"Jpan": 4}),
        ("北京", {"Hani": 2}),
        ("안녕", {"Kore": 2}),
        ("мир and world", {"Latn": 8, "Cyrl": 3}),
        ("ᚠᚢ", {"Zyyy": 2}),
        ("12 + 3 = 15 :-)", {}),
        ("", {}),
    ],
)
def test_scripts_are_counted_in_letters(text: str, expected: dict[str, int]) -> None:
    """With their marks; kana makes the Chinese characters beside it Japanese."""
    assert scripts(text) == expected


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        ("Der Hund läuft schnell über die Straße.", "de"),
        ("El perro corre rápido por la calle.", "es"),
        ("কুকুরটি রাস্তায় দৌড়াচ্ছে।", "bn"),
        ("मला पाणी हवे आहे", "mr"),
        ("Собака быстро бежит по улице.", "ru"),
        ("தமிழ்", "ta"),
        ("東京は日本の首都です。", "ja"),
    ],
)
def test_languages_are_told(text: str, lang: str) -> None:
    """Probabilities are of the script's languages and sum to 1."""
    found = guesses(text)
    assert found[0].lang == lang
    assert sum(guess.p for guess in found) == pytest.approx(1)
    assert [guess.p for guess in found] == sorted((guess.p for guess in found), reverse=True)


def test_only_languages_of_the_script_and_of_the_choice_come_into_question() -> None:
    """Hindi is not written in Latin letters; an unknown code is an error."""
    assert not {"hi", "ru", "ja"} & {guess.lang for guess in guesses("a house")}
    assert {guess.lang for guess in guesses("Der Hund", among=["de", "nl", "hi"])} == {"de", "nl"}
    assert guesses("Der Hund", among=["hi"]) == []
    with pytest.raises(ValueError, match="xx"):
        guesses("Der Hund", among=["xx"])


def test_a_mixed_text_is_cut_where_its_language_changes() -> None:
    """Between sentences of one script, and between scripts within a sentence."""
    text = "Das ist ein schönes Haus. The weather is very nice today. आज मौसम बहुत अच्छा है।"
    found = pieces(text)
    assert [piece.lang for piece in found] == ["de", "en", "hi"]
    assert "".join(text[piece.start : piece.end] for piece in found) == text
    inside = "He said मुझे पानी चाहिए and then he went to the house of his brother."
    assert [piece.script for piece in pieces(inside)] == ["Latn", "Deva", "Latn"]


def test_a_short_sentence_goes_with_its_neighbours() -> None:
    """Nobody changes the language for one name."""
    text = "The children walk to school. Anna runs. They are late for the first lesson."
    assert [piece.lang for piece in pieces(text)] == ["en"]


@pytest.mark.parametrize("text", ["", "...", "12 34", " \n"])
def test_nothing_is_told_without_letters(text: str) -> None:
    """No guess, no piece."""
    assert guesses(text) == []
    assert pieces(text) == []


def test_few_letters_are_no_evidence_where_languages_share_a_script() -> None:
    """But one letter of Tamil is."""
    assert pieces("ab")[0].lang == UNDETERMINED
    assert pieces("த")[0].lang == "ta"


def test_known_languages_hold_the_ten_indian_ones() -> None:
    """And no code for texts that are no language."""
    known = known_languages()
    assert {"hi", "bn", "ta", "te", "mr", "gu", "kn", "ml", "pa", "or", "en"} <= set(known)
    assert "zxx" not in known


@given(st.text(max_size=80))
def test_pieces_cover_any_text_in_order(text: str) -> None:
    """Without gap or overlap, once there is a letter."""
    found = pieces(text)
    if found:
        assert (found[0].start, found[-1].end) == (0, len(text))
        assert all(a.end == b.start for a, b in itertools.pairwise(found))
        assert all(0 <= piece.p <= 1 + 1e-9 for piece in found)
    assert bool(found) == bool(scripts(text))
