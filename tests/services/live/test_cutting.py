"""Where speech without a pause is cut, on words whose times are known."""

import numpy as np
import pytest

from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats
from neuroedge.kit.speakers_to_words import TimedWord
from neuroedge.services.live.cutting import sentence_cut

START = 5 * SAMPLE_RATE_HZ


def _words(*said: tuple[str, float, float]) -> list[TimedWord]:
    """Words with their times in the piece, which begins at 5 s of the stream."""
    return [TimedWord(w=f" {w}", start_s=5 + start_s, end_s=5 + end_s, p=0.9) for w, start_s, end_s in said]


def _sound(seconds: float, *pauses: tuple[float, float]) -> Floats:
    """Noise with silence in some places."""
    samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * SAMPLE_RATE_HZ)).astype(np.float32)
    for start_s, end_s in pauses:
        samples[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)] = 0
    return samples


TWO = _words(("I", 0.0, 0.4), ("know.", 0.4, 4.0), ("Well,", 4.1, 4.6), ("that", 4.6, 5.0), ("is", 5.0, 5.4))


def test_the_cut_lies_in_the_pause_between_the_sentences() -> None:
    """Though the words' times are a little off it, and with the words of both sides."""
    cut = sentence_cut(TWO, _sound(5.5, (4.15, 4.25)), start=START, least_s=3.0, ahead_s=0.6)
    assert cut is not None
    assert (cut.at - START) / SAMPLE_RATE_HZ == pytest.approx(4.2, abs=0.05)
    assert [word.w for word in cut.before] == [" I", " know."]
    assert [word.w for word in cut.after] == [" Well,", " that", " is"]


def test_without_a_pause_the_cut_is_where_the_word_ends() -> None:
    """No stretch is much quieter than the others."""
    cut = sentence_cut(TWO, _sound(5.5), start=START, least_s=3.0, ahead_s=0.6)
    assert cut is not None
    assert (cut.at - START) / SAMPLE_RATE_HZ == pytest.approx(4.0)


def test_a_sentence_that_is_hardly_over_is_not_cut_off() -> None:
    """How it ends is not sure before something follows; the one before it is."""
    assert sentence_cut(TWO, _sound(4.5), start=START, least_s=3.0, ahead_s=0.6) is None
    three = [*TWO, *_words(("all.", 5.4, 8.0), ("So", 8.0, 8.2))]
    cut = sentence_cut(three, _sound(8.3), start=START, least_s=3.0, ahead_s=0.6)
    assert cut is not None
    assert cut.before[-1].w == " know."


def test_the_last_sentence_is_cut_off_not_the_first() -> None:
    """What goes on is to be short."""
    three = [*TWO, *_words(("all.", 5.4, 8.0), ("So", 8.0, 8.2), ("then", 8.2, 9.0))]
    cut = sentence_cut(three, _sound(9.0), start=START, least_s=3.0, ahead_s=0.6)
    assert cut is not None
    assert cut.before[-1].w == " all."


@pytest.mark.parametrize(
    "words",
    [
        [],
        _words(("know.", 0.0, 5.0)),
        _words(("I", 0.0, 0.4), ("know", 0.4, 4.0), ("that", 4.1, 5.0)),
        _words(("Yes.", 0.0, 1.0), ("I", 1.0, 1.4), ("know", 1.4, 5.0)),
    ],
)
def test_where_no_sentence_is_long_enough_there_is_no_cut(words: list[TimedWord]) -> None:
    """Nothing heard, one word, no end of a sentence, or one too early."""
    assert sentence_cut(words, _sound(5.5), start=START, least_s=3.0, ahead_s=0.6) is None


def test_words_beyond_the_sound_do_no_harm() -> None:
    """A recogniser's times may lie behind the end."""
    late = _words(("I", 0.0, 0.4), ("know.", 0.4, 6.0), ("So", 6.0, 7.0))
    cut = sentence_cut(late, _sound(5.0), start=START, least_s=3.0, ahead_s=-5.0)
    assert cut is not None
    assert cut.at <= START + 5 * SAMPLE_RATE_HZ
