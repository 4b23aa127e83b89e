"""Phones of English, their places in words, and phonological processes."""

import numpy as np
import pytest

from neuroedge.kit.phonology import (
    CONSONANTS,
    DIALECTS,
    INDEX,
    PHONES,
    Slip,
    changed_features,
    from_arpabet,
    percent_consonants_correct,
    phones_of,
    pooled,
    position,
    processes_of,
    realised,
)


def slip(word: str, place: int, heard: str | None, kind: str = "substitution") -> Slip:
    """A slip in a word given in IPA."""
    return Slip(type=kind, word=tuple(phones_of(word)), place=place, heard=heard)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ipa", "phones"),
    [
        ("ˈɹæbɪt", ["ɹ", "æ", "b", "ɪ", "t"]),
        ("t͡ʃɝt͡ʃ", ["t͡ʃ", "ɝ", "t͡ʃ"]),
        ("ʤuːs", ["d͡ʒ", "u", "s"]),
        ("goʊ", ["ɡ", "oʊ"]),
        ("wɔtɚ", ["w", "ɔ", "t", "ɝ"]),
        ("", []),
    ],
)
def test_ipa_is_read_as_phones(ipa: str, phones: list[str]) -> None:
    """Stress and length are dropped, spellings of the same phone are joined."""
    assert phones_of(ipa) == phones


@pytest.mark.parametrize("ipa", ["rabbit9", "猫", "a\x00b", "Q"])
def test_what_is_no_phone_is_refused(ipa: str) -> None:
    """Letters that no English phone has."""
    with pytest.raises(ValueError, match="no phone"):
        phones_of(ipa)


def test_the_dictionarys_notation_becomes_ipa() -> None:
    """AH is a schwa where a word has other syllables."""
    assert from_arpabet(["B", "AH0", "N", "AE1", "N", "AH0"]) == ["b", "ə", "n", "æ", "n", "ə"]
    assert from_arpabet(["CH", "AH", "NG"]) == ["t͡ʃ", "ʌ", "ŋ"]


def test_a_recognisers_symbols_are_pooled() -> None:
    """Spellings of a phone join it, a flap is t and d, marks and boundaries join the blank."""
    symbols = ["<blank>", "g", "ɡ", "ɾ", "<wb>", "ː", "s"]
    p = np.array([[0.1, 0.2, 0.1, 0.1, 0.2, 0.1, 0.2]], np.float32)
    out = np.exp(pooled(np.log(p), symbols, 0))[0]
    assert out[INDEX["ɡ"]] == pytest.approx(0.3, abs=1e-6)
    assert out[INDEX["t"]] == out[INDEX["d"]] == pytest.approx(0.1, abs=1e-6)
    assert out[-1] == pytest.approx(0.4, abs=1e-6)
    assert out[INDEX["p"]] == 0


def test_accents_may_exchange_vowels_but_not_consonants() -> None:
    """A reduced word's vowel may be any; a consonant is itself."""
    p = np.full((1, len(PHONES) + 1), 0.01)
    p[0, INDEX["ɔ"]] = 0.5
    own = np.exp(realised(np.log(p), ["ɑ", "i", "i", "s"], reduced=[False, False, True, False]))[0]
    assert own[0] > 0.5 > own[1]
    assert own[2] > 0.5
    assert own[3] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("word", "place", "where"),
    [("spun", 0, "initial"), ("spun", 1, "initial"), ("spun", 3, "final"), ("ɹæbɪt", 2, "medial"), ("ɪts", 1, "final")],
)
def test_clusters_stand_where_their_syllable_edge_is(word: str, place: int, where: str) -> None:
    """Initial up to the first vowel, final behind the last."""
    assert position(phones_of(word), place) == where


@pytest.mark.parametrize(
    ("found", "process"),
    [
        (slip("kæt", 0, "t"), "velar fronting"),
        (slip("ʃu", 0, "s"), "palatal fronting"),
        (slip("sʌn", 0, "t"), "stopping"),
        (slip("ɹɛd", 0, "w"), "gliding"),
        (slip("t͡ʃɪp", 0, "ʃ"), "deaffrication"),
        (slip("θʌm", 0, "f"), "labialisation"),
        (slip("sʌn", 0, "θ"), "dentalisation"),
        (slip("bɛd", 2, "t"), "final devoicing"),
        (slip("pɪɡ", 0, "b"), "voicing"),
        (slip("tæp", 0, "k"), "backing"),
        (slip("spun", 0, None, "omission"), "cluster reduction"),
        (slip("kæt", 2, None, "omission"), "final consonant deletion"),
        (slip("kæt", 0, None, "omission"), "initial consonant deletion"),
        (slip("bənænə", 1, None, "omission"), "weak syllable deletion"),
        (slip("blu", 1, "ə", "addition"), "epenthesis"),
    ],
)
def test_processes_are_named(found: Slip, process: str) -> None:
    """The textbook's example of each."""
    assert process in [name for name, _ in processes_of(found)]


def test_a_distortion_shows_no_process() -> None:
    """Nothing is known of what was said instead."""
    assert processes_of(slip("sʌn", 0, None, "distortion")) == []


def test_features_tell_how_two_consonants_differ() -> None:
    """b is p with voice; vowels have no say here."""
    assert changed_features("p", "b") == ["+voi"]
    assert changed_features("s", "æ") == []


@pytest.mark.parametrize(
    ("pattern", "found", "fits"),
    [
        ("th_fronting", slip("θɪŋk", 0, "f"), True),
        ("th_fronting", slip("sɪŋk", 0, "f"), False),
        ("g_dropping", slip("sɪŋɪŋ", 4, "n"), True),
        ("h_dropping", slip("hæt", 0, None, "omission"), True),
        ("non_rhotic", slip("kɑɹ", 2, None, "omission"), True),
        ("non_rhotic", slip("ɹɛd", 0, None, "omission"), False),
        ("final_cluster_reduction", slip("fæst", 3, None, "omission"), True),
        ("final_cluster_reduction", slip("fæt", 2, None, "omission"), False),
        ("final_devoicing", slip("bɛd", 2, "t"), True),
        ("v_w_exchange", slip("vɛt", 0, "w"), True),
        ("l_vocalisation", slip("mɪlk", 2, None, "omission"), True),
        ("t_glottalling", slip("bʌtən", 2, "ʔ"), True),
    ],
)
def test_dialect_patterns_fit_their_own_exchanges_only(pattern: str, found: Slip, fits: bool) -> None:
    """And nothing else is excused by them."""
    assert DIALECTS[pattern].fits(found) is fits


def test_percentage_of_consonants_correct_counts_consonants() -> None:
    """Two of three; a vowel's error does not count, no consonants give no figure."""
    word = phones_of("kæts")
    assert percent_consonants_correct(word, [0, 1]) == pytest.approx(100 * 2 / 3)
    assert percent_consonants_correct(["i"], []) is None
    assert len(CONSONANTS) == 24
