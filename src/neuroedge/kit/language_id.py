"""Which language a text is in, and where it changes: scripts by Unicode, languages by py3langid, pieces by Viterbi.

Languages: naive Bayes over byte n-grams (Lui & Baldwin 2012, langid.py; py3langid, BSD), among the languages that are
written in the script at hand. Pieces: the sentences of a text, of which runs of one script are told apart; the most
probable sequence of languages where a change costs `CHANGE_NATS` (Viterbi 1967), so that a short sentence goes with
its neighbours.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

UNDETERMINED: Final = "und"
CHANGE_NATS: Final = 3.0
"""What a change of language between two pieces costs, in natural logarithm of probability."""
MIN_LETTERS: Final = 4
"""Fewer letters are no evidence in scripts of many languages."""
_LEAST_P: Final = 1e-6
_RARE: Final = 0.1
"""How likely, beforehand, a language without a two-letter code is beside one with it: few texts are in it."""
_SHORT_CHARS: Final = 20
"""A shorter sentence is told together with the next one."""
_SCRIPTS: Final = {
    "Latn": "Latin",
    "Cyrl": "Cyrillic",
    "Arab": "Arabic",
    "Deva": "Devanagari",
    "Beng": "Bengali",
    "Taml": "Tamil",
    "Telu": "Telugu",
    "Gujr": "Gujarati",
    "Guru": "Gurmukhi",
    "Knda": "Kannada",
    "Mlym": "Malayalam",
    "Orya": "Oriya",
    "Sinh": "Sinhala",
    "Hani": "Han",
    "Hira": "Hiragana",
    "Kana": "Katakana",
    "Hang": "Hangul",
    "Grek": "Greek",
    "Hebr": "Hebrew",
    "Armn": "Armenian",
    "Geor": "Georgian",
    "Ethi": "Ethiopic",
    "Thai": "Thai",
    "Laoo": "Lao",
    "Khmr": "Khmer",
    "Mymr": "Myanmar",
    "Tibt": "Tibetan",
}
"""ISO 15924 codes and Unicode's names; others are Zyyy."""
OTHER_SCRIPT: Final = "Zyyy"
_LANGUAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "Cyrl": ("be", "bg", "kk", "ky", "mk", "mn", "ru", "sr", "tg", "tt", "uk", "ba", "uz", "az"),
    "Arab": ("ar", "arz", "ary", "fa", "ps", "ug", "ur", "ku", "sdh"),
    "Deva": ("hi", "mr", "ne", "sa", "gom"),
    "Beng": ("bn", "as"),
    "Taml": ("ta",),
    "Telu": ("te",),
    "Gujr": ("gu",),
    "Guru": ("pa",),
    "Knda": ("kn",),
    "Mlym": ("ml",),
    "Orya": ("or",),
    "Sinh": ("si",),
    "Hani": ("zh", "yue", "wuu"),
    "Jpan": ("ja",),
    "Kore": ("ko",),
    "Grek": ("el", "grc"),
    "Hebr": ("he", "hbo"),
    "Armn": ("hy",),
    "Geor": ("ka",),
    "Ethi": ("am",),
    "Thai": ("th",),
    "Laoo": ("lo",),
    "Khmr": ("km",),
    "Mymr": ("my",),
    "Tibt": ("dz",),
}
"""Of the languages known, those written in a script; all that are written in none of these are written in Latin."""
_ALSO_LATIN: Final = ("az", "uz", "sr", "ku")
_JOINED: Final = {"Hira": "Jpan", "Kana": "Jpan", "Hang": "Kore"}
_SENTENCE: Final = re.compile(r"[^.!?…。！？।॥\n]+[.!?…。！？।॥\n]*\s*|[.!?…。！？।॥\n]+\s*")
_LIKELY: Final = 8
"""Languages of a piece that may be its language in a mixed text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """A language with its probability, among those of the script."""

    lang: str
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguagePiece:
    """Characters `start` to `end` of the text, in one language and script; `lang` is und where nothing tells."""

    start: int
    end: int
    lang: str
    p: float
    script: str
    letters: int


def known_languages() -> list[str]:
    """Codes (ISO 639-1 where there is one, else 639-3) of the languages that can be told, sorted."""
    return sorted(set(_identifier().labels) - {"zxx"})


def scripts(text: str) -> dict[str, int]:
    """Letters by ISO 15924 code of their script, most first; Japanese and Korean as Jpan and Kore."""
    counts = Counter({code: sum(len(run.group()) for run in runs) for code, runs in _runs_by_script(text).items()})
    for part, whole in _JOINED.items():
        counts[whole] += counts.pop(part, 0)
    if counts["Jpan"]:  # what is written with kana is Japanese with its Chinese characters
        counts["Jpan"] += counts.pop("Hani", 0)
    return {code: n for code, n in counts.most_common() if n}


def guesses(text: str, *, among: Sequence[str] | None = None) -> list[Guess]:
    """Languages of a text taken as one piece, most probable first; none for a text without letters.

    `among`: codes that come into question. Raises ValueError for a code that is not known.
    """
    found = scripts(text)
    if not found:
        return []
    allowed = _allowed(next(iter(found)))
    if among is not None:
        if unknown := set(among) - set(_identifier().labels):
            raise ValueError(f"languages that are not known: {', '.join(sorted(unknown))}")
        allowed &= frozenset(among)
    ranked = [(lang, p * (1 if len(lang) == 2 else _RARE)) for lang, p in _identifier().rank(text) if lang in allowed]
    total = sum(p for _, p in ranked)
    found_of = [Guess(lang=lang, p=p / total) for lang, p in ranked] if total > 0 else []
    return sorted(found_of, key=lambda guess: -guess.p)


def pieces(text: str, *, among: Sequence[str] | None = None) -> list[LanguagePiece]:
    """Stretches of one language in one script that cover the text; none where it has no letters."""
    units = list(_units(text))
    if not units:
        return []
    ranked = [guesses(text[start:end], among=among) for start, end, _ in units]
    merged: list[tuple[int, int, str, str]] = []
    for (start, end, script), lang in zip(units, _sequence(ranked), strict=True):
        if merged and merged[-1][2:] == (lang, script):
            merged[-1] = (merged[-1][0], end, lang, script)
        else:
            merged.append((start, end, lang, script))
    return [_piece(text, *each, among) for each in merged]


def _piece(text: str, start: int, end: int, lang: str, script: str, among: Sequence[str] | None) -> LanguagePiece:
    inside = text[start:end]
    letters = sum(scripts(inside).values())
    p = next((g.p for g in guesses(inside, among=among) if g.lang == lang), 0.0)
    one = len(_LANGUAGES.get(script, ())) == 1
    if script == OTHER_SCRIPT or (letters < MIN_LETTERS and not one):
        lang, p = UNDETERMINED, 0.0
    return LanguagePiece(start=start, end=end, lang=lang, p=p, script=script, letters=letters)


def _sequence(ranked: Sequence[Sequence[Guess]]) -> list[str]:
    """The most probable language of each piece, when a change costs CHANGE_NATS."""
    candidates = [
        {g.lang: float(np.log(max(g.p, _LEAST_P))) for g in each[:_LIKELY]} or {UNDETERMINED: 0.0} for each in ranked
    ]
    # A language that is likely somewhere may be the language anywhere it is possible at all.
    floor = float(np.log(_LEAST_P))
    languages = sorted({lang for each in candidates for lang in each})
    possible = [{g.lang: g.p for g in each} for each in ranked]
    scores: NDArray[np.float64] = np.array(
        [
            [
                np.log(max(_LEAST_P, possible[i][lang])) if lang in possible[i] else each.get(lang, 4 * floor)
                for lang in languages
            ]
            for i, each in enumerate(candidates)
        ]
    )
    best, back = scores[0], np.zeros(scores.shape, int)
    for i in range(1, len(scores)):
        changed = int(np.argmax(best))
        stays = best >= best[changed] - CHANGE_NATS
        back[i] = np.where(stays, np.arange(len(languages)), changed)
        best = np.where(stays, best, best[changed] - CHANGE_NATS) + scores[i]
    at, found = int(np.argmax(best)), list[str]()
    for i in range(len(scores) - 1, -1, -1):
        found.append(languages[at])
        at = int(back[i, at])
    return found[::-1]


def _units(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, script) of the sentences, cut where the script changes; what has no letters goes with the piece
    before it."""
    waiting: tuple[int, int, str] | None = None
    for sentence in _SENTENCE.finditer(text):
        japanese = "Jpan" in scripts(sentence.group())
        for start, end, script in _script_runs(sentence.group(), sentence.start(), japanese=japanese):
            if waiting is not None and not script:
                waiting = (waiting[0], end, waiting[2])
                continue
            if waiting is not None and (not waiting[2] or _short(waiting, script)):
                waiting = (waiting[0], end, script)
                continue
            if waiting is not None:
                yield waiting
            waiting = (start, end, script)
    if waiting is not None and waiting[2]:
        yield waiting


def _short(piece: tuple[int, int, str], script: str) -> bool:
    start, end, of = piece
    return of == script and end - start < _SHORT_CHARS


def _script_runs(sentence: str, offset: int, *, japanese: bool) -> Iterator[tuple[int, int, str]]:
    """Runs of a sentence; a script of less than a tenth of its letters (a name, a formula) does not count."""
    found = scripts(sentence)
    if not found:
        yield offset, offset + len(sentence), ""
        return
    total = sum(found.values())
    counted = {code for code, n in found.items() if n >= 0.1 * total and n >= MIN_LETTERS} or {next(iter(found))}
    if len(counted) == 1:
        yield offset, offset + len(sentence), next(iter(counted))
        return
    at, current = 0, ""
    for start, code in sorted(
        (run.start(), _JOINED.get(code, "Jpan" if japanese and code == "Hani" else code))
        for code, runs in _runs_by_script(sentence).items()
        for run in runs
    ):
        if code not in counted or code == current:
            continue
        if current:
            yield offset + at, offset + start, current
            at = start
        current = code
    yield offset + at, offset + len(sentence), current


def _runs_by_script(text: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for run in _pattern().finditer(text):
        found.setdefault(run.lastgroup, []).append(run)
    return found


@lru_cache(maxsize=64)
def _allowed(script: str) -> frozenset[str]:
    if script in _LANGUAGES:
        return frozenset(_LANGUAGES[script])
    if script == OTHER_SCRIPT:
        return frozenset()
    elsewhere = {lang for langs in _LANGUAGES.values() for lang in langs} - set(_ALSO_LATIN)
    return frozenset(_identifier().labels) - elsewhere - {"zxx"}


@lru_cache(maxsize=1)
def _pattern() -> Any:
    import regex  # type: ignore[import-untyped]

    known = "|".join(rf"(?P<{code}>(?:\p{{Script={name}}}\p{{M}}*)+)" for code, name in _SCRIPTS.items())
    return regex.compile(rf"{known}|(?P<{OTHER_SCRIPT}>(?:\p{{L}}\p{{M}}*)+)")


@lru_cache(maxsize=1)
def _identifier() -> Any:
    # Imported on first use: with its weights it takes more than a second.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
