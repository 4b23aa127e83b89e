"""Pronunciations in IPA as espeak-ng's English phoneme mnemonics (its docs/phonemes.md), for its `[[...]]`."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

_SOUNDS: Final[Mapping[str, str]] = {
    # vowels
    "iː": "i:", "i": "i", "ɪ": "I", "eɪ": "eI", "e": "E", "ɛ": "E", "æ": "a", "a": "a", "aɪ": "aI", "aʊ": "aU",
    "ɑː": "A:", "ɑ": "A:", "ɒ": "0", "ɔː": "O:", "ɔ": "O:", "ɔɪ": "OI", "oʊ": "oU", "əʊ": "oU", "o": "oU",
    "ʊ": "U", "uː": "u:", "u": "u:", "ʌ": "V", "ə": "@", "ɚ": "3", "ɝ": "3:", "ɜː": "3:", "ɜ": "3:", "ɐ": "a#",
    "ɪə": "i@", "eə": "e@", "ʊə": "U@",
    # consonants
    "p": "p", "b": "b", "t": "t", "d": "d", "k": "k", "ɡ": "g", "g": "g", "f": "f", "v": "v", "θ": "T", "ð": "D",
    "s": "s", "z": "z", "ʃ": "S", "ʒ": "Z", "h": "h", "tʃ": "tS", "ʧ": "tS", "dʒ": "dZ", "ʤ": "dZ", "m": "m",
    "n": "n", "ŋ": "N", "l": "l", "ɫ": "l", "ɹ": "r", "r": "r", "j": "j", "w": "w", "ʔ": "?", "ɾ": "t#", "x": "x",
    "n̩": "n-", "l̩": "@L",
}  # fmt: skip
_VOWELS: Final = frozenset("iɪeɛæaɑɒɔoʊuʌəɚɝɜɐ")
_STRESS: Final[Mapping[str, str]] = {"ˈ": "'", "ˌ": ","}
_TOKEN: Final = re.compile("|".join(sorted(map(re.escape, [*_SOUNDS, *_STRESS, " "]), key=len, reverse=True)))
_IGNORED: Final = re.compile("[.‿͡ʰ]")


def mnemonics(ipa: str) -> str | None:
    """The mnemonics between `[[` and `]]`; None where a sign has none.

    IPA marks the stressed syllable at its beginning, espeak-ng before its vowel.
    """
    rest = _IGNORED.sub("", unicodedata.normalize("NFC", ipa.strip()))
    made: list[str] = []
    stress = ""
    at = 0
    while at < len(rest):
        found = _TOKEN.match(rest, at)
        if found is None:
            return None
        at = found.end()
        if found[0] in _STRESS:
            stress = _STRESS[found[0]]
            continue
        if found[0] == " ":
            made.append("||")
            continue
        if stress and found[0][0] in _VOWELS:
            made.append(stress)
            stress = ""
        made.append(_SOUNDS[found[0]])
    return "".join(made) or None
