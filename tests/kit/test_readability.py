"""Readability: closed-form values, the order of texts whose grade is known, and sentences and syllables."""

import pytest

from neuroedge.kit.readability import (
    looks_english,
    readability,
    split_sentences,
    syllables,
    unfamiliar,
    words_of,
)

PRIMER = (
    "See the cat. The cat sat on a mat. The mat is red. Is the cat on the mat? The dog ran to the cat. "
    "Run, cat, run! The cat ran up a tree. The dog can not get the cat. The cat is big. The dog is big too."
)
FABLE = (
    "A hungry fox saw some fine bunches of grapes hanging from a vine that grew along a high wall. He did his best to "
    "reach them by jumping as high as he could into the air. But it was all in vain, for they were just out of reach. "
    "So he gave up trying, and walked away with his nose in the air. I thought those grapes were ripe, he said, but I "
    "see now they are quite sour."
)
NOVEL = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a "
    "wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood, this "
    "truth is so well fixed in the minds of the surrounding families, that he is considered as the rightful property "
    "of some one or other of their daughters."
)
LAW = (
    "The enumeration in the Constitution, of certain rights, shall not be construed to deny or disparage others "
    "retained by the people. Excessive bail shall not be required, nor excessive fines imposed, nor cruel and unusual "
    "punishments inflicted. The powers not delegated to the United States by the Constitution, nor prohibited by it to "
    "the States, are reserved to the States respectively, or to the people."
)


def test_the_formulas_are_those_published() -> None:
    """Ten words, two sentences, 13 syllables, one word of three, one unknown: by hand."""
    found = readability("The cat sat on the mat. It saw a hippopotamus.")
    assert found is not None
    assert (found.words, found.sentences) == (10, 2)
    assert found.grades["flesch_kincaid"] == pytest.approx(0.39 * 5 + 11.8 * 14 / 10 - 15.59)
    assert found.grades["spache"] == pytest.approx(0.141 * 5 + 0.086 * 10 + 0.839)
    assert found.grades["smog"] == pytest.approx(1.043 * 15**0.5 + 3.1291)
    raw = 0.1579 * 10 + 0.0496 * 5 + 3.6365
    assert found.grades["dale_chall"] == pytest.approx(4 + (raw - 4.9) / 0.6 * 1.5)


def test_texts_of_known_grade_are_in_order() -> None:
    """A primer, a fable for children, a novel, a law; by the median."""
    grades = [found.grade for text in (PRIMER, FABLE, NOVEL, LAW) if (found := readability(text))]
    assert grades == sorted(grades)
    assert grades[0] < 4
    assert grades[1] < 6
    assert grades[2] > 8
    assert grades[3] > 10


@pytest.mark.parametrize(
    ("word", "count"),
    [
        *[(w, 1) for w in ("cat", "make", "walked", "the", "strength", "eye", "shoes", "loved")],
        *[(w, 2) for w in ("table", "wanted", "boxes", "being", "doctor", "likely", "stumbled")],
        *[(w, 3) for w in ("banana", "family", "creation", "radio", "hospital", "puppeteer")],
        *[(w, 4) for w in ("education", "january", "biology", "variety")],
        ("well-known", 2),
        ("don't", 1),
        ("1998", 4),
    ],
)
def test_syllables_of_common_words(word: str, count: int) -> None:
    """As in the Carnegie Mellon dictionary."""
    assert syllables(word) == count


def test_titles_and_initials_end_no_sentence() -> None:
    """Nor do decimals; blank lines do."""
    text = 'Mr. J. Smith paid 3.5 dollars. "Did he?" asked Dr. Gray… Yes!\n\nA heading\n\nThen it ended'
    assert split_sentences(text) == [
        "Mr. J. Smith paid 3.5 dollars.",
        '"Did he?"',
        "asked Dr. Gray…",
        "Yes!",
        "A heading",
        "Then it ended",
    ]


def test_inflections_names_and_numbers_are_familiar() -> None:
    """Only the two rare words count."""
    assert unfamiliar(words_of("The happiest boys weren't running to Ouagadougou in 1998, quoth pterodactyls.")) == 2


@pytest.mark.parametrize("text", ["", "   ", "...", "!?"])
def test_a_text_without_words_has_no_grade(text: str) -> None:
    """None, not nought."""
    assert readability(text) is None


def test_other_languages_are_told_apart() -> None:
    """By their commonest words; a few words are not enough to say."""
    assert looks_english(NOVEL)
    assert not looks_english(
        "Der schnelle braune Fuchs springt über den faulen Hund und läuft dann in den Wald zurück."
    )
    assert not looks_english("El perro corre por la calle y el gato duerme en la casa de su vieja amiga.")
    assert looks_english("Guten Tag")


def test_a_word_without_end_is_measured() -> None:
    """A hundred thousand letters."""
    found = readability("a" * 100_000)
    assert found is not None
    assert 0 <= found.grade <= 18
