"""Speech by rules with espeak-ng (GPL-3.0): over a hundred languages, clear and not natural; the last resort.

It is no part of NeuroEdge: used is the library of `espeakng-loader` (extra `voices`), else a program `espeak-ng` that
the machine has. The library knows when each word is said. It keeps its state in globals, so all calls of a process
share one lock.
"""

import ctypes
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Final

from neuroedge.contract.errors import InvalidInput, ModelFailed, ModelUnavailable
from neuroedge.contract.speech import INSTALL_VOICES, Part, SpeechPiece, WordTime
from neuroedge.kit.espeak_phonemes import mnemonics
from neuroedge.kit.speech_audio import of_pcm16, of_wav
from neuroedge.kit.waveform import Floats
from neuroedge.runtimes.threaded import Threaded

DEFAULT_VOICE: Final = "en-us"
USUAL_WORDS_PER_MINUTE: Final = 175
_SLOWEST, _FASTEST = 80, 900
"""Words a minute it can speak."""
_PROGRAM: Final = "espeak-ng"
_PROGRAM_S: Final = 60.0
_VOICE: Final = re.compile(r"[a-z]{2,3}[a-z0-9-]{0,30}(\+[a-z0-9]{1,10})?")
_WORD: Final = re.compile(r"\S*[^\W_]\S*")
_SYNCHRONOUS: Final = 2
_UTF8, _PHONEMES = 1, 0x100
_RATE: Final = 1
_WORD_EVENT, _END_EVENT = 1, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class EspeakVoice:
    """A voice as espeak-ng's files describe it."""

    id: str
    name: str
    languages: tuple[str, ...]


def installed() -> bool:
    """Whether there is anything to speak with; nothing is loaded for that."""
    return importlib.util.find_spec("espeakng_loader") is not None or shutil.which(_PROGRAM) is not None


@lru_cache(maxsize=1)
def voices() -> tuple[EspeakVoice, ...]:
    """The languages it speaks, by id, those it takes first for a language before others; none when not installed."""
    found = [_described(path) for path in sorted(_language_files())]
    ranked = sorted((one for one in found if one), key=lambda one: (one[1].id != DEFAULT_VOICE, one[0], one[1].id))
    return tuple(voice for _, voice in ranked)


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "Espeak":
    """Ready espeak-ng; `folder`, `threads` and `options` are not used. Raises ModelUnavailable."""
    if importlib.util.find_spec("espeakng_loader") is not None:
        try:
            return Espeak(model_id, _library())
        except OSError as error:
            raise ModelUnavailable(f"espeak-ng's library does not load: {error}", hint=INSTALL_VOICES) from error
    if (program := shutil.which(_PROGRAM)) is not None:
        return Espeak(model_id, _Program(program))
    raise ModelUnavailable("espeak-ng is not installed", hint=INSTALL_VOICES)


class Espeak(Threaded):
    """SpeechSynthesiser over espeak-ng."""

    def __init__(self, model_id: str, speaker: "_Library | _Program") -> None:
        super().__init__(model_id, cores=1)
        self._speaker = speaker

    async def say(
        self, parts: Sequence[Part], *, voice: str | None = None, language: str | None = None, speed: float = 1.0
    ) -> SpeechPiece:
        """Say `parts`; `voice` is a language of its own (en-us, de, hi), with a variant after a plus (en-us+f3).

        IPA is understood in English. Raises InvalidInput for a voice it has not.
        """
        name = voice or _of_language(language)
        if not _VOICE.fullmatch(name):
            raise InvalidInput(f"{name[:50]!r} is no voice of espeak-ng", hint="GET /v1/audio/voices lists them")
        text = _Text.of(parts, english=name.startswith("en"))
        wanted = round(USUAL_WORDS_PER_MINUTE * speed)
        rate = min(_FASTEST, max(_SLOWEST, wanted))
        warnings = list(text.warnings)
        if rate != wanted:
            warnings.append(
                f"espeak-ng speaks {rate / USUAL_WORDS_PER_MINUTE:.2g} times as fast as usual, not {speed:g}"
            )
        samples, rate_hz, words = await self._in_thread(lambda: self._speaker.speak(text, name, rate), cost=0.1)
        return SpeechPiece(samples=samples, rate_hz=rate_hz, words=words, warnings=warnings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """What espeak-ng reads, and where in it which word lies."""

    text: str
    words: Sequence[tuple[int, str]]
    """(end in characters, word), in order."""
    warnings: Sequence[str]

    @classmethod
    def of(cls, parts: Sequence[Part], *, english: bool) -> "_Text":
        text, words, warnings = "", [], []
        for part in parts:
            told = mnemonics(part.ipa) if part.ipa and english else None
            if part.ipa and told is None:
                warnings.append(f"espeak-ng cannot follow the pronunciation /{part.ipa}/ and reads {part.text!r}")
            # Two brackets of the text's own would be read as mnemonics.
            piece = f" [[{told}]] " if told else part.text.replace("[[", "[ [").replace("\0", " ")
            if told:
                words.append((len(text) + len(piece), part.text.strip()))
            else:
                words += [(len(text) + match.end(), match[0]) for match in _WORD.finditer(piece)]
            text += piece
        return cls(text=text, words=words, warnings=warnings)


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Library:
    """espeak-ng's shared library; one a process."""

    def __init__(self, path: str, data: str) -> None:
        self._lock = Lock()
        self._library = ctypes.CDLL(path)
        self.rate_hz = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), 0))
        if self.rate_hz <= 0:
            raise OSError("it does not find its data")
        self._sound: list[bytes] = []
        self._events: list[tuple[int, int, int]] = []
        # Kept, or the collector would free what the library calls.
        self._callback = _CALLBACK(self._heard)
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: _Text, voice: str, words_per_minute: int) -> tuple[Floats, int, list[WordTime]]:
        """(samples, Hz, words)."""
        data = text.text.encode("utf-8", "replace")
        with self._lock:
            self._sound, self._events = [], []
            if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise InvalidInput(f"{voice!r} is no voice of espeak-ng", hint="GET /v1/audio/voices lists them")
            self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
            # The library is one for the whole process: another user of it may have taken its sound.
            self._library.espeak_SetSynthCallback(self._callback)
            failed = self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8 | _PHONEMES, None, None)
            sound, events = b"".join(self._sound), self._events
        if failed:
            raise ModelFailed(f"espeak-ng failed with status {failed}", model_id="espeak-ng")
        samples = of_pcm16(sound)
        return samples, self.rate_hz, _timed(text, events, self.rate_hz, len(samples))

    def _heard(self, sound: Any, count: int, events: Any) -> int:
        if sound and count > 0:
            self._sound.append(ctypes.string_at(sound, count * 2))
        index = 0
        while (event := events[index]).type:
            if event.type in (_WORD_EVENT, _END_EVENT):
                self._events.append((event.type, event.text_position, event.sample))
            index += 1
        return 0


@lru_cache(maxsize=1)
def _library() -> _Library:
    import espeakng_loader

    return _Library(espeakng_loader.get_library_path(), espeakng_loader.get_data_path())


class _Program:
    """A program of the machine's own."""

    def __init__(self, path: str) -> None:
        self._path = path

    def speak(self, text: _Text, voice: str, words_per_minute: int) -> tuple[Floats, int, None]:
        """(samples, Hz, None): it does not tell when it says what."""
        command = [self._path, "-v", voice, "-s", str(words_per_minute), "-b", "1", "--stdin", "--stdout"]
        try:
            done = subprocess.run(
                command, input=text.text.encode("utf-8", "replace"), capture_output=True, timeout=_PROGRAM_S
            )
            if done.returncode or not done.stdout:
                raise InvalidInput(f"espeak-ng does not speak with the voice {voice!r}", hint="GET /v1/audio/voices")
            samples, rate_hz = of_wav(done.stdout)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise ModelFailed(f"the program espeak-ng failed: {error}", model_id="espeak-ng") from error
        return samples, rate_hz, None


def _timed(text: _Text, events: Sequence[tuple[int, int, int]], rate_hz: int, n_samples: int) -> list[WordTime]:
    """Each word from its first event to the next word's, or to where its clause ends."""
    starts: list[tuple[int, str]] = []
    ends: list[int] = []
    word = 0
    for kind, position, sample in events:
        if kind == _END_EVENT:
            ends.append(sample)
            continue
        before = word
        while word < len(text.words) and text.words[word][0] < position:
            word += 1
        if word < len(text.words) and (word != before or not starts):
            starts.append((sample, text.words[word][1]))
    timed: list[WordTime] = []
    for index, (start, said) in enumerate(starts):
        follows = starts[index + 1][0] if index + 1 < len(starts) else n_samples
        end = min([follows, *(stop for stop in ends if stop > start)])
        timed.append(WordTime(word=said, start_s=start / rate_hz, end_s=end / rate_hz))
    return timed


def _of_language(language: str | None) -> str:
    if language is None:
        return DEFAULT_VOICE
    wanted = language.lower()
    base = wanted.partition("-")[0]
    for tag in (wanted, base):
        for voice in voices():
            if tag in voice.languages:
                return voice.id
    raise InvalidInput(f"espeak-ng does not speak {language[:40]!r}", hint="GET /v1/audio/voices lists what it speaks")


def _language_files() -> list[Path]:
    if (found := importlib.util.find_spec("espeakng_loader")) is not None and found.origin:
        folders = [Path(found.origin).parent / "espeak-ng-data" / "lang"]
    elif shutil.which(_PROGRAM) is not None:
        places = ("/usr/share", "/usr/local/share", "/opt/homebrew/share", "/usr/lib/x86_64-linux-gnu")
        folders = [Path(place) / "espeak-ng-data" / "lang" for place in places]
    else:
        return []
    return [path for folder in folders if folder.is_dir() for path in folder.rglob("*") if path.is_file()]


def _described(path: Path) -> tuple[int, EspeakVoice] | None:
    """(its rank among voices of the same language, the voice) of a language file."""
    name, languages, rank, dictionary = path.name, list[str](), 5, path.name.partition("-")[0]
    for line in path.read_text("utf-8", "replace").splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "name":
            name = value.strip()
        elif key == "dictionary":
            dictionary = value.strip()
        elif key == "language" and value.split():
            tag, *priority = value.split()
            languages.append(tag.lower())
            rank = min(rank, int(priority[0]) if priority and priority[0].isdigit() else 5)
    data = next(parent for parent in path.parents if parent.name == "espeak-ng-data")
    if not languages or not (data / f"{dictionary}_dict").is_file():
        return None
    if languages[0] == "cmn":
        languages.append("zh")
    return rank, EspeakVoice(id=path.name.lower(), name=name, languages=tuple(languages))
