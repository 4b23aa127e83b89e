"""The sound of a stream that is still needed, and one utterance in it."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats
from neuroedge.kit.local_agreement import LocalAgreement
from neuroedge.kit.speakers_to_words import TimedWord, ends_sentence

_CONTEXT: Final = round(0.6 * SAMPLE_RATE_HZ)


class Tape:
    """The newest part of a stream, addressed by samples from its start."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[int, Floats]] = deque()
        self.end = 0

    def append(self, samples: Floats) -> None:
        """Add what comes next."""
        self._pieces.append((self.end, samples))
        self.end += len(samples)

    def slice(self, start: int, end: int) -> Floats:
        """A copy of samples [start, end), as far as they are there."""
        found = [
            samples[max(0, start - at) : end - at]
            for at, samples in self._pieces
            if at < end and at + len(samples) > start
        ]
        return np.concatenate(found) if found else np.empty(0, np.float32)

    def forget(self, before: int) -> None:
        """Drop pieces that end before a sample."""
        while self._pieces and self._pieces[0][0] + len(self._pieces[0][1]) <= before:
            self._pieces.popleft()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the recogniser made of an utterance; times of words from the stream's start, words with leading spaces."""

    words: list[TimedWord]
    language: str | None
    language_p: float
    avg_logprob: float
    no_speech_prob: float


@dataclass(slots=True, kw_only=True)
class Utterance:
    """Speech from a pause to the next."""

    number: int
    start: int
    """First sample of what the recogniser gets."""
    speech_start: int
    end: int | None = None
    """First sample after it; None while it goes on."""
    agreement: LocalAgreement = field(default_factory=LocalAgreement)
    heard_until: int = 0
    """The samples before this one have been through the recogniser."""
    told: str = ""
    """Text of the last partial."""
    language: str | None = None
    spoken_from: int
    """Where the utterance before it began, if that was lately: it is understood better with what was said before."""
    told_language: bool = False
    """Whether its own sound told its language; else it is that of the speech before it."""
    spoken_early: tuple[int, Heard | None] | None = None
    """What a pause gave before it was known to be the end, with the end of speech it was made for."""
    spoken: Heard | None = None
    """Of one that was cut at a sentence: its words, recognised together with what follows."""
    dropped: bool = False
    """Whether nothing of it is told, though it ended."""
    not_cut_at: int | None = None
    """The end of a sentence at which it turned out that there is nothing to cut."""
    _follows: int = 0

    @property
    def heard_end(self) -> int:
        """Sample until which a finished one is listened to: how a word ends that was cut off is heard in the next."""
        assert self.end is not None
        return self.end + self._follows

    @property
    def duration_s(self) -> float:
        """Of a finished one."""
        return 0.0 if self.end is None else (self.end - self.start) / SAMPLE_RATE_HZ

    @property
    def stable_until(self) -> int:
        """Sample at which its last stable word ends."""
        stable = self.agreement.stable
        return round(stable[-1].end_s * SAMPLE_RATE_HZ) if stable else self.start

    def sentence_end(self, least_s: float) -> int | None:
        """Sample where its last stable sentence ends that other words follow, `least_s` or more after its start."""
        stable, words = self.agreement.stable, [*self.agreement.stable, *self.agreement.unstable]
        for i in range(min(len(stable), len(words) - 1) - 1, -1, -1):
            end = round(words[i].end_s * SAMPLE_RATE_HZ)
            if end - self.start < least_s * SAMPLE_RATE_HZ:
                return None
            if ends_sentence(words[i].w):
                return end
        return None

    def cut(self, at: int) -> "Utterance":
        """End this one at sample `at`; gives the rest, which goes on."""
        self.end, self.spoken_early, self._follows = at, None, _CONTEXT
        return Utterance(
            number=self.number + 1, start=at, speech_start=at, language=self.language, spoken_from=self.start
        )
