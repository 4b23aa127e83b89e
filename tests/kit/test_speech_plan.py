"""What a voice is given at a time."""

from itertools import pairwise

import pytest

from neuroedge.kit.espeak_phonemes import mnemonics
from neuroedge.kit.speech_plan import (
    estimated_times,
    first_words,
    language_of_script,
    pronounced,
    speaks,
    spoken_words,
    utterances,
)
from neuroedge.kit.ssml import Part


def test_the_lexicon_changes_whole_words_only() -> None:
    """Whatever their case, the longest first; what has a pronunciation keeps it."""
    said = pronounced(
        [Part(text="Cat, scat in New York. "), Part(text="cat", ipa="kæt")],
        {"cat": "/kɑːt/", "New York": "Noo Yawk", "new": "old"},
    )
    assert said == [
        Part(text="Cat", ipa="kɑːt"),
        Part(text=", scat in "),
        Part(text="Noo Yawk"),
        Part(text=". "),
        Part(text="cat", ipa="kæt"),
    ]


@pytest.mark.parametrize("word", ["C++", "a.b", "(x)", "straße", "STRASSE", "İ"])
def test_a_lexicon_of_signs_and_odd_letters_breaks_nothing(word: str) -> None:
    """Words are no patterns, and letters that fold into two are no error."""
    assert "".join(part.text for part in pronounced([Part(text="Die Straße, C++ İ.")], {word: "x"}))


def test_utterances_are_whole_sentences_and_lose_nothing() -> None:
    """Up to a length; a word with a pronunciation stays whole."""
    parts = [
        Part(text="One two. Three four. "),
        Part(text="pseudopseudohypoparathyroidism", ipa="x"),
        Part(text=" ends."),
    ]
    pieces = utterances(parts, max_chars=12)
    said = "".join(part.text for piece in pieces for part in piece)
    assert said.replace(" ", "") == "".join(part.text for part in parts).replace(" ", "")
    assert [part for piece in pieces for part in piece if part.ipa] == [parts[1]]
    assert utterances([Part(text=" ... — ")], max_chars=10) == []


def test_estimated_times_fill_the_speech_in_order() -> None:
    """Longer words take longer, a stop takes its time."""
    times = estimated_times(["a", "sentence.", "b"], start_s=1.0, end_s=4.0)
    assert times[0][0] == 1.0
    assert all(first[1] <= second[0] for first, second in pairwise(times))
    assert times[1][1] - times[1][0] > times[0][1] - times[0][0]
    assert times[2][1] == pytest.approx(4.0)
    assert estimated_times([], start_s=0, end_s=1) == []


def test_words_keep_their_punctuation() -> None:
    """What clings to them; a dash alone is none."""
    assert spoken_words([Part(text="Well, "), Part(text="I’m"), Part(text=" — 25!")]) == ["Well,", "I’m", "25!"]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("नमस्ते", "hi"),
        ("வணக்கம்", "ta"),
        ("Привет", "ru"),
        ("漢字とかな", "ja"),
        ("你好", "zh"),
        ("Hello", None),
        ("12", None),
    ],
)
def test_the_script_tells_the_language(text: str, language: str | None) -> None:
    """Where one is mostly written in it."""
    assert language_of_script(text) == language


def test_a_language_suits_another_region() -> None:
    """Exactly, of the same language, any, none."""
    assert [speaks(have, "en-GB") for have in (["en-gb"], ["en-US", "de"], [], ["de"])] == [3, 2, 1, 0]
    assert speaks(["cmn"], "zh-CN") == 2


def test_the_first_piece_of_a_long_text_is_short() -> None:
    """And nothing is lost."""
    text = "A first sentence. " * 200
    pieces = first_words(text, first_chars=40, later_chars=300)
    assert "".join(pieces) == text
    assert len(pieces[0]) <= 40
    assert max(map(len, pieces)) <= 300
    assert first_words("", first_chars=40, later_chars=300) == []


def test_pronunciations_become_mnemonics() -> None:
    """The stress goes before its vowel; a sign nobody knows gives none."""
    assert mnemonics("təˈmeɪtoʊ") == "t@m'eItoU"
    assert mnemonics("ˈstɹɛŋkθ") == "str'ENkT"
    assert mnemonics("ʘ") is None
    assert mnemonics("") is None
