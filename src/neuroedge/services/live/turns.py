"""The speech in a session's sound: where utterances begin and end, until they are recognised."""

import time
from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from neuroedge.contract.models import SAMPLE_RATE_HZ, VOICE_FRAME, Floats
from neuroedge.services.live import reports
from neuroedge.services.live.endpointing import Endpointer, Mark
from neuroedge.services.live.events import EventLog
from neuroedge.services.live.options import MAX_UTTERANCE_S, LiveOptions
from neuroedge.services.live.recogniser import MOST_BEFORE_S
from neuroedge.services.live.utterance import Tape, Utterance

_BEFORE: Final = round(0.25 * SAMPLE_RATE_HZ)
AFTER: Final = round(0.2 * SAMPLE_RATE_HZ)
"""Samples around what the voice detector calls speech: soft beginnings and ends of words lie outside it."""
LONG_S: Final = 8.0
"""An utterance that is long may end at a breath, or with a sentence."""


class Turns:
    """What a session was given to hear and is not done with."""

    def __init__(self, *, options: LiveOptions, events: EventLog) -> None:
        self.tape = Tape()
        self.endpoints = Endpointer(
            threshold=options.threshold, silence_s=options.silence_s, max_s=MAX_UTTERANCE_S, long_s=LONG_S
        )
        self.current: Utterance | None = None
        """The one that goes on."""
        self.finished: deque[Utterance] = deque()
        """Those that ended and are to be recognised."""
        self.language: str | None = None
        """What was spoken last."""
        self.judged = 0
        """Samples of which is known whether they are speech."""
        self._events = events
        self._unjudged: Floats = np.empty(0, np.float32)
        self._count = 0
        self._added_at = time.monotonic()
        self._last: tuple[int, int] | None = None
        """First sample of the last utterance that ended, and the first after it."""
        self._spoken_until = 0
        """First sample after the speech of the last one that ended or was dropped: it belongs to no other."""

    @property
    def audio_s(self) -> float:
        """Sound taken in so far, seconds."""
        return self.tape.end / SAMPLE_RATE_HZ

    @property
    def waiting_s(self) -> float:
        """Speech that ended and is to be recognised, seconds."""
        return sum(utterance.duration_s for utterance in self.finished)

    @property
    def speech_end(self) -> int:
        """First sample after the last speech of the utterance that goes on."""
        return self.endpoints.speech_end * VOICE_FRAME

    def ago_s(self, sample: int) -> float:
        """How long ago a sample came, of sound that comes as fast as it is spoken."""
        return max(0.0, (self.tape.end - sample) / SAMPLE_RATE_HZ + time.monotonic() - self._added_at)

    def add(self, samples: Floats) -> Floats:
        """Take the next sound; gives the whole frames that are to be judged now."""
        self.tape.append(samples)
        self._added_at = time.monotonic()
        waiting = np.concatenate([self._unjudged, samples])
        whole = len(waiting) // VOICE_FRAME * VOICE_FRAME
        self._unjudged = waiting[whole:]
        return waiting[:whole]

    def judge(self, probabilities: Sequence[float]) -> None:
        """Take the probability of speech of each of the next frames."""
        for mark in self.endpoints.push(probabilities):
            self._note(mark)
        self.judged += VOICE_FRAME * len(probabilities)
        needed = [utterance.start for utterance in (*self.finished, self.current) if utterance is not None]
        least = min(needed, default=self.judged - 2 * _BEFORE - VOICE_FRAME * 4)
        self.tape.forget(least - round(MOST_BEFORE_S * SAMPLE_RATE_HZ))

    def flush(self) -> None:
        """End the utterance that goes on, as if a pause followed."""
        if (mark := self.endpoints.flush()) is not None:
            self._note(mark)

    def drop(self) -> int | None:
        """Forget the utterance that goes on; what is being heard of it is not told. Its number, if there was one."""
        mark, dropped = self.endpoints.flush(), self.current
        if mark is None or dropped is None:
            return None
        dropped.end, self.current = self.tape.end, None
        self._spoken_until = mark.frame * VOICE_FRAME
        return dropped.number

    def drop_finished(self) -> None:
        """Forget those that ended and are not told yet. They stay in line, where the first one may be in hand."""
        for utterance in self.finished:
            utterance.dropped = True

    def cut(self, utterance: Utterance, at: int) -> Utterance:
        """End the one that goes on at a sample; gives the rest, which is the next one."""
        self._count += 1
        self.current = rest = utterance.cut(at)
        self.finished.append(utterance)
        return rest

    def _note(self, mark: Mark) -> None:
        """An utterance began or ended."""
        at = mark.frame * VOICE_FRAME
        if mark.speaking:
            self._begin(at)
            return
        ended = self.current
        if ended is None:
            return
        if mark.cut:
            self.cut(ended, max(at, ended.stable_until))
            return
        ended.end, self.current = min(at + AFTER, self.tape.end), None
        self._last, self._spoken_until = (ended.start, ended.end), at
        self._events.add("speech_stopped", utterance=ended.number, at_s=reports.seconds(at))
        self.finished.append(ended)

    def _begin(self, at: int) -> None:
        self._count += 1
        start = max(at - _BEFORE, self._spoken_until)
        last, reach = self._last, start - MOST_BEFORE_S * SAMPLE_RATE_HZ
        self.current = Utterance(
            number=self._count,
            start=start,
            speech_start=at,
            language=self.language,
            spoken_from=min(start, last[0]) if last is not None and last[1] > reach else start,
        )
        self._events.add("speech_started", utterance=self._count, at_s=reports.seconds(at))
