"""Trials of the articulation benchmark: unseen words, half of them with an error in the word on trial."""

from typing import Any

from training.planted_errors import PHRASES, WORDS, EspeakSpeaker, consonants_of
from training.unseen_words import CARRIERS, UNSEEN_WORDS, trials


def test_no_carrier_is_a_sentence_of_the_judges_own() -> None:
    """What was fitted on is not tried again."""
    assert not {carrier.format(word) for carrier in CARRIERS for word in WORDS[:20]} & set(PHRASES)


def test_half_of_the_words_have_an_error_and_it_is_in_the_word_on_trial() -> None:
    """An exchange or an omission of a consonant of an unseen word."""
    espeak = EspeakSpeaker()
    speakers: dict[str, Any] = dict.fromkeys(("espeak", "flite", "piper"), espeak)
    drawn = list(trials(speakers, count=60, seed=1))
    wrong = [(item, target) for _, item, target in drawn if item.error is not None]
    assert 15 < len(wrong) < 45
    for _, item, target in drawn:
        assert item.text.split()[target] in set(UNSEEN_WORDS) - set(WORDS)
    for item, target in wrong:
        assert item.error in ("substitution", "omission")
        assert item.consonant is not None
        assert consonants_of(espeak.phones(item))[item.consonant][0] == target
