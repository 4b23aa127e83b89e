"""One live session: takes sound, tells what is heard. It outlives the connection it was opened on for a while."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from itertools import islice
from typing import Any, Final
from uuid import UUID

import numpy as np
import structlog

from neuroedge.contract.errors import Conflict, InvalidInput, NeuroEdgeError, TooLarge
from neuroedge.contract.models import SAMPLE_RATE_HZ, VOICE_FRAME, Floats, VoiceState
from neuroedge.contract.principal import Principal
from neuroedge.infra.live_metrics import LiveMetrics
from neuroedge.infra.media_stream import AudioStream
from neuroedge.kit.signal import clipped_fraction
from neuroedge.services.live import reports
from neuroedge.services.live.cutting import sentence_cut
from neuroedge.services.live.endpointing import Endpointer, Mark
from neuroedge.services.live.events import EventLog
from neuroedge.services.live.options import BYTES_PER_S, MAX_AHEAD_S, MAX_UTTERANCE_S, LiveLimits, LiveOptions
from neuroedge.services.live.recogniser import MOST_BEFORE_S, Recogniser
from neuroedge.services.live.utterance import Heard, Tape, Utterance

log = structlog.get_logger(__name__)
_BEFORE = round(0.25 * SAMPLE_RATE_HZ)
_AFTER = round(0.2 * SAMPLE_RATE_HZ)
"""Around what the voice detector calls speech: soft beginnings and ends of words lie outside it."""
_FIRST_S: Final = 0.3
"""Speech there must be before the first partial."""
_STEP_S: Final = 0.35
"""New sound between two partials."""
_FIRST_STEP_S: Final = 0.16
"""The same while no word was heard yet: the pieces are short, and somebody waits for the first one."""
_LEISURE: Final = 1.5
"""Between two partials at least so many times as long as one took: others want the model too."""
_PAUSE_S: Final = 0.22
"""Silence after which the utterance is recognised as if it were over: if it is, its text is ready at once."""
_HESITATION_S: Final = 0.09
"""Silence after which no partial is begun: if this is a pause, what it is recognised by must not wait for that."""
_LONG_S: Final = 8.0
_SENTENCE_S: Final = 3.0
"""An utterance that is long ends with its last sentence of at least that much: its end must not wait for all of it."""
_AHEAD_S: Final = 0.6
"""Sound after a sentence before it is cut off: how it ends is heard wrong without."""
_PIECES_AT_ONCE: Final = 64


class LiveSession:
    """Two activities meet here: `feed` finds utterances in the sound, and a task of its own recognises them."""

    def __init__(
        self,
        *,
        session_id: UUID,
        principal: Principal,
        options: LiveOptions,
        limits: LiveLimits,
        stream: AudioStream,
        recogniser: Recogniser,
        threads: Executor,
        metrics: LiveMetrics,
        on_end: Callable[["LiveSession", str], Any],
    ) -> None:
        self.id, self.principal, self.options = session_id, principal, options
        self.events = EventLog()
        self.recogniser = recogniser
        self.received_bytes = 0
        self.reason: str | None = None
        """Why it ended; None while it goes on."""
        self.failure: str | None = None
        """Code of the error it ended with."""
        self.status: int | None = None
        """Its HTTP status."""
        self._limits, self._stream, self._threads, self._metrics = limits, stream, threads, metrics
        self._on_end = on_end
        self._tape = Tape()
        self._endpoints = Endpointer(
            threshold=options.threshold, silence_s=options.silence_s, max_s=MAX_UTTERANCE_S, long_s=_LONG_S
        )
        self._voice: VoiceState | None = None
        self._unjudged: Floats = np.empty(0, np.float32)
        self._judged = 0
        self._fed_at = time.monotonic()
        self._partial_s = 0.0
        self._utterances = 0
        self._current: Utterance | None = None
        self._finished: deque[Utterance] = deque()
        self._language: str | None = None
        self._last: tuple[int, int] | None = None
        """First sample of the last utterance that ended, and the first after it."""
        self._wake, self._heard = asyncio.Event(), asyncio.Event()
        self._feeding = asyncio.Lock()
        self._taking: set[asyncio.Task[None]] = set()
        self._no_more = False
        self._task = asyncio.create_task(self._hear())

    @property
    def audio_s(self) -> float:
        """Sound taken in so far, seconds."""
        return self._tape.end / SAMPLE_RATE_HZ

    async def feed(self, data: bytes) -> None:
        """Take the next bytes; returns when there is room for more.

        A caller that is cancelled leaves all of them to be taken in: who resumes must not send a part of them again.
        Raises Conflict when the session has ended, InvalidInput where the bytes are no sound, TooLarge beyond the
        session's length. After an error the session has ended.
        """
        await self._to_its_end(self._feed(data))

    async def _feed(self, data: bytes) -> None:
        async with self._feeding:
            if self.reason is not None or self._no_more:
                raise Conflict("the session has ended", hint="start another one")
            try:
                self._check_size(len(data))
                await self._take(self._stream.push(data))
                self.received_bytes += len(data)
            except NeuroEdgeError as error:
                self.fail(error)
                raise

    async def settled(self) -> None:
        """Return when nothing is being fed: then `received_bytes` is true."""
        while self._taking:
            await asyncio.wait(self._taking)

    async def flush(self) -> None:
        """End the utterance that goes on, as if a pause followed, and wait for the text of all so far."""
        async with self._feeding:
            self._end_utterance()
        await self._all_heard()
        self.events.add("flushed", received_bytes=self.received_bytes, audio_s=round(self.audio_s, 3))

    async def clear(self) -> None:
        """Forget the utterance that goes on; no text of it follows."""
        async with self._feeding:
            if self._endpoints.flush() is not None and self._current is not None:
                self._current.end, self._current = self._tape.end, None  # what is being heard of it is not told

    async def finish(self, reason: str = "stopped") -> None:
        """Take no more sound, tell the text of what there is, and end."""
        await self._to_its_end(self._take_last())
        await self._all_heard()
        self.end(reason)

    async def _take_last(self) -> None:
        async with self._feeding:
            if self.reason is None and not self._no_more:
                try:
                    await self._take(self._stream.finish())
                except NeuroEdgeError as error:
                    self.fail(error)
                self._no_more = True
                self._end_utterance()

    async def _to_its_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for work that goes on when its caller is cancelled, as by a connection that is lost."""
        task = asyncio.create_task(work)
        self._taking.add(task)
        task.add_done_callback(self._taken)
        await asyncio.shield(task)

    def _taken(self, task: asyncio.Task[None]) -> None:
        self._taking.discard(task)
        if not task.cancelled():
            task.exception()  # seen: the caller may have left

    def fail(self, error: NeuroEdgeError) -> None:
        """End because of an error."""
        if self.reason is None:
            self.failure, self.status = error.code, error.status
            self.events.add("error", fatal=True, **reports.problem(error))
            self.end("error")

    def end(self, reason: str) -> None:
        """End at once; what was not recognised yet is lost."""
        if self.reason is not None:
            return
        self.reason = reason
        self.events.add("closed", reason=reason, received_bytes=self.received_bytes, audio_s=round(self.audio_s, 3))
        self._stream.close()
        self._task.cancel()
        self._tape.forget(self._tape.end)
        self._heard.set()
        self._on_end(self, reason)

    def _check_size(self, more: int) -> None:
        limit_s = self._limits.max_audio_s
        if self.received_bytes + more > limit_s * BYTES_PER_S:
            raise TooLarge(f"more bytes than {limit_s:g} s of sound take", hint="start another session")

    async def _take(self, pieces: Iterator[Floats]) -> None:
        """Judge what a stream gives, piece by piece, waiting while too much speech waits to be recognised."""
        loop = asyncio.get_running_loop()
        while True:
            some = await loop.run_in_executor(self._threads, lambda: list(islice(pieces, _PIECES_AT_ONCE)))
            for samples in some:
                if self.reason is not None:
                    return
                await self._judge(samples)
                await self._room()
            if len(some) < _PIECES_AT_ONCE:
                return

    async def _judge(self, samples: Floats) -> None:
        self._tape.append(samples)
        self._fed_at = time.monotonic()
        self._metrics.audio_seconds.inc(len(samples) / SAMPLE_RATE_HZ)
        if self.audio_s > self._limits.max_audio_s:
            raise TooLarge(f"the session is longer than {self._limits.max_audio_s:g} s", hint="start another session")
        waiting = np.concatenate([self._unjudged, samples])
        whole = len(waiting) // VOICE_FRAME * VOICE_FRAME
        self._unjudged = waiting[whole:]
        if whole:
            probabilities, self._voice = await self.recogniser.voice(waiting[:whole], self._voice)
            for mark in self._endpoints.push(probabilities.tolist()):
                self._note(mark)
            self._judged += whole
            self._forget()
            self._wake.set()

    def _note(self, mark: Mark) -> None:
        """An utterance began or ended."""
        at = mark.frame * VOICE_FRAME
        if mark.speaking:
            self._utterances += 1
            start = max(0, at - _BEFORE)
            last, reach = self._last, start - MOST_BEFORE_S * SAMPLE_RATE_HZ
            self._current = Utterance(
                number=self._utterances,
                start=start,
                speech_start=at,
                language=self._language,
                spoken_from=min(start, last[0]) if last is not None and last[1] > reach else start,
            )
            self.events.add("speech_started", utterance=self._utterances, at_s=reports.seconds(at))
            return
        ended = self._current
        if ended is None:
            return
        if mark.cut:
            self._cut(ended, max(at, ended.stable_until))
            return
        ended.end, self._current = min(at + _AFTER, self._tape.end), None
        self._last = ended.start, ended.end
        self.events.add("speech_stopped", utterance=ended.number, at_s=reports.seconds(at))
        self._finished.append(ended)
        self._wake.set()

    def _cut(self, utterance: Utterance, at: int) -> Utterance:
        """End the one that goes on at a sample; gives the rest, which is the next one."""
        self._utterances += 1
        self._current = rest = utterance.cut(at)
        self._finished.append(utterance)
        self._wake.set()
        return rest

    def _end_utterance(self) -> None:
        if (mark := self._endpoints.flush()) is not None:
            self._note(mark)

    def _forget(self) -> None:
        """Keep only sound that an utterance may still need."""
        needed = [utterance.start for utterance in (*self._finished, self._current) if utterance is not None]
        least = min(needed, default=self._judged - 2 * _BEFORE - VOICE_FRAME * 4)
        self._tape.forget(least - round(MOST_BEFORE_S * SAMPLE_RATE_HZ))

    async def _room(self) -> None:
        while self.reason is None and sum(utterance.duration_s for utterance in self._finished) > MAX_AHEAD_S:
            self._heard.clear()
            await self._heard.wait()

    async def _all_heard(self) -> None:
        while self.reason is None and self._finished:
            self._heard.clear()
            await self._heard.wait()

    # The other activity.

    async def _hear(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while await self._hear_next():
                    pass
            except NeuroEdgeError as error:
                self.fail(error)
                return
            except Exception as error:
                log.error("live_session_crashed", exc_info=error)
                self.fail(NeuroEdgeError("an unexpected error; the session id finds it in the log"))
                return

    async def _hear_next(self) -> bool:
        """One piece of work; False when there is none."""
        if self._finished:
            utterance = self._finished[0]
            await self._finalise(utterance)
            self._finished.popleft()
            self._heard.set()
            return True
        current, end = self._current, self._judged
        if current is None or (end - current.speech_start) < _FIRST_S * SAMPLE_RATE_HZ:
            return False
        speech_end = self._endpoints.speech_end * VOICE_FRAME
        heard_early = current.spoken_early is not None and current.spoken_early[0] == speech_end
        if self._endpoints.quiet_s >= _PAUSE_S and not heard_early:
            await self._hear_early(current, speech_end)
            return True
        if self._endpoints.quiet_s >= _HESITATION_S:
            return False
        step_s = max(_STEP_S if current.told else _FIRST_STEP_S, _LEISURE * self._partial_s)
        if self.options.partials and end - current.heard_until >= step_s * SAMPLE_RATE_HZ:
            await self._hear_partly(current, end)
            return True
        return False

    async def _hear_partly(self, utterance: Utterance, end: int) -> None:
        """A partial, of what there is of the utterance."""
        first, utterance.heard_until = not utterance.told, end
        began = time.monotonic()
        heard = await self._try_to_hear(utterance, end, thorough=False)
        if heard is None:
            return
        self._partial_s = time.monotonic() - began
        self._tell_partial(utterance, heard, end)
        if first and utterance.told:
            self._metrics.first_partial_seconds.observe(self._ago_s(utterance.speech_start))
        if self._current is utterance and end - utterance.start >= _LONG_S * SAMPLE_RATE_HZ:
            await self._shorten(utterance, end)

    async def _shorten(self, utterance: Utterance, end: int) -> None:
        """End the long utterance that goes on with a sentence; both sides are recognised once more, as one."""
        sentence = utterance.sentence_end(_SENTENCE_S)
        if sentence is None or sentence == utterance.not_cut_at or self._endpoints.quiet_s:
            return
        utterance.not_cut_at = sentence
        heard = await self._try_to_hear(utterance, end, thorough=True)
        if heard is None or self._current is not utterance:
            return
        sound = self._tape.slice(utterance.start, end)
        cut = sentence_cut(heard.words, sound, start=utterance.start, least_s=_SENTENCE_S, ahead_s=_AHEAD_S)
        if cut is not None:
            utterance.spoken = replace(heard, words=cut.before)
            self._endpoints.cut(cut.at // VOICE_FRAME)
            self._cut(utterance, cut.at).agreement.update(cut.after, heard_until_s=end / SAMPLE_RATE_HZ)

    async def _hear_early(self, utterance: Utterance, speech_end: int) -> None:
        """What the utterance will have been, if the pause turns out to be its end."""
        end = min(speech_end + _AFTER, self._tape.end)
        heard = await self._try_to_hear(utterance, end, thorough=True)
        utterance.spoken_early = speech_end, heard  # where there is none, the end itself tries again
        if heard is not None and self.options.partials and utterance.end is None:
            self._tell_partial(utterance, heard, end)

    async def _try_to_hear(self, utterance: Utterance, end: int, *, thorough: bool) -> Heard | None:
        """A recognition that the session can do without; None when it failed."""
        try:
            return await self.recogniser.hear_of(utterance, self._tape, end, thorough=thorough)
        except InvalidInput:
            raise
        except NeuroEdgeError as error:
            log.warning("live_partial_failed", code=error.code, detail=error.detail)
            return None

    def _tell_partial(self, utterance: Utterance, heard: Heard, end: int) -> None:
        agreement = utterance.agreement
        agreement.update(heard.words, heard_until_s=end / SAMPLE_RATE_HZ)
        told = reports.partial(utterance)
        if told["text"] != utterance.told and utterance.end is None:
            utterance.told = told["text"]
            self.events.add("partial", **told)

    async def _finalise(self, utterance: Utterance) -> None:
        assert utterance.end is not None
        heard, failure = utterance.spoken, None
        early = utterance.spoken_early
        if early is not None and min(early[0] + _AFTER, self._tape.end) == utterance.end:
            heard = early[1]
        if heard is None:
            try:
                heard = await self.recogniser.hear_of(utterance, self._tape, utterance.heard_end, thorough=True)
            except InvalidInput:
                raise
            except NeuroEdgeError as error:
                failure = error
                self.events.add("error", fatal=False, utterance=utterance.number, **reports.problem(error))
        # The end has the last word: what partials agreed on was heard with less before it and after.
        agreement = utterance.agreement
        words = heard.words if heard is not None else agreement.finish(agreement.unstable)
        if words:
            self._language = (heard.language if heard is not None else None) or self._language
            clipped = clipped_fraction(self._tape.slice(utterance.start, utterance.end))
            self.events.add("final", **reports.final(utterance, words, heard, clipped=clipped, failure=failure))
            if not failure:
                self._metrics.final_seconds.observe(self._ago_s(utterance.end - _AFTER))
        else:
            self.events.add("final", **reports.nothing(utterance))

    def _ago_s(self, sample: int) -> float:
        """How long ago a sample came, of sound that comes as fast as it is spoken."""
        return max(0.0, (self._tape.end - sample) / SAMPLE_RATE_HZ + time.monotonic() - self._fed_at)
