"""The subset of SSML 1.1 (W3C, 2010) that NeuroEdge speaks, read safely: what is to be said, in what way, with which
pauses.

Elements: speak, p, s, break, prosody, say-as, sub, phoneme, emphasis, voice, lang. Any other element or attribute
value is an error that names it and its line. No document type, entity or processing instruction is read, so that no
text can grow or reach for a file.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NoReturn, TypeVar
from xml.parsers import expat

from neuroedge.kit.say_as import INTERPRETATIONS, said_as

T = TypeVar("T")
MOST_ELEMENTS: Final = 5_000
DEEPEST: Final = 32
LONGEST_PAUSE_S: Final = 10.0
PARAGRAPH_PAUSE_S: Final = 0.6
_BREAKS_S: Final = {"none": 0.0, "x-weak": 0.1, "weak": 0.2, "medium": 0.4, "strong": 0.75, "x-strong": 1.2}
_RATES: Final = {"x-slow": 0.5, "slow": 0.75, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.6}
_PITCHES: Final = {"x-low": 0.8, "low": 0.9, "medium": 1.0, "default": 1.0, "high": 1.1, "x-high": 1.25}
_VOLUMES_DB: Final = {
    "silent": -math.inf,
    "x-soft": -12.0,
    "soft": -6.0,
    "medium": 0.0,
    "default": 0.0,
    "loud": 4.0,
    "x-loud": 6.0,
}
_EMPHASIS: Final = {"strong": (0.85, 4.0), "moderate": (0.93, 2.0), "none": (1.0, 0.0), "reduced": (1.08, -3.0)}
"""Rate and loudness in dB."""
_NUMBER: Final = re.compile(r"[+-]?(\d{1,4}(\.\d{1,4})?|\.\d{1,4})")
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,3}")
_ATTRIBUTES: Final[Mapping[str, frozenset[str]]] = {
    "speak": frozenset({"version", "xml:lang", "xmlns"}),
    "p": frozenset({"xml:lang"}),
    "s": frozenset({"xml:lang"}),
    "break": frozenset({"strength", "time"}),
    "prosody": frozenset({"rate", "pitch", "volume"}),
    "say-as": frozenset({"interpret-as", "format"}),
    "sub": frozenset({"alias"}),
    "phoneme": frozenset({"alphabet", "ph"}),
    "emphasis": frozenset({"level"}),
    "voice": frozenset({"name", "xml:lang"}),
    "lang": frozenset({"xml:lang"}),
}


class SsmlError(ValueError):
    """A text that is not of the subset; `str` says what is wrong and in which line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of what is to be said: its text, and its pronunciation in IPA where that is given."""

    text: str
    ipa: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How something is said."""

    rate: float = 1.0
    """Times the usual speed."""
    pitch: float = 1.0
    """Times the voice's own."""
    volume_db: float = 0.0
    voice: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Saying:
    """Connected words, said in one manner."""

    parts: tuple[Part, ...]
    manner: Manner


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Silence."""

    seconds: float


def read(text: str, *, language: str | None = None) -> list[Saying | Pause]:
    """What an SSML document tells to say. `language`: of what names none. Raises SsmlError."""
    reader = _Reader(language)
    parser = expat.ParserCreate(encoding="utf-8")
    parser.buffer_text = True
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    reader.line = lambda: parser.CurrentLineNumber
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.ProcessingInstructionHandler = reader.instruction
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        raise SsmlError(f"line {error.lineno}: {expat.ErrorString(error.code)}") from None
    except UnicodeEncodeError:
        raise SsmlError("holds half a character") from None
    return reader.finished()


def plain(text: str, *, manner: Manner) -> list[Saying | Pause]:
    """What a text without markup tells to say: its paragraphs, with pauses between them."""
    said: list[Saying | Pause] = []
    for paragraph in re.split(r"\n\s*\n", text):
        if words := " ".join(paragraph.split()):
            said += [Pause(seconds=PARAGRAPH_PAUSE_S)] if said else []
            said.append(Saying(parts=(Part(text=words),), manner=manner))
    return said


class _Reader:
    """Gathers what the parser finds."""

    def __init__(self, language: str | None) -> None:
        self.line: Callable[[], int] = lambda: 0
        self._manners = [Manner(language=language)]
        self._open: list[tuple[str, Mapping[str, str]]] = []
        self._elements = 0
        self._inside: list[str] | None = None
        """Text of the say-as, sub or phoneme that is open."""
        self._parts: list[Part] = []
        self._said: list[Saying | Pause] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element opens."""
        self._elements += 1
        if self._elements > MOST_ELEMENTS or len(self._open) >= DEEPEST:
            self.wrong(f"more than {MOST_ELEMENTS} elements, or {DEEPEST} within each other")
        if name not in _ATTRIBUTES:
            self.wrong(f"<{name[:40]}> is not understood; these are: {', '.join(_ATTRIBUTES)}")
        if (name == "speak") != (not self._open):
            self.wrong("<speak> must enclose everything, once")
        if self._inside is not None:
            self.wrong(f"<{name}> cannot stand within <{self._open[-1][0]}>")
        if unknown := next((one for one in attributes if one not in _ATTRIBUTES[name] and ":" not in one), None):
            self.wrong(f"<{name}> has no attribute {unknown[:40]!r} here")
        manner = self._manner(name, attributes)
        if manner != self._manners[-1] or name in ("p", "s"):
            self._flush()
        self._open.append((name, attributes))
        self._manners.append(manner)
        if name in ("say-as", "sub", "phoneme"):
            self._inside = []
        elif name == "break":
            self._flush()
            self._said.append(Pause(seconds=self._pause_s(attributes)))

    def end(self, name: str) -> None:
        """An element closes."""
        _, attributes = self._open.pop()
        if self._inside is not None:
            self._parts.append(self._read_otherwise(name, attributes, " ".join("".join(self._inside).split())))
            self._inside = None
        manner = self._manners.pop()
        if name in ("speak", "p", "s") or manner != self._manners[-1]:
            self._flush(manner)
        if name == "p":
            self._said.append(Pause(seconds=PARAGRAPH_PAUSE_S))

    def text(self, text: str) -> None:
        """Words."""
        if self._inside is not None:
            self._inside.append(text)
        elif text:
            self._parts.append(Part(text=text))

    def doctype(self, *_: object) -> None:
        """A document type could define entities."""
        self.wrong("a document type is not read; begin with <speak>")

    def instruction(self, *_: object) -> None:
        """An instruction is for another program."""
        self.wrong("processing instructions are not read")

    def finished(self) -> list[Saying | Pause]:
        """Everything, without pauses at the end."""
        while self._said and isinstance(self._said[-1], Pause):
            self._said.pop()
        return self._said

    def wrong(self, problem: str) -> NoReturn:
        """Raises SsmlError at this place."""
        raise SsmlError(f"line {self.line()}: {problem}")

    def _flush(self, manner: Manner | None = None) -> None:
        """What was gathered becomes a saying."""
        parts = [replace(part, text=re.sub(r"\s+", " ", part.text)) for part in self._parts]
        self._parts = []
        if any(part.text.strip() for part in parts):
            self._said.append(Saying(parts=_joined(parts), manner=manner or self._manners[-1]))

    def _manner(self, name: str, given: Mapping[str, str]) -> Manner:
        manner = self._manners[-1]
        if name == "prosody":
            manner = replace(
                manner,
                rate=self._limited(manner.rate * self._factor(given.get("rate"), _RATES, "rate"), 0.25, 4.0, "rate"),
                pitch=self._limited(manner.pitch * self._pitch(given.get("pitch")), 0.5, 2.0, "pitch"),
                volume_db=manner.volume_db + self._volume_db(given.get("volume")),
            )
        elif name == "emphasis":
            rate, volume_db = self._choice(given.get("level", "moderate"), _EMPHASIS, "level")
            manner = replace(
                manner,
                rate=self._limited(manner.rate * rate, 0.25, 4.0, "rate"),
                volume_db=manner.volume_db + volume_db,
            )
        elif name == "voice" and "name" in given:
            manner = replace(manner, voice=given["name"][:200])
        if (language := given.get("xml:lang")) is not None:
            if not _LANGUAGE.fullmatch(language):
                self.wrong(f"{language[:40]!r} is no language")
            manner = replace(manner, language=language)
        return manner

    def _read_otherwise(self, name: str, given: Mapping[str, str], text: str) -> Part:
        """The content of a say-as, sub or phoneme."""
        if name == "sub":
            return Part(text=given.get("alias") or self.wrong("<sub> needs an alias"))
        if name == "phoneme":
            if given.get("alphabet", "ipa") != "ipa":
                self.wrong('<phoneme> understands alphabet="ipa" only')
            return Part(text=text, ipa=given.get("ph") or self.wrong("<phoneme> needs ph"))
        how = given.get("interpret-as", "")
        if how not in INTERPRETATIONS:
            self.wrong(f"say-as {how[:40]!r} is not understood; these are: {', '.join(INTERPRETATIONS)}")
        try:
            return Part(text=said_as(text, how, form=given.get("format"), language=self._manners[-1].language))
        except ValueError as error:
            self.wrong(str(error))

    def _pause_s(self, given: Mapping[str, str]) -> float:
        if (time := given.get("time")) is None:
            return self._choice(given.get("strength", "medium"), _BREAKS_S, "strength")
        found = re.fullmatch(r"\+?(\d{1,5}(?:\.\d{1,4})?)(ms|s)", time)
        seconds = float(found[1]) / (1000 if found[2] == "ms" else 1) if found else math.nan
        if not seconds <= LONGEST_PAUSE_S:
            self.wrong(f"a break's time is 0ms to {LONGEST_PAUSE_S:g}s, not {time[:40]!r}")
        return seconds

    def _pitch(self, given: str | None) -> float:
        if given and (found := re.fullmatch(r"([+-]\d{1,2}(?:\.\d{1,2})?)st", given)):
            return float(2 ** (float(found[1]) / 12))
        return self._factor(given, _PITCHES, "pitch", signed=True)

    def _factor(self, given: str | None, names: Mapping[str, float], what: str, *, signed: bool = False) -> float:
        """A name, a percentage (of the usual; with a sign, more or less than it) or, unsigned, a factor."""
        if given is None or given in names:
            return names[given or "default"]
        number = given.removesuffix("%")
        if not _NUMBER.fullmatch(number) or (given == number and signed):
            self.wrong(f"{what} {given[:40]!r} is not understood; a percentage, or one of {', '.join(names)}")
        value = float(number)
        if given == number:
            return value
        return 1 + value / 100 if number[0] in "+-" else value / 100

    def _volume_db(self, given: str | None) -> float:
        if given is None or given in _VOLUMES_DB:
            return _VOLUMES_DB[given or "default"]
        number = given.removesuffix("dB")
        if given == number or not _NUMBER.fullmatch(number):
            self.wrong(f"volume {given[:40]!r} is not understood; as +3dB, or one of {', '.join(_VOLUMES_DB)}")
        return self._limited(float(number), -60.0, 12.0, "volume")

    def _limited(self, value: float, least: float, most: float, what: str) -> float:
        if not least <= value <= most:
            self.wrong(f"{what} comes to {value:g}; {least:g} to {most:g} can be spoken")
        return value

    def _choice(self, given: str, names: Mapping[str, T], what: str) -> T:
        if given not in names:
            self.wrong(f"{what} {given[:40]!r} is not one of {', '.join(names)}")
        return names[given]


def _joined(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Neighbouring plain texts as one."""
    joined: list[Part] = []
    for part in parts:
        if joined and part.ipa is None and joined[-1].ipa is None:
            joined[-1] = Part(text=joined[-1].text + part.text)
        else:
            joined.append(part)
    return tuple(joined)
