"""The models behind live sessions: is there speech, and what was said."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from neuroedge.contract.errors import DeadlineExceeded
from neuroedge.contract.models import (
    SAMPLE_RATE_HZ,
    SPEECH_TO_TEXT,
    VOICE_ACTIVITY,
    VOICE_FRAME,
    Floats,
    Models,
    Transcription,
    VoiceState,
)
from neuroedge.contract.scope import call_scope
from neuroedge.kit.local_agreement import without_echo
from neuroedge.kit.speakers_to_words import TimedWord, with_spaces
from neuroedge.services.live.options import LiveOptions
from neuroedge.services.live.utterance import Heard, Tape, Utterance

ENGINE = "transcription"
"""What a session is, to permissions and usage: the same work as that engine's, only sooner."""
DECODE_S = 30.0
"""Longest a piece of speech may take."""
MOST_BEFORE_S: Final = 6.0
"""Sound before an utterance that is kept for it."""
_ENOUGH_S: Final = 14.0
"""An utterance of so much is recognised by itself: more sound takes longer, and somebody waits (9 s were too few)."""
_LOADING_S = 120.0
_SURE_LANGUAGE_S = 2.0
_QUICK_BEAM = 1
_THOROUGH_BEAM = 5


class Recogniser:
    """Calls the models for one session; before all work that nobody waits for."""

    def __init__(self, *, models: Models, options: LiveOptions) -> None:
        self._models = models
        self._options = options
        self._language = None if options.language == "auto" else options.language
        self.model_id = ""
        self.seconds = 0.0
        """Time the recognition took so far, waiting for the model included."""

    async def open(self) -> None:
        """Load the models, so that the first words need not wait for them.

        Raises ModelUnavailable, NotEnoughMemory; InvalidInput for a language the model does not know.
        """
        await self.voice(np.zeros(VOICE_FRAME, np.float32), None, timeout_s=_LOADING_S)
        await self.hear(np.zeros(SAMPLE_RATE_HZ // 4, np.float32), 0, thorough=False, timeout_s=_LOADING_S)

    async def voice(
        self, samples: Floats, state: VoiceState | None, *, timeout_s: float = DECODE_S
    ) -> tuple[Floats, VoiceState]:
        """Probability of speech of the next frames, as VoiceActivity.listen."""
        with call_scope(timeout_s=timeout_s, priority="high"):
            try:
                async with asyncio.timeout(timeout_s), self._models.lease(VOICE_ACTIVITY, priority="high") as model:
                    return await model.listen(samples, state)
            except TimeoutError as error:
                raise DeadlineExceeded("the voice activity model does not answer", hint="try again later") from error

    async def hear_of(self, utterance: Utterance, tape: Tape, end: int, *, thorough: bool) -> Heard:
        """What is said in an utterance until sample `end` of the stream, though no words before or after it.

        A thorough recognition of a short one also listens to the sound before it, as far as its language is known.
        Raises what `hear` does.
        """
        end = min(end, tape.end)
        own = end - utterance.start
        # A short piece does not tell its language for sure: then that of the speech before it holds.
        sure = own >= _SURE_LANGUAGE_S * SAMPLE_RATE_HZ
        if thorough and (self._language is not None or utterance.told_language or not sure):
            start = max(utterance.spoken_from, utterance.start - _context(own))
            if start < utterance.start:
                heard = await self.hear(tape.slice(start, end), start, thorough=True, language=utterance.language)
                if words := _own(heard.words, utterance, end):
                    return replace(heard, words=words)
                # All of it was put into the pause before it: alone, there is no such place.
        language = None if sure else utterance.language
        heard = await self.hear(tape.slice(utterance.start, end), utterance.start, thorough=thorough, language=language)
        if sure and heard.language is not None:
            utterance.language, utterance.told_language = heard.language, True
        return replace(heard, words=_own(heard.words, utterance, end))

    async def hear(
        self,
        samples: Floats,
        start: int,
        *,
        thorough: bool,
        language: str | None = None,
        timeout_s: float = DECODE_S,
    ) -> Heard:
        """What is said in `samples`, which begin at sample `start` of the stream.

        `language`: what is taken for granted where the client named none. Raises DeadlineExceeded, Overloaded,
        ModelUnavailable, InvalidInput.
        """
        began = time.monotonic()
        with call_scope(timeout_s=timeout_s, priority="high"):
            try:
                async with asyncio.timeout(timeout_s), self._models.lease(SPEECH_TO_TEXT, priority="high") as model:
                    self.model_id = model.model_id
                    found = await model.transcribe(
                        samples,
                        language=self._language or language,
                        hot_words=self._options.hot_words,
                        prompt=self._options.prompt,
                        beam_size=_THOROUGH_BEAM if thorough else _QUICK_BEAM,
                        vad=False,
                        live=True,
                    )
            except TimeoutError as error:
                raise DeadlineExceeded(
                    f"speech was not recognised within {timeout_s:g} s", hint="the server has too much to do"
                ) from error
            finally:
                self.seconds += time.monotonic() - began
        words = without_echo(_placed(found, start_s=start / SAMPLE_RATE_HZ, length_s=len(samples) / SAMPLE_RATE_HZ))
        return Heard(
            words=words,
            language=None if not words else found.language,
            language_p=found.language_p,
            avg_logprob=_mean([utterance.avg_logprob for utterance in found.utterances]),
            no_speech_prob=_mean([utterance.no_speech_prob for utterance in found.utterances]),
        )


def _placed(found: Transcription, *, start_s: float, length_s: float) -> list[TimedWord]:
    """The words of a piece of sound, at their times in the stream."""
    return [
        TimedWord(
            w=w,
            start_s=start_s + min(word.start_s, length_s),
            end_s=start_s + min(word.end_s, length_s),
            p=word.p,
        )
        for utterance in found.utterances
        for word, w in zip(
            utterance.words, with_spaces([word.w for word in utterance.words], utterance.text), strict=True
        )
        # A word after the end of the sound is the model saying its last sentence again, in the silence it gets.
        if w.strip() and word.start_s < length_s
    ]


def _context(samples: int) -> int:
    """Samples of sound before an utterance of so many that it is recognised with.

    Whisper hears words of a short piece wrong that it hears right after others: of a telephone call's words 17 of a
    hundred were wrong without, 15 with it, as many as offline (benchmarks/live.py).
    """
    return max(0, min(round(MOST_BEFORE_S * SAMPLE_RATE_HZ), round(_ENOUGH_S * SAMPLE_RATE_HZ) - samples))


def _own(words: Sequence[TimedWord], utterance: Utterance, end: int) -> list[TimedWord]:
    """Of words heard until sample `end`, those whose middle lies in the utterance, or after it where the sound ends."""
    stop = end if utterance.end is None else min(end, utterance.end)
    middles = [(word.start_s + word.end_s) / 2 * SAMPLE_RATE_HZ for word in words]
    return [
        word
        for word, middle in zip(words, middles, strict=True)
        if utterance.start <= middle and (middle < stop or stop == end)
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
