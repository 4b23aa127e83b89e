"""espeak-ng as the tests' and benchmarks' speaker: says text, or exactly the phonemes it is told to.

espeak-ng is GPL-3.0 and comes with `espeakng_loader` of the dev group; it is called here through its C interface, one
call at a time for the whole process, as its state is global.
"""

import ctypes
from functools import cache
from threading import Lock
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_SYNCHRONOUS: Final = 2
"""AUDIO_OUTPUT_SYNCHRONOUS: sound goes to the callback."""
_UTF8: Final = 1
_PHONEMES: Final = 0x100
"""espeakPHONEMES: [[...]] holds phoneme names."""
_RATE_WPM, _PITCH, _RANGE = 1, 3, 4
_SEPARATED: Final = ord("_") << 8
_SPEAKING = Lock()
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Espeak:
    """The library, initialised once."""

    def __init__(self) -> None:
        import espeakng_loader

        self.library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        self.pieces: list[NDArray[np.int16]] = []
        self._callback = _CALLBACK(self._hear)  # kept: C holds only a pointer to it
        self.rate_hz: int = self.library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
        assert self.rate_hz > 0, "espeak-ng does not start"
        self.library.espeak_TextToPhonemes.restype = ctypes.c_char_p

    def listen(self) -> None:
        """Take the sound that follows: the library is one for the whole process, and another speaker may have it."""
        self.library.espeak_SetSynthCallback(self._callback)

    def _hear(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self.pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


@cache
def _espeak() -> _Espeak:
    return _Espeak()


def say(text: str, *, voice: str = "en-us", rate_wpm: int = 150, pitch: int = 50) -> NDArray[np.float32]:
    """`text` as float32 [n] at 16 kHz; phonemes in [[double brackets]] are said as they are.

    `voice` is a language of espeak-ng with an optional variant ("en-us+f3"); `pitch` 0 to 99.
    """
    espeak = _espeak()
    with _SPEAKING:
        assert espeak.library.espeak_SetVoiceByName(voice.encode()) == 0, f"espeak-ng has no voice {voice}"
        espeak.library.espeak_SetParameter(_RATE_WPM, rate_wpm, 0)
        espeak.library.espeak_SetParameter(_PITCH, pitch, 0)
        espeak.pieces.clear()
        espeak.listen()
        data = text.encode() + b"\0"
        espeak.library.espeak_Synth(data, len(data), 0, 1, 0, _UTF8 | _PHONEMES, None, None)
        espeak.library.espeak_Synchronize()
        sound = np.concatenate(espeak.pieces) if espeak.pieces else np.zeros(0, np.int16)
    return _at_16_khz((sound / 32768).astype(np.float32), espeak.rate_hz)


def phonemes(text: str, *, voice: str = "en-us") -> list[list[str]]:
    """espeak-ng's phoneme names for each word of `text`, stress marks included, as `say` takes them in brackets."""
    espeak = _espeak()
    with _SPEAKING:
        assert espeak.library.espeak_SetVoiceByName(voice.encode()) == 0, f"espeak-ng has no voice {voice}"
        data = ctypes.c_char_p(text.encode())
        pointer = ctypes.pointer(ctypes.cast(data, ctypes.c_void_p))
        words: list[list[str]] = []
        while pointer.contents:
            clause: bytes = espeak.library.espeak_TextToPhonemes(pointer, _UTF8, _SEPARATED)
            words += [[name for name in word.split("_") if name] for word in clause.decode().split()]
    return words


def _at_16_khz(sound: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """Low-passed and resampled by the Fourier method, which suits short pieces."""
    from scipy.signal import resample

    count = round(len(sound) * 16_000 / rate_hz)
    return np.asarray(resample(sound, count), np.float32) if count else sound[:0]
