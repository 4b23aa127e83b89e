"""A voice detector and a recogniser that follow the sound's level, so that tests know what is said when."""

import asyncio
from typing import Any

import numpy as np

from neuroedge.contract.errors import InvalidInput, NeuroEdgeError
from neuroedge.contract.models import (
    SAMPLE_RATE_HZ,
    VOICE_FRAME,
    Floats,
    SpokenWord,
    Transcription,
    Utterance,
    VoiceState,
)

WORD_S = 0.4


class LoudIsSpeech:
    """VoiceActivity: a frame is speech when it is loud."""

    model_id = "scripted-vad"

    def __init__(self) -> None:
        self.delay_s = 0.0

    async def listen(self, samples: Floats, state: VoiceState | None) -> tuple[Floats, VoiceState]:
        """0.9 or 0.02 for each frame."""
        await asyncio.sleep(self.delay_s)
        loud = np.abs(samples.reshape(-1, VOICE_FRAME)).max(axis=1) > 0.01
        return np.where(loud, 0.9, 0.02).astype(np.float32), VoiceState(None)


class CountsWords:
    """SpeechToText: a word for each 0.4 s of loud sound, named by its loudness: w10 is at 0.10."""

    model_id = "scripted-stt"

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.calls: list[dict[str, Any]] = []
        self.called = asyncio.Event()
        """Set by every call for real sound."""
        self.may_end = asyncio.Event()
        """While it is not set, calls for real sound wait."""
        self.may_end.set()
        self.failures: list[NeuroEdgeError] = []
        """Raised by the next calls for real sound, in turn."""
        self.sentence = 0
        """A word whose number is a multiple of this one ends a sentence."""

    async def transcribe(self, samples: Floats, *, language: str | None = None, **asked: Any) -> Transcription:
        """The words that are over by the end of `samples`."""
        if language == "xx":
            raise InvalidInput("scripted-stt does not know the language 'xx'")
        if np.abs(samples).max(initial=0) > 0:
            self.calls.append({"seconds": len(samples) / SAMPLE_RATE_HZ, "language": language, **asked})
            self.called.set()
            if self.failures:
                raise self.failures.pop(0)
            await self.may_end.wait()
        await asyncio.sleep(self.delay_s)
        words = _words(samples, self.sentence)
        spoken = Utterance(
            text=" ".join(word.w for word in words),
            start_s=0.0,
            end_s=len(samples) / SAMPLE_RATE_HZ,
            words=words,
            avg_logprob=-0.2,
            no_speech_prob=0.01,
        )
        return Transcription(
            utterances=[spoken] if words else [],
            language=language or "en",
            language_p=0.9,
            duration_s=len(samples) / SAMPLE_RATE_HZ,
        )


def _words(samples: Floats, sentence: int) -> list[SpokenWord]:
    found: list[SpokenWord] = []
    for first, stop in _loud(samples):
        size = round(WORD_S * SAMPLE_RATE_HZ)
        for start in range(first, stop, size):
            piece = samples[start : min(start + size, stop)]
            if len(piece) < size // 2:
                break
            number = round(float(np.abs(piece).max()) * 100)
            found.append(
                SpokenWord(
                    w=f"w{number}" + ("." if sentence and number % sentence == 0 else ""),
                    start_s=start / SAMPLE_RATE_HZ,
                    end_s=min(start + size, len(samples)) / SAMPLE_RATE_HZ,
                    p=0.9,
                )
            )
    return found


def _loud(samples: Floats) -> list[tuple[int, int]]:
    """Stretches [start, stop) of sound."""
    loud = np.concatenate([[0], np.abs(samples) > 0.01, [0]]).astype(np.int8)
    edges = np.diff(loud)
    return [
        (int(start), int(stop))
        for start, stop in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True)
    ]


def spoken(*levels: float) -> Floats:
    """A word of each loudness, one after the other."""
    size = round(WORD_S * SAMPLE_RATE_HZ)
    return np.concatenate([np.full(size, level, np.float32) for level in levels])


def silence(seconds: float) -> Floats:
    """Nothing."""
    return np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32)


def pcm16(samples: Floats) -> bytes:
    """As a client sends it."""
    return (samples * 32_767).round().astype("<i2").tobytes()
