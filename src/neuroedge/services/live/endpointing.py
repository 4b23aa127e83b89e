"""Where utterances begin and end in a stream, by the probability of speech of each frame."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from neuroedge.contract.models import SAMPLE_RATE_HZ, VOICE_FRAME

FRAME_S: Final = VOICE_FRAME / SAMPLE_RATE_HZ
_HYSTERESIS = 0.15
"""Speech that has begun goes on at a little less than what began it (as Silero's own segmentation has it)."""
_START_FRAMES = 3
"""Frames of speech in a row, the first one sure, that begin an utterance: a click is shorter."""
_BREATH, _LEAST_BREATH_S = 0.6, 0.3
"""Part of the silence asked for that parts long speech, and the least."""


@dataclass(frozen=True, slots=True)
class Mark:
    """An utterance begins (`speaking`) or ended at `frame` of the stream; `cut`: it only got too long, and goes on."""

    frame: int
    speaking: bool
    cut: bool = False


class Endpointer:
    """Finds utterances in the frames of one stream.

    An utterance ends after `silence_s` without speech; once it has gone on for `long_s`, a breath is enough, three
    fifths of that: better cut there than within a word. One longer than `max_s` is cut where its second half was least
    like speech.
    """

    def __init__(self, *, threshold: float, silence_s: float, max_s: float, long_s: float = math.inf) -> None:
        self._threshold = threshold
        self._silence = max(1, round(silence_s / FRAME_S))
        self._breath = min(self._silence, round(max(_LEAST_BREATH_S, _BREATH * silence_s) / FRAME_S))
        self._long_s = long_s
        self._max = max(2, round(max_s / FRAME_S))
        self._frame = 0
        self._run = 0
        self._quiet = 0
        self._recent: deque[float] = deque(maxlen=self._max // 2)
        self.start: int | None = None
        """First frame of the utterance that goes on."""

    @property
    def quiet_s(self) -> float:
        """How long the utterance that goes on has been silent."""
        return self._quiet * FRAME_S

    @property
    def speech_end(self) -> int:
        """First frame after the last one with speech."""
        return self._frame - self._quiet

    def push(self, probabilities: Iterable[float]) -> Iterator[Mark]:
        """Take the next frames; gives what they show."""
        for p in probabilities:
            self._frame += 1
            mark = self._begin(p) if self.start is None else self._go_on(p)
            if mark is not None:
                yield mark

    def cut(self, frame: int) -> None:
        """What goes on begins at `frame`."""
        assert self.start is not None
        self.start = frame

    def flush(self) -> Mark | None:
        """End the utterance that goes on, now."""
        if self.start is None:
            return None
        mark = Mark(self.speech_end, speaking=False)
        self._end()
        return mark

    def _begin(self, p: float) -> Mark | None:
        self._run = self._run + 1 if p >= self._threshold - (_HYSTERESIS if self._run else 0) else 0
        if self._run < _START_FRAMES:
            return None
        self.start, self._run = self._frame - _START_FRAMES, 0
        return Mark(self.start, speaking=True)

    def _go_on(self, p: float) -> Mark | None:
        assert self.start is not None
        self._quiet = 0 if p >= self._threshold - _HYSTERESIS else self._quiet + 1
        self._recent.append(p)
        is_long = (self._frame - self.start) * FRAME_S >= self._long_s
        if self._quiet >= (self._breath if is_long else self._silence):
            return self.flush()
        if self._frame - self.start < self._max:
            return None
        # Not in the last of it: what was said there is needed to hear the words before.
        candidates = list(islice(self._recent, len(self._recent) - self._silence // 2))
        first = self._frame - len(self._recent)
        self.start = first + min(range(len(candidates)), key=candidates.__getitem__)
        return Mark(self.start, speaking=False, cut=True)

    def _end(self) -> None:
        self.start = None
        self._run = self._quiet = 0
        self._recent.clear()
