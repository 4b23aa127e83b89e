"""Evidence, measures and the judge of articulation."""

import numpy as np
import pytest

from neuroedge.kit.articulation import (
    PAD_S,
    Evidence,
    Judge,
    evidence,
    expected_of,
    measures,
    mismatch,
    rivals,
    together,
    views,
)
from neuroedge.kit.phonology import INDEX, PHONES, phones_of

FRAME_S = 0.02


def spoken(phones: list[str], *, clear: float = 0.9) -> np.ndarray:
    """Frames in which each phone is heard for two frames, with two of nothing between."""
    rest = (1 - clear) / len(PHONES)
    p = np.full((4 * len(phones) + 2, len(PHONES) + 1), rest)
    p[:, -1] = clear
    for i, phone in enumerate(phones):
        rows = slice(4 * i + 2, 4 * i + 4)
        p[rows] = rest
        p[rows, INDEX[phone]] = clear
    return np.asarray(np.log(p))


def weighed(said: str, expected: str) -> tuple[Evidence, Judge, list[object]]:
    """The shipped judge's slips where `expected` is heard as `said`."""
    words = expected_of([phones_of(expected)], weak=[False])
    found = evidence([(spoken(phones_of(said)), 1.0)], words, frame_s=FRAME_S)
    judge = Judge.shipped()
    opinions = judge.opinions(found, words)
    slips = [judge.slip(words.phones, i, opinion) for i, opinion in enumerate(opinions)]
    return found, judge, [s for s in slips if s is not None]


def test_a_word_said_clearly_has_no_slip() -> None:
    """Nothing else is likelier than what was expected."""
    assert weighed("ɹæbɪt", "ɹæbɪt")[2] == []


@pytest.mark.parametrize(
    ("said", "kind", "place", "heard"),
    [("wæbɪt", "substitution", 0, "w"), ("ɹæbɪ", "omission", 4, None), ("ɹædɪt", "substitution", 2, "d")],
)
def test_a_clear_error_is_found(said: str, kind: str, place: int, heard: str | None) -> None:
    """With its type, its place and what was heard."""
    (slip,) = weighed(said, "ɹæbɪt")[2]
    assert (slip.type, slip.place, slip.heard) == (kind, place, heard)  # type: ignore[attr-defined]


def test_a_vowel_in_a_cluster_is_an_addition() -> None:
    """buh-lue for blue."""
    words = expected_of([phones_of("blu")], weak=[False])
    found = evidence([(spoken(["b", "ə", "l", "u"]), 1.0)], words, frame_s=FRAME_S)
    ((word, place, heard, gain),) = Judge.shipped().additions(found, words, slipped=[])
    assert Judge.shipped().additions(found, words, slipped=[0]) == []
    assert (word, place, heard) == (0, 1, "ə")
    assert gain > 0


def test_times_are_those_of_the_recording() -> None:
    """The silence put around a view does not count, a slower view is counted back."""
    words = expected_of([["s", "i"]], weak=[False])
    frames = np.concatenate([np.tile(spoken([])[:1], (round(PAD_S / FRAME_S), 1)), spoken(["s", "i"])])
    found = evidence([(frames, 1.0)], words, frame_s=FRAME_S)
    assert found.times_s[:, 0] == pytest.approx([0.04, 0.12])
    slower = evidence([(frames, 2.0)], words, frame_s=FRAME_S)
    assert slower.times_s == pytest.approx(found.times_s / 2)


def test_measures_are_finite_for_any_frames() -> None:
    """Certainty to the last bit and pure chance alike."""
    words = expected_of([phones_of("spun"), phones_of("ə")], weak=[False, True])
    for clear in (1 - 1e-12, 0.02):
        found = evidence([(spoken(list(words.phones), clear=clear), 1.0)], words, frame_s=FRAME_S)
        assert np.isfinite(measures(found, words)).all()


def test_recordings_are_judged_by_their_mean() -> None:
    """One clear and one doubtful: between the two; times and what is heard are the first's."""
    words = expected_of([phones_of("spun")], weak=[False])
    clear, doubtful = (
        evidence([(spoken(list(words.phones), clear=p), 1.0)], words, frame_s=FRAME_S) for p in (0.9, 0.3)
    )
    both = together([clear, doubtful])
    assert both.omitted == pytest.approx((clear.omitted + doubtful.omitted) / 2)
    assert (both.times_s is clear.times_s, both.heard) == (True, clear.heard)


def test_rivals_are_other_consonants_or_clearly_other_vowels() -> None:
    """A vowel that accents exchange is no rival."""
    assert not rivals("s")[INDEX["s"]]
    assert rivals("s")[INDEX["θ"]]
    assert not rivals("s")[INDEX["i"]]
    assert rivals("i")[INDEX["ɑ"]]
    assert not rivals("ɑ")[INDEX["ɔ"]]


def test_mismatch_is_small_for_a_childs_errors_and_large_for_another_text() -> None:
    """Fronting and gliding are near, another word is far, nothing at all is farthest."""
    rabbit = phones_of("ɹæbɪt")
    assert mismatch(rabbit, rabbit) == 0
    assert mismatch(rabbit, phones_of("wæbɪt")) == pytest.approx(0.1)
    assert mismatch(rabbit, phones_of("ɛləfənt")) > 0.6
    assert mismatch(rabbit, []) == 1
    assert mismatch(rabbit, rabbit * 10) == 1


def test_views_are_the_same_speech_at_other_levels_and_tempi() -> None:
    """Padded, scaled, slower and faster; silence stays silence."""
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    lengths = [round((len(wave) - 2 * PAD_S * 16_000) / slower) for wave, slower in views(samples)]
    assert lengths == pytest.approx([16_000] * 3, abs=2)
    assert all(np.isfinite(wave).all() for wave, _ in views(np.zeros(100, np.float32)))
