"""espeak-ng (GPL, dev group only) through its C library: speech whose rate, pitch and phones are known exactly."""

import ctypes
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 22_050
VOWELS = frozenset("aeiouɐɑɒæəɛɜɝɚɪɨᵻʊʌɔøœyʏ")

_SYNCHRONOUS = 2
_PHONEME_EVENTS_IPA = 3
_UTF8 = 1
_PHONEMES = 0x100
_RATE, _PITCH, _RANGE = 1, 3, 4
_EVENT_PHONEME, _EVENT_END = 7, 0


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(kw_only=True)
class Spoken:
    """Speech [n] at 16 kHz with its phones: symbol (IPA), start and end in seconds."""

    samples: NDArray[np.float32]
    phones: list[tuple[str, float, float]] = field(default_factory=list)

    @property
    def vowels(self) -> list[tuple[float, float]]:
        """Start and end of each vowel; a diphthong is one."""
        return [(start, end) for symbol, start, end in self.phones if symbol and symbol.strip("ˈˌː")[:1] in VOWELS]


class _Espeak:
    """The library; one utterance at a time."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS_IPA)
        if rate != RATE_HZ:
            raise RuntimeError(f"espeak-ng speaks at {rate} Hz")
        self._pieces: list[NDArray[np.int16]] = []
        self._marks: list[tuple[str, float]] = []
        self._callback = _Callback(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, wave: "ctypes._Pointer[ctypes.c_short]", count: int, events: "ctypes._Pointer[_Event]") -> int:
        i = 0
        while events[i].type != _EVENT_END:
            if events[i].type == _EVENT_PHONEME:
                symbol = bytes(events[i].id.string).split(b"\0")[0].decode(errors="replace")
                self._marks.append((symbol, events[i].audio_position / 1000))
            i += 1
        if wave and count > 0:
            self._pieces.append(np.ctypeslib.as_array(wave, (count,)).copy())
        return 0

    def say(self, text: str, *, voice: str, words_per_minute: int, pitch: int, pitch_range: int) -> Spoken:
        """Speak a text."""
        from scipy.signal import resample_poly

        self._pieces, self._marks = [], []
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        for what, value in ((_RATE, words_per_minute), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(what, value, 0)
        raw = text.encode()
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, _UTF8 | _PHONEMES, None, None)
        wave = np.concatenate(self._pieces) / 32_768.0
        samples = resample_poly(wave, 320, 441).astype(np.float32)
        ends = [*(at for _, at in self._marks[1:]), len(samples) / 16_000]
        phones = [(symbol, at, end) for (symbol, at), end in zip(self._marks, ends, strict=True) if end > at]
        return Spoken(samples=samples, phones=phones)


@lru_cache(maxsize=1)
def _espeak() -> _Espeak:
    return _Espeak()


def say(
    text: str, *, voice: str = "en-us", words_per_minute: int = 175, pitch: int = 50, pitch_range: int = 50
) -> Spoken:
    """`text` in a voice; `pitch` and its range are 0..100 as espeak-ng counts them."""
    return _espeak().say(text, voice=voice, words_per_minute=words_per_minute, pitch=pitch, pitch_range=pitch_range)
