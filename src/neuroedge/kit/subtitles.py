"""Subtitles and transcripts as files: SubRip, WebVTT, RTTM, plain text.

Cues follow the limits of Netflix' Timed Text Style Guide (English, adults): two lines of 42 characters, 5/6 s to 7 s,
at most 20 characters a second. They are cut between words only, best at the end of a sentence or at a comma.
Formats: SubRip (no standard; as players read it), WebVTT (W3C), RTTM (NIST Rich Transcription 2009).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

MIN_CUE_S: Final = 5 / 6
MAX_CUE_S: Final = 7.0
MAX_CHARS: Final = 42
MAX_LINES: Final = 2
CHARS_PER_S: Final = 20.0
_GAP_S: Final = 1 / 12
"""Two frames of film: left between a cue and the next where one is held longer than it was spoken; none is shorter."""
_PAUSE_S: Final = 1.0
_TURN_GAP_S: Final = 0.5
_ENDS: Final = (".", "?", "!", "…", "。", "？", "！")
_HALTS: Final = (*_ENDS, ",", ";", ":", "、", "，")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """What one speaker said without a break; `words` are (word, start, end in seconds), none when not known."""

    text: str
    start_s: float
    end_s: float
    speaker: str | None = None
    words: Sequence[tuple[str, float, float]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """What is shown at once; it may not be read within its time where speech is faster than reading."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class _Piece:
    """A word with the space before it."""

    text: str
    start_s: float
    end_s: float


def cues(
    spoken: Iterable[Spoken], *, max_chars: int = MAX_CHARS, max_lines: int = MAX_LINES, named: bool = False
) -> list[Cue]:
    """Cues in order of time, each of one speaker; one is held until it can be read, unless the next one begins.

    Cues of people who speak at once may overlap. A single word longer than a line stands alone in one. `named`: where
    the speaker changes, the words begin with the name and a colon.
    """
    found: list[Cue] = []
    before: str | None = None
    for part in spoken:
        words = _pieces(part)
        if named and words and part.speaker and part.speaker != before:
            first = words[0]
            label = _Piece(f"{flat(part.speaker)}:", first.start_s, first.start_s)
            words = [label, _Piece(f" {first.text.lstrip()}", first.start_s, first.end_s), *words[1:]]
        before = part.speaker
        for pieces in _parts(words, max_chars=max_chars, max_lines=max_lines):
            lines = _lines(pieces, max_chars=max_chars)
            end_s = max(pieces[0].start_s, *(piece.end_s for piece in pieces))
            found.append(Cue(start_s=pieces[0].start_s, end_s=end_s, lines=lines, speaker=part.speaker))
    found.sort(key=lambda cue: (cue.start_s, cue.end_s))
    return _held(found)


def whole(spoken: Iterable[Spoken]) -> list[Cue]:
    """One cue of one line for each stretch of speech, whatever its length."""
    return [Cue(start_s=s.start_s, end_s=s.end_s, lines=(flat(s.text),), speaker=s.speaker) for s in spoken]


def srt(shown: Iterable[Cue]) -> str:
    """A SubRip file; it has no field for speakers."""
    blocks = []
    for n, cue in enumerate(shown, 1):
        lines = "\n".join(_srt_text(line) for line in cue.lines)
        blocks.append(f"{n}\n{clock(cue.start_s, ',')} --> {clock(cue.end_s, ',')}\n{lines}\n\n")
    return "".join(blocks)


def vtt(shown: Iterable[Cue]) -> str:
    """A WebVTT file; speakers are voice tags, which players can show or style."""
    blocks = ["WEBVTT\n\n"]
    for cue in shown:
        voice = f"<v {_vtt_text(cue.speaker)}>" if cue.speaker else ""
        lines = "\n".join(_vtt_text(line) for line in cue.lines)
        blocks.append(f"{clock(cue.start_s, '.')} --> {clock(cue.end_s, '.')}\n{voice}{lines}\n\n")
    return "".join(blocks)


def rttm(turns: Iterable[tuple[str, float, float]], *, file_id: str) -> str:
    """SPEAKER lines of (speaker, start, end in seconds); blanks in names become underscores, RTTM is split by them."""
    rows = []
    for name, start_s, end_s in turns:
        length_s = max(0.0, end_s - start_s)
        rows.append(f"SPEAKER {_token(file_id)} 1 {start_s:.3f} {length_s:.3f} <NA> <NA> {_token(name)} <NA> <NA>\n")
    return "".join(rows)


def turns_of(spoken: Iterable[Spoken]) -> list[tuple[str, float, float]]:
    """(speaker, start, end) of what is said, pauses of one speaker up to 0.5 s bridged; nobody's speech left out."""
    turns: list[tuple[str, float, float]] = []
    for part in spoken:
        if part.speaker is None:
            continue
        if turns and turns[-1][0] == part.speaker and part.start_s - turns[-1][2] <= _TURN_GAP_S:
            turns[-1] = (part.speaker, turns[-1][1], max(turns[-1][2], part.end_s))
        else:
            turns.append((part.speaker, part.start_s, part.end_s))
    return turns


def plain(spoken: Iterable[Spoken]) -> str:
    """A paragraph for each stretch of one speaker, with its time: [00:00:01] S1: Hello."""
    paragraphs: list[tuple[str | None, float, list[str]]] = []
    for part in spoken:
        if paragraphs and paragraphs[-1][0] == part.speaker:
            paragraphs[-1][2].append(flat(part.text))
        else:
            paragraphs.append((part.speaker, part.start_s, [flat(part.text)]))
    return "".join(
        f"[{clock(start_s, '.')[:8]}] {f'{flat(speaker)}: ' if speaker else ''}{' '.join(texts)}\n"
        for speaker, start_s, texts in paragraphs
    )


def clock(seconds: float, point: str) -> str:
    """HH:MM:SS and milliseconds after `point`; hours go past 99."""
    ms = max(0, round(seconds * 1000))
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"


def flat(text: str) -> str:
    """In one line."""
    return " ".join(text.split())


def _pieces(part: Spoken) -> list[_Piece]:
    """Its words as they stand in its text; where they do not, or are not known, its text's with times by length."""
    text, at, pieces = part.text.strip(), 0, []
    for word, start_s, end_s in part.words:
        place = text.find(word.strip(), at)
        if place < 0:
            return _spread(part)
        pieces.append(_Piece(text[at : place + len(word.strip())], start_s, end_s))
        at = place + len(word.strip())
    return pieces or _spread(part)


def _spread(part: Spoken) -> list[_Piece]:
    words = part.text.split()
    chars = sum(map(len, words))
    per_char_s = max(0.0, part.end_s - part.start_s) / max(1, chars)
    pieces, at_s = [], part.start_s
    for word in words:
        pieces.append(_Piece(f" {word}", at_s, at_s + len(word) * per_char_s))
        at_s = pieces[-1].end_s
    return pieces


def _parts(pieces: Sequence[_Piece], *, max_chars: int, max_lines: int) -> list[Sequence[_Piece]]:
    """Cut into what fits a cue: after a sentence's end, else a comma, in the second half of what would fit."""
    parts: list[Sequence[_Piece]] = []
    while pieces:
        fit = _fitting(pieces, max_chars=max_chars, max_lines=max_lines)
        cut = fit
        if fit < len(pieces) and pieces[fit].start_s - pieces[fit - 1].end_s <= _PAUSE_S:
            later = range(fit, fit // 2, -1)
            for marks in (_ENDS, _HALTS):
                if (at := next((i for i in later if pieces[i - 1].text.endswith(marks)), None)) is not None:
                    cut = at
                    break
        parts.append(pieces[:cut])
        pieces = pieces[cut:]
    return parts


def _fitting(pieces: Sequence[_Piece], *, max_chars: int, max_lines: int) -> int:
    """How many of the first words fit a cue and stand in no pause, at least one."""
    for i in range(1, len(pieces)):
        if pieces[i].start_s - pieces[i - 1].end_s > _PAUSE_S:
            return i
        too_long = pieces[i].end_s - pieces[0].start_s > MAX_CUE_S
        if too_long or len(_filled(pieces[: i + 1], width=max_chars)) > max_lines:
            return i
    return len(pieces)


def _filled(pieces: Sequence[_Piece], *, width: int) -> list[str]:
    """Lines of at most `width` characters, each as full as it gets."""
    lines: list[str] = []
    for piece in pieces:
        if lines and len(lines[-1]) + len(piece.text) <= width:
            lines[-1] += piece.text
        else:
            lines.append(piece.text.strip())
    return lines


def _lines(pieces: Sequence[_Piece], *, max_chars: int) -> tuple[str, ...]:
    """As few lines as needed, as even as that allows."""
    needed = len(_filled(pieces, width=max_chars))
    width = max_chars
    while width > 1 and len(_filled(pieces, width=width - 1)) == needed:
        width -= 1
    return tuple(map(flat, _filled(pieces, width=width)))


def _held(found: Sequence[Cue]) -> list[Cue]:
    """Each cue long enough to be read, up to the next one that begins after it was spoken."""
    held = []
    for cue, after in pairwise([*found, None]):
        assert cue is not None
        wanted_s = max(MIN_CUE_S, sum(map(len, cue.lines)) / CHARS_PER_S)
        until_s = cue.start_s + min(wanted_s, MAX_CUE_S)
        if after is not None:
            until_s = min(until_s, after.start_s - _GAP_S)
        held.append(replace(cue, end_s=max(cue.end_s, until_s, cue.start_s + _GAP_S)))
    return held


def _srt_text(text: str) -> str:
    """In one line, without an arrow or what players take for a tag: SubRip knows no escapes."""
    return re.sub(r"<(?=[A-Za-z/])", "< ", flat(text).replace("-->", "->")).replace("{\\", "{ \\")


def _vtt_text(text: str) -> str:
    return flat(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _token(text: str) -> str:
    return "_".join(text.split()) or "unknown"
