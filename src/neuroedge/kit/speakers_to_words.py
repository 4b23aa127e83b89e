"""Gives each transcribed word its speaker, and groups the words into segments one can read and cite."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from neuroedge.kit.diarization import Turn

_PAUSE_S = 1.0
_LONG_S = 3.0
"""About one sentence: short enough to cite by its second and to hear one feeling in, long enough to stand alone."""
MAX_SEGMENT_S = 60.0
MAX_SEGMENT_CHARS = 1000
"""Speech that recognisers write without full stops must not become a segment nobody can read, cite or classify."""
_SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！")
_CLOSING = "\"'”’»)]"
_FLIP_PAUSE_S = 0.3
_WEAK_SHARE = 0.6
_WEAK_TURN_S = 0.4
_WEAK_CONFIDENCE = 0.7
_UNSPACED_SENTENCES = ("CJK", "HIRAGANA", "KATAKANA")
_UNSPACED_SCRIPTS = (*_UNSPACED_SENTENCES, "THAI", "LAO", "KHMER", "MYANMAR")
"""No spaces between words; Thai and its neighbours do have one between sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedWord:
    """A recognised word, with or without the leading space Whisper gives; `p` is its probability."""

    w: str
    start_s: float
    end_s: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenSegment:
    """Words of one speaker in a row; `confidence` is the mean probability of its words. No speaker: nobody known."""

    speaker: str | None
    start_s: float
    end_s: float
    text: str
    words: tuple[TimedWord, ...]
    confidence: float


@dataclass(frozen=True, slots=True)
class _Claim:
    speaker: str | None
    weak: bool


def segments_by_speaker(words: Sequence[TimedWord], turns: Sequence[Turn]) -> list[SpokenSegment]:
    """Segments in order of time that together hold every word once.

    A word belongs to the speaker whose turns cover most of it, in a gap to the nearest turn's. A lone word between
    words of one other speaker goes to that speaker when its own evidence is weak (split word, tiny or doubtful turn)
    and no pause sets it apart. A segment ends at a change of speaker, at a pause of more than 1 s, and at the end of a
    sentence once it is longer than 3 s. What is still longer than 60 s or 1000 characters is cut between words, at a
    long gap where there is one; only a single word may be longer. No segment ends before it starts. Both lists must be
    sorted by start; without turns no segment has a speaker.
    """
    if not words:
        return []
    speakers = _smoothed(words, [_claim(word, turns) for word in words])
    spaced = any(word.w.startswith(" ") for word in words)
    bounds = [0, *(i for i in range(1, len(words)) if speakers[i] != speakers[i - 1] or _pauses(words, i)), len(words)]
    segments: list[SpokenSegment] = []
    for first, stop in pairwise(bounds):
        for sentence in _sentences(words[first:stop]):
            for part in _readable(sentence):
                segments.append(_segment(part, speakers[first], spaced=spaced))
    return segments


def _claim(word: TimedWord, turns: Sequence[Turn]) -> _Claim:
    if not turns:
        return _Claim(None, weak=False)
    covered: dict[str, float] = {}
    for turn in turns:
        shared = min(word.end_s, turn.end_s) - max(word.start_s, turn.start_s)
        if shared > 0:
            covered[turn.speaker] = covered.get(turn.speaker, 0.0) + shared
    middle = (word.start_s + word.end_s) / 2
    if not covered:
        return _Claim(min(turns, key=lambda turn: _distance(turn, middle)).speaker, weak=True)
    speaker = max(covered, key=lambda name: covered[name])
    turn = min((turn for turn in turns if turn.speaker == speaker), key=lambda turn: _distance(turn, middle))
    share = covered[speaker] / max(word.end_s - word.start_s, 1e-9)
    doubtful = turn.end_s - turn.start_s < _WEAK_TURN_S or turn.confidence < _WEAK_CONFIDENCE
    return _Claim(speaker, weak=share < _WEAK_SHARE or doubtful)


def _distance(turn: Turn, at_s: float) -> float:
    return max(turn.start_s - at_s, at_s - turn.end_s, 0.0)


def _smoothed(words: Sequence[TimedWord], claims: Sequence[_Claim]) -> list[str | None]:
    speakers = [claim.speaker for claim in claims]
    for i in range(1, len(words) - 1):
        before, after = speakers[i - 1], claims[i + 1].speaker
        apart = max(words[i].start_s - words[i - 1].end_s, words[i + 1].start_s - words[i].end_s)
        if claims[i].weak and before == after != speakers[i] and apart <= _FLIP_PAUSE_S:
            speakers[i] = before
    return speakers


def _pauses(words: Sequence[TimedWord], i: int) -> bool:
    return words[i].start_s - words[i - 1].end_s > _PAUSE_S


def _sentences(words: Sequence[TimedWord]) -> list[Sequence[TimedWord]]:
    """`words` cut after each sentence end that leaves a part longer than 3 s behind it."""
    parts: list[Sequence[TimedWord]] = []
    first = 0
    for i, word in enumerate(words):
        if ends_sentence(word.w) and word.end_s - words[first].start_s > _LONG_S:
            parts.append(words[first : i + 1])
            first = i + 1
    return [*parts, words[first:]] if first < len(words) else parts


def ends_sentence(word: str) -> bool:
    """Whether a sentence is over with this word."""
    return word.strip().rstrip(_CLOSING).endswith(_SENTENCE_ENDS)


def _readable(words: Sequence[TimedWord]) -> list[Sequence[TimedWord]]:
    """`words` cut into parts within the limits, each at the longest gap in the second half of what would fit."""
    parts: list[Sequence[TimedWord]] = []
    while (fit := _fitting(words)) < len(words):
        cut = max(range(fit // 2 + 1, fit + 1), key=lambda i: (words[i].start_s - words[i - 1].end_s, i))
        parts.append(words[:cut])
        words = words[cut:]
    return [*parts, words]


def _fitting(words: Sequence[TimedWord]) -> int:
    """How many of the first words are within the limits, at least one; a space is counted for each."""
    chars, end_s = 0, 0.0
    for i, word in enumerate(words):
        chars += len(word.w.strip()) + 1
        end_s = max(end_s, word.end_s)
        if i and (chars > MAX_SEGMENT_CHARS or end_s - words[0].start_s > MAX_SEGMENT_S):
            return i
    return len(words)


def joined(words: Sequence[TimedWord]) -> str:
    """The text of words, by the spaces they carry; where none carries one, by how their script is written."""
    return _text([word.w for word in words], spaced=any(word.w.startswith(" ") for word in words))


def with_spaces(words: Sequence[str], text: str, *, after: str = "") -> list[str]:
    """The words with a leading space where `text`, which they make up, has one; the first one has one too.

    "cold-hearted" may be two words, "cold" and "-hearted", that no space parts. A word the text does not have gets one.
    `after`: what was said before `text`; in Chinese and Japanese no space parts the two.
    """
    found: list[str] = []
    at = 0
    for word in words:
        start = text.find(word, at)
        parted = start != at if at else not _follows(after, word)
        found.append(f" {word}" if parted else word)
        at = start + len(word) if start >= 0 else at
    return found


def one_text(texts: Sequence[str]) -> str:
    """Texts said one after the other as one: parted by spaces, except in Chinese, Japanese and Thai."""
    whole = ""
    for text in filter(None, texts):
        whole += text if not whole or _follows(whole, text) else f" {text}"
    return whole


def _follows(before: str, word: str) -> bool:
    """Whether a word comes without a space after a text that was said before it."""
    return bool(before and word) and any(
        unicodedata.name(char, "").startswith(_UNSPACED_SENTENCES) for char in (before[-1], word[0])
    )


def _segment(words: Sequence[TimedWord], speaker: str | None, *, spaced: bool) -> SpokenSegment:
    return SpokenSegment(
        speaker=speaker,
        start_s=words[0].start_s,
        end_s=max(words[0].start_s, *(word.end_s for word in words)),
        text=_text([word.w for word in words], spaced=spaced),
        words=tuple(words),
        confidence=sum(word.p for word in words) / len(words),
    )


def _text(words: Sequence[str], *, spaced: bool) -> str:
    """Joined text; where the words carry no spaces, one goes between words of scripts that write them."""
    if spaced:
        return "".join(words).strip()
    text = ""
    for word in words:
        text += word if not text or not word or _adjoins(text[-1], word) else " " + word
    return text


def _adjoins(last: str, word: str) -> bool:
    if all(unicodedata.category(char) in ("Po", "Pe", "Pf") for char in word):
        return True
    return unicodedata.name(last, "").startswith(_UNSPACED_SCRIPTS) or unicodedata.name(word[0], "").startswith(
        _UNSPACED_SCRIPTS
    )
