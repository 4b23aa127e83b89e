"""A tone as a WAV file: the smallest real sound, for examples and self-tests."""

import io
import math
import wave

_RATE_HZ = 8_000


def tone_wav(*, seconds: float, level: float = 0.25, hz: float = 440.0) -> bytes:
    """A sine of peak `level` (0..1) as an 8 kHz mono 8-bit WAV file; level 0 is digital silence."""
    step = 2 * math.pi * hz / _RATE_HZ
    values = bytes(round(128 + 127 * level * math.sin(step * i)) for i in range(round(seconds * _RATE_HZ)))
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1)
        out.setframerate(_RATE_HZ)
        out.writeframes(values)
    return file.getvalue()
