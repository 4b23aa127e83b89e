"""The phones of English, where they stand in a word, and the phonological processes that exchange or drop them.

Phones are written in IPA, General American, vowels without length. Processes are those of Shriberg & Kwiatkowski 1980
("Natural process analysis") and Ingram 1976, as Bernthal, Bankson & Flipsen, "Articulation and phonological disorders",
list them. Percentage of consonants correct: Shriberg & Kwiatkowski 1982, "Phonological disorders III", JSHD 47.
"""

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Position = Literal["initial", "medial", "final"]

CONSONANTS: Final = tuple("p b t d k ɡ m n ŋ f v θ ð s z ʃ ʒ h t͡ʃ d͡ʒ l ɹ w j".split())  # noqa: SIM905
VOWELS: Final = tuple("i ɪ eɪ ɛ æ ɑ ɔ oʊ ʊ u ʌ ə ɝ aɪ aʊ ɔɪ".split())  # noqa: SIM905
GLOTTAL_STOP: Final = "ʔ"
"""Heard, never expected."""
PHONES: Final = (*CONSONANTS, *VOWELS, GLOTTAL_STOP)
INDEX: Final = {phone: i for i, phone in enumerate(PHONES)}

_SAME: Final[dict[str, str]] = {
    "g": "ɡ", "r": "ɹ", "ɻ": "ɹ", "ɫ": "l", "ɦ": "h", "ʍ": "w", "tʰ": "t", "pʰ": "p", "kʰ": "k", "t͡ɕ": "t͡ʃ",
    "tʃ": "t͡ʃ", "ʧ": "t͡ʃ", "dʒ": "d͡ʒ", "ʤ": "d͡ʒ", "ɾ": "t", "e": "ɛ", "eə": "ɛ", "a": "ɑ", "ɒ": "ɑ", "ɐ": "ʌ",
    "o": "oʊ", "əʊ": "oʊ", "ɚ": "ɝ", "ɜ": "ɝ", "ɝː": "ɝ", "ɨ": "ɪ", "ᵻ": "ɪ", "ɪə": "ɪ", "ʉ": "u", "ɵ": "ʊ",
}  # fmt: skip
"""Spellings and realisations that count as one of `PHONES`."""
_ARPABET: Final = dict(
    zip(
        "P B T D K G M N NG F V TH DH S Z SH ZH HH CH JH L R W Y IY IH EY EH AE AA AO OW UH UW AH ER AY AW OY".split(),  # noqa: SIM905
        (phone for phone in PHONES if phone not in ("ə", GLOTTAL_STOP)),
        strict=True,
    )
)
_ARPABET_VOWELS: Final = frozenset(name for name, phone in _ARPABET.items() if phone in VOWELS)
_FLAP: Final = "ɾ"
_MARKS: Final = re.compile("[ˈˌːˑ.‿̩̯̪̃ʰʲʷˠ̚\u0329|/\\[\\]()]")
_LONGEST_FIRST: Final = sorted({*PHONES, *_SAME}, key=len, reverse=True)
_REDUCED: Final = ("ə", "ɪ", "ʌ", "ɛ", "ʊ", "ɝ")
_ALIKE: Final[dict[str, tuple[str, ...]]] = {
    "i": ("ɪ",), "ɪ": ("ə", "i", "ɛ"), "eɪ": ("ɛ",), "ɛ": ("ɪ", "æ", "eɪ"), "æ": ("ɛ", "ɑ"), "ɑ": ("ɔ", "ʌ", "æ"),
    "ɔ": ("ɑ", "oʊ"), "oʊ": ("ɔ", "ə"), "ʊ": ("u", "ə", "ʌ"), "u": ("ʊ",), "ʌ": ("ə", "ɑ"), "ə": _REDUCED,
    "ɝ": ("ə", "ʌ"), "aɪ": ("ɑ",), "aʊ": ("ɑ", "æ"), "ɔɪ": ("ɔ", "oʊ"),
}  # fmt: skip
"""Vowels heard for another in accents of English and in connected speech: no error is made of them."""


def phones_of(ipa: str) -> list[str]:
    """The phones of a word in IPA without stress, length and diacritics. Raises ValueError for what is no phone."""
    phones: list[str] = []
    rest = ipa.replace("ʤ", "d͡ʒ").replace("ʧ", "t͡ʃ")
    while rest:
        known = next((p for p in _LONGEST_FIRST if rest.startswith(p)), None)
        if known is not None:
            phones.append(_SAME.get(known, known))
            rest = rest[len(known) :]
        elif _MARKS.match(rest):
            rest = rest[1:]
        else:
            raise ValueError(f"'{rest[0]}' is no phone of English in IPA")
    return phones


def from_arpabet(names: Sequence[str]) -> list[str]:
    """The phones of a word in the CMU dictionary's notation; AH is the schwa in words of several syllables."""
    vowels = sum(name[:2] in _ARPABET_VOWELS for name in names)
    phones = [_ARPABET[name.rstrip("012")] for name in names]
    return ["ə" if phone == "ʌ" and vowels > 1 else phone for phone in phones]


def pooled(log_p: NDArray[np.float32], symbols: Sequence[str], blank: int) -> Doubles:
    """[frames, len(PHONES) + 1]: a recogniser's log probabilities of `PHONES` and, last, of everything else.

    A flap is both a /t/ and a /d/ of American English. Word boundaries and diacritics are no sound and join the blank.
    """
    members: list[list[int]] = [[] for _ in PHONES]
    rest = [blank]
    for i, symbol in enumerate(symbols):
        phone = _SAME.get(symbol, symbol)
        if phone in INDEX:
            members[INDEX[phone]].append(i)
            if symbol == _FLAP:
                members[INDEX["d"]].append(i)
        elif i != blank and (symbol.startswith("<") or _MARKS.match(symbol)):
            rest.append(i)
    columns = [np.logaddexp.reduce(log_p[:, m].astype(np.float64), axis=1) for m in [*members, rest]]
    return np.stack(columns, axis=1)


def realised(log_p: Doubles, expected: Sequence[str], *, reduced: Sequence[bool]) -> Doubles:
    """[frames, n]: log probability of each expected phone in any form that is right.

    A vowel may be one that accents and connected speech put in its place; any vowel where `reduced` says so, as in the
    little words of a sentence.
    """
    out = np.empty((len(log_p), len(expected)))
    for i, phone in enumerate(expected):
        if phone in VOWELS:
            forms = VOWELS if reduced[i] else (phone, *_ALIKE[phone])
            out[:, i] = np.logaddexp.reduce(log_p[:, [INDEX[f] for f in forms]], axis=1)
        else:
            out[:, i] = log_p[:, INDEX[phone]]
    return out


def alike(a: str, b: str) -> bool:
    """Whether two phones are the same or vowels that accents exchange."""
    return a == b or b in _ALIKE.get(a, ()) or a in _ALIKE.get(b, ())


_WEAK: Final = (
    "a an the and or but of to at in on for from with as than that is are was were am be been has have had do does did "
    "can could shall should will would must he she it we they me him her us them his hers its our your you i my their "
    "so if not there this"
)
WEAK_WORDS: Final = frozenset(_WEAK.split())
"""Words that connected speech weakens: their vowels may be anything, and what they drop is no error."""
SlipType = Literal["substitution", "omission", "addition", "distortion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slip:
    """A difference between a word as expected and as said."""

    type: SlipType
    word: tuple[str, ...]
    """The expected phones of the word."""
    place: int
    """Which of them is hit; an addition stands before it, or at the end."""
    heard: str | None
    """What is there instead; None for an omission or where it cannot be told."""

    @property
    def expected(self) -> str | None:
        """The phone that is hit; None for an addition."""
        return None if self.type == "addition" else self.word[self.place]


def position(word: Sequence[str], place: int) -> Position:
    """Where in its word a phone stands; a phone before the first vowel is initial, one behind the last is final."""
    vowels = [i for i, phone in enumerate(word) if phone in VOWELS]
    if place == 0 or (vowels and place < vowels[0]):
        return "initial"
    return "final" if place >= len(word) - 1 or (vowels and place > vowels[-1]) else "medial"


def in_cluster(word: Sequence[str], place: int) -> bool:
    """Whether a consonant has another consonant beside it."""
    return any(0 <= j < len(word) and word[j] in CONSONANTS for j in (place - 1, place + 1))


def percent_consonants_correct(expected: Sequence[str], wrong: Iterable[int]) -> float | None:
    """PCC: share of the intended consonants said right, in percent; None without consonants.

    `wrong` are the places of omitted, substituted and distorted phones; additions do not count.
    """
    total = sum(phone in CONSONANTS for phone in expected)
    missed = sum(expected[i] in CONSONANTS for i in set(wrong))
    return 100 * (total - missed) / total if total else None


@cache
def _features() -> dict[str, dict[str, str]]:
    """panphon's features of each consonant (Mortensen et al. 2016): name to "+", "-" or "0".

    Its table is read without importing panphon, which takes seconds and compiles with warnings.
    """
    spec = find_spec("panphon")
    if spec is None or not spec.submodule_search_locations:
        return {}
    with Path(spec.submodule_search_locations[0], "data", "ipa_all.csv").open(encoding="utf-8", newline="") as file:
        rows = {row.pop("ipa"): row for row in csv.DictReader(file)}
    return {phone: rows[phone] for phone in (*CONSONANTS, GLOTTAL_STOP) if phone in rows}


def changed_features(expected: str, heard: str) -> list[str]:
    """The distinctive features (panphon's names, "+voi" as heard) by which two consonants differ."""
    a, b = _features().get(expected), _features().get(heard)
    return [] if a is None or b is None else [f"{b[name]}{name}" for name in a if a[name] != b[name]]


_VELAR, _PALATAL, _ALVEOLAR = set("kɡŋ"), {"ʃ", "ʒ", "t͡ʃ", "d͡ʒ"}, set("tdnszθð")
_FRICATIVES, _AFFRICATES, _STOPS = set("fvθðszʃʒh"), {"t͡ʃ", "d͡ʒ"}, {*"pbtdkɡ", GLOTTAL_STOP}
_NASALS, _LIQUIDS = set("mnŋ"), set("lɹ")
_VOICED_OF = dict(
    zip(("p", "t", "k", "f", "θ", "s", "ʃ", "t͡ʃ"), ("b", "d", "ɡ", "v", "ð", "z", "ʒ", "d͡ʒ"), strict=True)
)
_VOICELESS_OF = {voiced: voiceless for voiceless, voiced in _VOICED_OF.items()}
_Test = Callable[[Slip, str, str], bool]


def _exchange(of: set[str], by: set[str]) -> _Test:
    return lambda slip, expected, heard: expected in of and heard in by


_EXCHANGES: Final[tuple[tuple[str, str, _Test], ...]] = (
    ("velar fronting", "a velar is said at the gum: k as t", _exchange(_VELAR, _ALVEOLAR)),
    ("palatal fronting", "sh, zh, ch or j is said at the gum: sh as s", _exchange(_PALATAL, set("szθð"))),
    ("backing", "a consonant of the gum is said as a velar: t as k", _exchange(_ALVEOLAR, _VELAR)),
    ("stopping", "a fricative or affricate becomes a stop: s as t", _exchange(_FRICATIVES | _AFFRICATES, _STOPS)),
    ("gliding", "a liquid becomes a glide: r as w", _exchange(_LIQUIDS, set("wj"))),
    ("deaffrication", "an affricate becomes a fricative: ch as sh", _exchange(_AFFRICATES, _FRICATIVES)),
    ("affrication", "a fricative becomes an affricate: sh as ch", _exchange(_FRICATIVES, _AFFRICATES)),
    ("labialisation", "a dental is said with the lip: th as f", _exchange(set("θð"), set("fvpbm"))),
    ("dentalisation", "s or z is said between the teeth: s as th", _exchange(set("sz"), set("θð"))),
    ("denasalisation", "a nasal becomes a stop: m as b", _exchange(_NASALS, _STOPS)),
    ("nasalisation", "a stop becomes a nasal: b as m", _exchange(_STOPS, _NASALS)),
    ("glottal replacement", "a glottal stop stands for a consonant", lambda s, e, h: h == GLOTTAL_STOP),
    ("vocalisation", "a liquid becomes a vowel", lambda s, e, h: e in _LIQUIDS and h in VOWELS),
    ("voicing", "a voiceless consonant is voiced: p as b", lambda s, e, h: _VOICED_OF.get(e) == h),
    (
        "final devoicing",
        "a voiced consonant is voiceless at the end: d as t",
        lambda s, e, h: _VOICELESS_OF.get(e) == h and position(s.word, s.place) == "final",
    ),
)
_PLACES: Final[tuple[tuple[str, str, Callable[[Slip], bool]], ...]] = (
    ("cluster reduction", "part of a cluster is left out: spoon as poon", lambda s: in_cluster(s.word, s.place)),
    ("initial consonant deletion", "the first consonant is left out", lambda s: s.place == 0),
    ("final consonant deletion", "the last consonant is left out", lambda s: s.place == len(s.word) - 1),
)


def processes_of(slip: Slip) -> list[tuple[str, str]]:
    """Name and definition of the phonological processes a slip may show; several may, none must."""
    if slip.type == "addition":
        joins = slip.heard in VOWELS and 0 < slip.place < len(slip.word) and in_cluster(slip.word, slip.place)
        return [("epenthesis", "a vowel is put into a cluster: blue as buh-lue")] if joins else []
    expected = slip.word[slip.place]
    if slip.type == "omission":
        if expected in VOWELS:
            return [("weak syllable deletion", "a syllable is left out: banana as nana")]
        return [(name, text) for name, text, fits in _PLACES if fits(slip)][:1]
    if slip.type == "distortion" or slip.heard is None:
        return []
    return [(name, text) for name, text, fits in _EXCHANGES if fits(slip, expected, slip.heard)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A pattern of a dialect or of another first language: no error."""

    about: str
    fits: Callable[[Slip], bool]


def _said_for(of: str, by: str) -> Callable[[Slip], bool]:
    pairs = set(zip(of.split(), by.split(), strict=True))
    return lambda slip: (slip.expected, slip.heard) in pairs


def _dropped(phones: str, *, where: Position | None = None, cluster: bool = False) -> Callable[[Slip], bool]:
    of = set(phones.split())
    return lambda slip: (
        slip.type == "omission"
        and slip.expected in of
        and (where is None or position(slip.word, slip.place) == where)
        and (not cluster or in_cluster(slip.word, slip.place))
    )


def _either(*tests: Callable[[Slip], bool]) -> Callable[[Slip], bool]:
    return lambda slip: any(test(slip) for test in tests)


def _coda(slip: Slip) -> bool:
    return slip.place + 1 == len(slip.word) or slip.word[slip.place + 1] in CONSONANTS


def _in_coda(phone: str) -> Callable[[Slip], bool]:
    return lambda slip: (
        slip.expected == phone and _coda(slip) and (slip.heard is None or slip.heard in (*VOWELS, "w", "j"))
    )


DIALECTS: Final[dict[str, Dialect]] = {
    "non_rhotic": Dialect(about="no r at the end of a syllable", fits=_in_coda("ɹ")),
    "th_fronting": Dialect(about="th as f or v", fits=_said_for("θ ð", "f v")),
    "th_stopping": Dialect(about="th as t or d", fits=_said_for("θ ð", "t d")),
    "th_alveolar": Dialect(about="th as s or z, as speakers of French or German may", fits=_said_for("θ ð", "s z")),
    "g_dropping": Dialect(about="-ing as -in", fits=_said_for("ŋ", "n")),
    "h_dropping": Dialect(about="no h", fits=_dropped("h")),
    "t_glottalling": Dialect(
        about="t as a glottal stop, which may sound left out",
        fits=_either(
            _said_for("t", GLOTTAL_STOP), lambda s: s.type == "omission" and s.expected == "t" and s.place > 0
        ),
    ),
    "l_vocalisation": Dialect(about="l at the end of a syllable as a vowel", fits=_in_coda("l")),
    "final_cluster_reduction": Dialect(
        about="the last of two final consonants left out, as in African American English",
        fits=_dropped("t d k p", where="final", cluster=True),
    ),
    "final_devoicing": Dialect(
        about="final consonants without voice",
        fits=lambda s: s.heard == _VOICELESS_OF.get(s.expected or "") and position(s.word, s.place) == "final",
    ),
    "v_w_exchange": Dialect(
        about="v and w exchanged, as speakers of Indian languages may", fits=_said_for("v w", "w v")
    ),
}
