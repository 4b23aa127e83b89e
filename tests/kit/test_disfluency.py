"""Repetitions, held sounds and blocks that were put there, and fluent sounds without any."""

import numpy as np
import pytest
from benchmarks.voices import RATE_HZ, vowel, whisper

from neuroedge.kit.disfluency import Disfluency, Word, disfluencies, fillers
from neuroedge.kit.pitch import track
from neuroedge.kit.syllables import talk
from neuroedge.kit.waveform import Floats


def _noise(seconds: float) -> Floats:
    return np.random.default_rng(8).normal(0, 1e-4, round(seconds * RATE_HZ)).astype(np.float32)


def _found(*parts: Floats, words: list[Word] | None = None) -> list[Disfluency]:
    samples = np.concatenate([_noise(0.3), *parts, _noise(0.3)])
    voice = track(samples)
    return disfluencies(samples, voice, talk(samples, voice), words)


def _syllable(first: str, second: str, f0_hz: float) -> Floats:
    """Two vowels that glide into each other after a hiss: a syllable no other is like."""
    hiss = np.random.default_rng(ord(first)).normal(0, 0.05, round(0.06 * RATE_HZ)).astype(np.float32)
    one, two = (vowel(f0_hz, 0.2, name=name).samples for name in (first, second))
    share = np.linspace(0, 1, len(one))
    return np.concatenate([hiss, (((1 - share) * one + share * two) * np.hanning(len(one))).astype(np.float32)])


UNIT = _syllable("a", "i", 120.0)
OTHERS = [_syllable(one, two, 125.0) for one, two in ("iu", "ea", "ua", "ie", "ui", "ae")]


def test_a_repeated_syllable_is_found_where_it_is() -> None:
    """Said twice with a short gap, among others; stuttering-like."""
    found = _found(*OTHERS[:3], UNIT, _noise(0.08), UNIT, *OTHERS[3:])
    repeated = [d for d in found if d.kind == "repetition"]
    assert len(repeated) == 1
    start_s = 0.3 + 3 * len(UNIT) / RATE_HZ
    assert repeated[0].start_s == pytest.approx(start_s, abs=0.15)
    assert repeated[0].is_stuttering_like


@pytest.mark.parametrize("gap_s", [0.05, 0.15])
def test_a_gap_between_the_two_hides_no_repetition(gap_s: float) -> None:
    """Repeated sounds are mostly said with a short stop between them."""
    found = _found(*OTHERS[:3], UNIT, _noise(gap_s), UNIT, *OTHERS[3:])
    assert [d.kind for d in found if d.kind == "repetition"] == ["repetition"]


def test_different_syllables_repeat_nothing() -> None:
    """Neither do whispers or silence."""
    assert [d.kind for d in _found(*OTHERS) if d.kind == "repetition"] == []
    assert _found(np.zeros(RATE_HZ, np.float32)) == []
    assert [d.kind for d in _found(whisper(2.0)) if d.kind == "repetition"] == []


def test_a_held_vowel_within_speech_is_a_prolongation() -> None:
    """0.7 s of one vowel between syllables, of which none other lasts so."""
    found = _found(*OTHERS[:3], vowel(120.0, 0.7, name="e").samples, *OTHERS[3:])
    held = [d for d in found if d.kind == "prolongation"]
    assert len(held) == 1
    assert held[0].end_s - held[0].start_s == pytest.approx(0.7, abs=0.2)
    assert held[0].is_stuttering_like


def test_a_level_vowel_between_pauses_is_a_filler() -> None:
    """The same sound, alone: a filled pause, which is no stuttering-like disfluency."""
    found = _found(*OTHERS[:3], _noise(0.5), vowel(110.0, 0.5, name="e").samples, _noise(0.5), *OTHERS[3:])
    assert [(d.kind, d.is_stuttering_like) for d in found if d.kind != "repetition"] == [("filled_pause", False)]


def test_with_words_a_held_sound_outside_of_them_is_a_filler_and_inside_a_prolongation() -> None:
    """The recogniser left it out, or stretched a word over it."""
    parts = (*OTHERS[:3], vowel(120.0, 0.7, name="e").samples, *OTHERS[3:])
    start_s = 0.3 + 3 * len(UNIT) / RATE_HZ
    around = [Word(w="one", start_s=0.3, end_s=start_s), Word(w="two", start_s=start_s + 0.7, end_s=start_s + 1.4)]
    stretched = [Word(w="one", start_s=0.3, end_s=start_s + 0.7), around[1]]
    assert [d.kind for d in _found(*parts, words=around) if d.kind != "repetition"] == ["filled_pause"]
    assert [d.kind for d in _found(*parts, words=stretched) if d.kind != "repetition"] == ["prolongation"]


def test_a_silence_inside_a_word_is_a_block_and_needs_words() -> None:
    """Between words it is a pause; without words nobody can tell."""
    parts = (*OTHERS[:3], _noise(0.6), *OTHERS[3:])
    gap_s = 0.3 + 3 * len(UNIT) / RATE_HZ
    inside = [Word(w="banana", start_s=gap_s - 0.3, end_s=gap_s + 1.0)]
    between = [Word(w="a", start_s=0.3, end_s=gap_s), Word(w="b", start_s=gap_s + 0.6, end_s=gap_s + 1.4)]
    assert [d.text for d in _found(*parts, words=inside) if d.kind == "block"] == ["banana"]
    assert [d for d in _found(*parts, words=between) if d.kind == "block"] == []
    assert [d for d in _found(*parts) if d.kind == "block"] == []


def test_words_that_come_twice_are_repetitions_of_words() -> None:
    """Whatever the recogniser's spelling of them; a long word is no stuttering-like one."""
    spelt = ["The", "the", "the,", "elephant", "elephant", "went"]
    words = [Word(w=w, start_s=i * 0.3, end_s=i * 0.3 + 0.3) for i, w in enumerate(spelt)]
    found = [d for d in _found(*OTHERS, words=words) if d.source == "words"]
    assert [(d.text, d.times, d.is_stuttering_like) for d in found] == [("The", 2, True), ("elephant", 1, False)]


def test_fillers_stand_in_words_by_their_language() -> None:
    """Those heard already count once."""
    words = [Word(w="Um,", start_s=0.0, end_s=0.4), Word(w="äh", start_s=1.0, end_s=1.2)]
    assert [d.text for d in fillers(words, None, [])] == ["Um,"]
    assert [d.text for d in fillers(words, "de", [])] == ["äh"]
    heard = [Disfluency(kind="filled_pause", start_s=0.1, end_s=0.5)]
    assert fillers(words, "en", heard) == []
