"""Which words of a growing transcript will not change any more.

Method: LocalAgreement-2 (Liu et al. 2020; Macháček et al. 2023, "Turning Whisper into Real-Time Transcription System").
Of speech that goes on, each new transcript is compared with the one before: what both begin with is stable. Words at
the very end are held back even then, because both may have misheard a word that was only half spoken.
"""

import unicodedata
from collections.abc import Sequence

from neuroedge.kit.speakers_to_words import TimedWord

_OVERLAP_WORDS = 5
_SAME_TIME_S = 0.1
_ECHO_WORDS = 3
_SHORTEST_WORD_S = 0.06


class LocalAgreement:
    """Takes transcripts of one utterance, each from its start, and tells which words they agree on.

    `stable` only ever grows, and every later transcript is made to begin with it.
    """

    def __init__(self, *, hold_back_s: float = 0.4) -> None:
        self._hold_back_s = hold_back_s
        self.stable: list[TimedWord] = []
        self.unstable: list[TimedWord] = []

    def update(self, words: Sequence[TimedWord], *, heard_until_s: float) -> list[TimedWord]:
        """Take the next transcript, of the speech until `heard_until_s`; gives the words that became stable by it."""
        rest = self._after_stable(words)
        agreed: list[TimedWord] = []
        for before, now in zip(self.unstable, rest, strict=False):
            if same_word(before.w, now.w) and now.end_s <= heard_until_s - self._hold_back_s:
                agreed.append(now)
            else:
                break
        self.stable += agreed
        self.unstable = rest[len(agreed) :]
        return agreed

    def finish(self, words: Sequence[TimedWord]) -> list[TimedWord]:
        """All words of the utterance, by its last transcript: the stable ones, then what that one says after them."""
        self.unstable = self._after_stable(words)
        return [*self.stable, *self.unstable]

    def _after_stable(self, words: Sequence[TimedWord]) -> list[TimedWord]:
        """The words of a transcript that come after the stable ones."""
        known = len(self.stable)
        if all(same_word(a.w, b.w) for a, b in zip(self.stable, words, strict=False)):
            return list(words[known:])
        # It spells or splits the beginning otherwise: go by time, then drop what is there already.
        end_s = self.stable[-1].end_s
        rest = [word for word in words if (word.start_s + word.end_s) / 2 > end_s - _SAME_TIME_S]
        for n in range(min(_OVERLAP_WORDS, known, len(rest)), 0, -1):
            if all(same_word(a.w, b.w) for a, b in zip(self.stable[-n:], rest[:n], strict=True)):
                return rest[n:]
        return rest


def without_echo(words: Sequence[TimedWord]) -> list[TimedWord]:
    """The words less a last sentence that is said twice, the second time faster than anybody speaks.

    Recognisers say it again when they expect more sound than there is; its words then share one moment.
    """
    for n in range(len(words) // 2, _ECHO_WORDS - 1, -1):
        said, again = words[-2 * n : -n], words[-n:]
        hurried = sum(word.end_s - word.start_s < _SHORTEST_WORD_S for word in again)
        if 2 * hurried >= n and all(same_word(a.w, b.w) for a, b in zip(said, again, strict=True)):
            return list(words[:-n])
    return list(words)


def same_word(a: str, b: str) -> bool:
    """Whether two words differ in case and punctuation only."""
    return a.strip() == b.strip() or _bare(a) == _bare(b)


def _bare(word: str) -> str:
    folded = unicodedata.normalize("NFKC", word.strip()).casefold()
    return "".join(c for c in folded if unicodedata.category(c)[0] in "LMN") or folded
