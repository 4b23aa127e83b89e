"""Planted errors: what is said is what is claimed, and the splits share nothing."""

import random

import numpy as np
import pytest
from training.articulation import VOICES, part
from training.planted_errors import PHRASES, WORDS, EspeakSpeaker, Item, consonants_of, planted


@pytest.mark.parametrize("of", [VOICES, WORDS, PHRASES])
def test_splits_share_nothing_and_lose_nothing(of: tuple[str, ...]) -> None:
    """60, 20 and 20 %."""
    train, dev, test = (set(part(of, split)) for split in ("train", "dev", "test"))
    assert not train & dev
    assert not (train | dev) & test
    assert train | dev | test == set(of)


def test_an_error_is_of_one_consonant_and_another_one_is_heard() -> None:
    """Every draw fits its word."""
    speaker, rng = EspeakSpeaker(), random.Random(0)
    for text in WORDS[:60]:
        phones = speaker.phones(Item(text=text, voice="en-us", rate_wpm=130, pitch=50))
        item = planted(text, phones, rng, voice="en-us", rate_wpm=130, pitch=50)
        if item is None or item.consonant is None:
            continue
        word, place = consonants_of(phones)[item.consonant]
        assert item.heard != phones[word][place]
        assert (item.heard is not None) == (item.error == "substitution")


def test_the_error_is_in_what_is_said() -> None:
    """A shorter word without its consonant, another sound with another one."""
    speaker = EspeakSpeaker()
    right = Item(text="spoon", voice="en-us", rate_wpm=130, pitch=50)
    short = Item(text="spoon", voice="en-us", rate_wpm=130, pitch=50, error="omission", consonant=0)
    other = Item(text="spoon", voice="en-us", rate_wpm=130, pitch=50, error="substitution", consonant=2, heard="m")
    said = [speaker.say(item) for item in (right, short, other)]
    assert len(said[1]) < len(said[0])
    assert all(np.abs(wave).max() > 0.01 for wave in said)
    assert not np.array_equal(said[0], said[2])
