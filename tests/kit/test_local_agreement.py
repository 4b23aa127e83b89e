"""Words become stable when two transcripts in a row agree on them."""

from neuroedge.kit.local_agreement import LocalAgreement, same_word, without_echo
from neuroedge.kit.speakers_to_words import TimedWord


def heard(text: str, *, word_s: float = 0.5, start_s: float = 0.0) -> list[TimedWord]:
    """Words of equal length, one after the other."""
    return [
        TimedWord(w=w, start_s=start_s + i * word_s, end_s=start_s + (i + 1) * word_s, p=0.9)
        for i, w in enumerate(text.split())
    ]


def text(words: list[TimedWord]) -> str:
    """Their text."""
    return " ".join(word.w for word in words)


def test_what_two_transcripts_begin_with_is_stable() -> None:
    """The first transcript alone makes nothing stable; the word they differ in stops it."""
    agreement = LocalAgreement()
    assert agreement.update(heard("the cat"), heard_until_s=1.0) == []
    agreed = agreement.update(heard("the cat sat in"), heard_until_s=2.0)
    assert text(agreed) == text(agreement.stable) == "the cat"
    assert text(agreement.unstable) == "sat in"
    agreement.update(heard("the cat sat on the mat"), heard_until_s=3.0)
    assert text(agreement.stable) == "the cat sat"
    assert text(agreement.unstable) == "on the mat"


def test_case_and_punctuation_are_no_difference() -> None:
    """The newer spelling is kept; the umlaut is a difference."""
    agreement = LocalAgreement()
    agreement.update(heard("So, mister"), heard_until_s=1.0)
    agreement.update(heard("so mister Dashwood."), heard_until_s=2.0)
    assert text(agreement.stable) == "so mister"
    assert same_word("Über", "über,")
    assert not same_word("schon", "schön")
    assert same_word("…", "…")
    assert not same_word("?", "!")


def test_a_word_at_the_very_end_is_held_back() -> None:
    """Both may have heard "ill" of "illness": only with more sound after it is it stable."""
    agreement = LocalAgreement(hold_back_s=0.4)
    agreement.update(heard("an ill"), heard_until_s=1.0)
    agreement.update(heard("an ill"), heard_until_s=1.1)
    assert text(agreement.stable) == "an"
    agreement.update(heard("an ill"), heard_until_s=1.5)
    assert text(agreement.stable) == "an ill"


def test_what_is_stable_stays_and_the_end_begins_with_it() -> None:
    """A last transcript that hears the beginning otherwise changes only what comes after."""
    agreement = LocalAgreement()
    agreement.update(heard("he was not an"), heard_until_s=2.5)
    agreement.update(heard("he was not an ill disposed"), heard_until_s=3.5)
    assert text(agreement.stable) == "he was not an"
    assert text(agreement.finish(heard("we were not an ill disposed young man"))) == (
        "he was not an ill disposed young man"
    )


def test_a_transcript_that_splits_words_otherwise_repeats_nothing() -> None:
    """Times say where to go on; words that are there already are dropped though their times moved."""
    agreement = LocalAgreement()
    agreement.update(heard("ice cream is cold"), heard_until_s=3.0)
    agreement.update(heard("ice cream is cold"), heard_until_s=3.0)
    assert text(agreement.stable) == "ice cream is cold"
    later = [*heard("icecream", word_s=1.0), *heard("is cold and sweet", start_s=1.05)]
    assert text(agreement.finish(later)) == "ice cream is cold and sweet"


def test_an_empty_transcript_takes_nothing_back() -> None:
    """A recogniser that hears nothing once does not unsay what is stable."""
    agreement = LocalAgreement()
    agreement.update(heard("good morning all"), heard_until_s=2.0)
    agreement.update(heard("good morning all"), heard_until_s=2.0)
    assert agreement.update([], heard_until_s=2.5) == []
    assert text(agreement.finish([])) == "good morning all"
    assert agreement.unstable == []


def test_a_sentence_said_again_in_no_time_is_dropped() -> None:
    """What somebody really repeats takes its time, and stays."""
    said = heard("he was made amiable himself.")
    echo = heard("He was made amiable himself", word_s=0.01, start_s=2.5)
    assert without_echo([*said, *echo]) == said
    repeated = [*said, *heard("he was made amiable himself", start_s=2.5)]
    assert without_echo(repeated) == repeated
    assert without_echo(said) == said
    assert without_echo([]) == []
