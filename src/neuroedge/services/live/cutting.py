"""Where speech without a pause is cut in two utterances, by what was recognised of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats
from neuroedge.kit.speakers_to_words import TimedWord, ends_sentence

_FRAME = SAMPLE_RATE_HZ // 50
_REACH_S = 0.2
"""Times of words are not exact: the pause between two may lie so far from them."""
_PAUSE_POWER = 0.1
"""Of the mean around it: more is no pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A cut at sample `at` of the stream, with the words on both sides of it."""

    at: int
    before: list[TimedWord]
    after: list[TimedWord]


def sentence_cut(
    words: Sequence[TimedWord], samples: Floats, *, start: int, least_s: float, ahead_s: float
) -> Cut | None:
    """The last place after a sentence with `least_s` of sound before it and words over `ahead_s` or more after it.

    `samples` [n] begin at sample `start` of the stream and are what `words` were recognised in: both sides were heard
    with the other one. The cut lies where it is quietest between the two words, or, without a pause, where one ends.
    """
    start_s, end_s = start / SAMPLE_RATE_HZ, (start + len(samples)) / SAMPLE_RATE_HZ
    for i, (word, following) in reversed(list(enumerate(pairwise(words)))):
        if word.end_s - start_s < least_s:
            return None
        if ends_sentence(word.w) and end_s - following.start_s >= ahead_s:
            between_s = _middle(word) - start_s, _middle(following) - start_s
            at = start + _quietest(samples, *between_s, near_s=word.end_s - start_s)
            return Cut(at=at, before=list(words[: i + 1]), after=list(words[i + 1 :]))
    return None


def _middle(word: TimedWord) -> float:
    return (word.start_s + word.end_s) / 2


def _quietest(samples: Floats, from_s: float, to_s: float, *, near_s: float) -> int:
    """Middle of the 20 ms of least power around `near_s`, between two times; `near_s` itself where all is as loud."""
    first = round(max(from_s, near_s - _REACH_S) * SAMPLE_RATE_HZ)
    stop = round(min(to_s, near_s + 2 * _REACH_S) * SAMPLE_RATE_HZ)
    count = max(0, min(stop, len(samples)) - first) // _FRAME
    frames = samples[first : first + count * _FRAME].reshape(count, _FRAME)
    power = np.einsum("ij,ij->i", frames, frames)
    if not count or power.min() > _PAUSE_POWER * power.mean():
        return min(round(near_s * SAMPLE_RATE_HZ), len(samples))
    return first + int(power.argmin()) * _FRAME + _FRAME // 2
