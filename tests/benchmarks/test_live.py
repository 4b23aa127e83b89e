"""How the live benchmark counts: words by the clip they are nearest to, live and offline paired."""

import numpy as np
import pytest
from benchmarks.live import Recording, Streamed, Unit, _errors, _rates, _spaced

CLIPS = [Unit(1.0, 3.0, "the sea is blue"), Unit(5.0, 7.0, "so it is")]
RECORDING = Recording("two clips", np.zeros(8 * 16_000, np.int16), CLIPS)
HEARD = [(1.2, "The"), (1.6, "sea"), (2.0, "is"), (3.2, "glue."), (4.6, "So"), (5.5, "it"), (6.0, "is.")]


def test_a_word_counts_for_the_clip_it_is_nearest_to() -> None:
    """Also in the silence between two: one word of the first is wrong, none of the second."""
    assert [_errors(unit, RECORDING, HEARD) for unit in CLIPS] == [(1, 4), (0, 3)]


def test_what_no_space_parts_is_one_word() -> None:
    """The recogniser splits "cold-hearted" in two; case and full stops count for nothing."""
    words = [{"w": w, "start_s": i, "end_s": i + 1.0} for i, w in enumerate(["A", "cold", "-hearted", "man."])]
    assert _spaced("A cold-hearted man.", words) == [(0.5, "A"), (1.5, "cold-hearted"), (3.5, "man.")]


def test_the_difference_has_an_interval_that_holds_it() -> None:
    """One word of seven is wrong live, none offline."""
    runs = [(RECORDING, Streamed(words=HEARD, first_s=[], final_s=[], behind_s=0.0))]
    right = [(at_s, "blue" if word == "glue." else word) for at_s, word in HEARD]
    live, offline, less = _rates("test", runs, {"two clips": right}, "a model", target=True)
    assert (live.median, offline.median) == (pytest.approx(1 / 7, abs=1e-4), 0.0)
    assert less.median == live.median
    assert less.met is False
    assert "interval +0.000 to +0.250, 2 clips, 7 words" in less.note
