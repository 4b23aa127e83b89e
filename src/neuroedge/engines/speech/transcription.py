"""Transcription: speech to text with the time and probability of every word.

Method: Whisper (Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision"; MIT) on CTranslate2,
beam search, also into English from other languages; word times by dynamic time warping over its cross-attention, cut
back to the sound of each word (kit/word_times.py);
Silero VAD keeps silence and noise from it.
Limits: it may mishear names (hot words can help; a small model may get worse and slower by them), drops hesitations
and the quieter of two who speak at once; probabilities are the model's own, not calibrated. Not for decisions about a
person without someone listening again.
"""

import asyncio
import base64
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from pydantic import BaseModel, Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import MediaTooShort, ModelUnavailable
from neuroedge.contract.models import SPEECH_TO_TEXT, Floats, SpeechTask, Utterance
from neuroedge.contract.ports import AudioSource, Progress
from neuroedge.kit.speakers_to_words import one_text
from neuroedge.kit.tone import tone_wav
from neuroedge.kit.word_times import trimmed

MIN_DURATION_S = 0.25
STAGE = "transcription"
_REPORT_EVERY_S = 0.5
_UNDETERMINED = "und"


class Input(EngineInput):
    """A recording and what is known of it."""

    audio: AudioSource = Field(description="The recording.")
    language: str | None = Field(
        default=None,
        pattern="^([a-z]{2,3}|auto)$",
        description="Language spoken, as ISO 639-1 code (en, de, ...); null or auto: detected in its first speech.",
    )
    task: SpeechTask = Field(
        default="transcribe", description="transcribe: in the language spoken; translate: in English."
    )
    hot_words: list[Annotated[str, Field(min_length=1, max_length=80)]] = Field(
        default_factory=list, max_length=50, description="Names and terms that may occur, to be spelt like this."
    )


class Word(BaseModel):
    """A recognised word."""

    w: str = Field(description="The word, with the punctuation that clings to it.")
    start_s: float = Field(description="Start, in seconds.")
    end_s: float = Field(description="End, in seconds.")
    p: float = Field(description="The model's probability of the word, 0..1.")


class Segment(BaseModel):
    """A stretch of speech recognised in one piece."""

    text: str = Field(description="What was said.")
    start_s: float = Field(description="Start, in seconds.")
    end_s: float = Field(description="End, in seconds.")
    confidence: float = Field(description="Geometric mean of the token probabilities, 0..1; not calibrated.")
    words: list[Word] = Field(description="The words with their times.")


class Output(EngineOutput):
    """What was said; empty when nobody spoke."""

    text: str = Field(description="The whole text.")
    language: str | None = Field(description="Language spoken, given or detected (ISO 639-1); null when nobody spoke.")
    task: SpeechTask = Field(description="transcribe: the text is in that language; translate: it is in English.")
    language_p: float = Field(description="Probability of the detected language, 0..1; 1 when it was given.")
    duration_s: float = Field(description="Length of the recording, in seconds.")
    segments: list[Segment] = Field(description="The text in pieces, in order.")


class TranscriptionEngine(Engine[Input, Output]):
    """Turns speech into text."""

    name = "transcription"
    title = "Speech to text with word times"
    method = "whisper"
    example = Input(audio=AudioSource(base64=base64.b64encode(tone_wav(seconds=0.5)).decode()), language="en")
    needs = (SPEECH_TO_TEXT,)
    timeout_s = 4 * 3600.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Transcribe one recording, reporting progress. Raises MediaTooShort under 0.25 s, InvalidInput for a language
        the model does not know, and what decoding raises.
        """
        audio = await ctx.media.audio(payload.audio)
        if audio.duration_s < MIN_DURATION_S:
            raise MediaTooShort(
                f"{audio.duration_s:.2f} s of audio; at least {MIN_DURATION_S} s are needed", hint="record longer"
            )
        async with ctx.models.lease(SPEECH_TO_TEXT) as model, _relayed(ctx.progress) as on_progress:
            heard = await model.transcribe(
                audio.samples,
                language=None if payload.language == "auto" else payload.language,
                hot_words=payload.hot_words,
                on_progress=on_progress,
                task=payload.task,
            )
            answered_by = model.model_id
        await ctx.progress(STAGE, 1.0)
        return Output(
            method=self.method,
            models=[answered_by],
            text=one_text([u.text for u in heard.utterances]),
            language=None if heard.language == _UNDETERMINED else heard.language,
            task=payload.task,
            language_p=round(heard.language_p, 4),
            duration_s=round(heard.duration_s, 3),
            segments=await asyncio.to_thread(lambda: [_segment(u, audio.samples) for u in heard.utterances]),
        )

    async def post_swap_test(self) -> None:
        """Prove that the model answers by the contract, and that it hears no words in a second of silence."""
        await super().post_swap_test()
        silence = base64.b64encode(tone_wav(seconds=1.0, level=0.0)).decode()
        heard = await self.run(Input(audio=AudioSource(base64=silence)), self.probe)
        if heard.text:
            raise ModelUnavailable(
                f"{', '.join(heard.models)} hears {heard.text!r} in silence", hint="run `neuroedge models verify`"
            )


@asynccontextmanager
async def _relayed(progress: Progress) -> AsyncIterator[Callable[[float], None]]:
    """A function for worker threads that passes the newest fraction on to `progress`, at most twice a second."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    newest = 0.0

    def keep(fraction: float) -> None:
        nonlocal newest
        newest = fraction
        changed.set()

    async def relay() -> None:
        while True:
            await changed.wait()
            changed.clear()
            await progress(STAGE, newest)
            await asyncio.sleep(_REPORT_EVERY_S)

    task = asyncio.create_task(relay())
    try:
        yield lambda fraction: _hop(loop, keep, fraction)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _hop(loop: asyncio.AbstractEventLoop, keep: Callable[[float], None], fraction: float) -> None:
    loop.call_soon_threadsafe(keep, fraction)


def _segment(utterance: Utterance, samples: Floats) -> Segment:
    times = trimmed([(word.start_s, word.end_s) for word in utterance.words], samples)
    start_s, end_s = (times[0][0], times[-1][1]) if times else (utterance.start_s, utterance.end_s)
    return Segment(
        text=utterance.text,
        start_s=round(start_s, 3),
        end_s=round(max(start_s, end_s), 3),
        confidence=round(min(1.0, math.exp(utterance.avg_logprob)), 4),
        words=[
            Word(w=word.w, start_s=round(start, 3), end_s=round(end, 3), p=round(word.p, 4))
            for word, (start, end) in zip(utterance.words, times, strict=True)
        ],
    )
