"""Turns from speaker vectors, on made-up voices whose vectors spread as the encoder's do."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroedge.kit.diarization import DEFAULT, Floats, Stretch, Turn, cut, find_turns, sliding_windows, snap_to_words

Plan = list[tuple[int, float, float]]
"""Voice, start and end in seconds."""


def _vectors(
    windows: list[Stretch], plan: Plan, *, between: float = 0.7, spread: float = 0.45, seed: int = 0
) -> Floats:
    """Vectors of windows over `plan`: cosine `between` two voices, about 0.83 within one, mixed where voices mix."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(256, 8)))[0].T
    voices = np.sqrt(between) * axes[0] + np.sqrt(1 - between) * axes[1:]
    rows = []
    for start, end in windows:
        shares = np.zeros(len(voices))
        for voice, a, b in plan:
            shares[voice] += max(0.0, min(b, end) - max(a, start))
        rows.append(shares @ voices / max(shares.sum(), 1e-9) + spread * rng.normal(size=256) / 16)
    vectors = np.array(rows, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _turns(plan: Plan, *, between: float = 0.7, fewest: int = 1, most: int = 8) -> list[Turn]:
    spans = [(start, end) for _, start, end in plan]
    windows = sliding_windows(spans)
    vectors = _vectors(windows, plan, between=between)
    return find_turns(vectors, windows, spans, min_speakers=fewest, max_speakers=most)


def _conversation(voices: int, turns: int, *, turn_s: float = 4.0, pause_s: float = 0.2) -> Plan:
    starts = [i * (turn_s + pause_s) for i in range(turns)]
    return [(i % voices, start, start + turn_s) for i, start in enumerate(starts)]


@pytest.mark.parametrize("voices", [1, 2, 3, 5])
def test_the_number_of_voices_is_found(voices: int) -> None:
    """Each voice has its own name, in the order of first speech, over the right stretches."""
    plan = _conversation(voices, 2 * voices)
    turns = _turns(plan)
    assert [turn.speaker for turn in turns if turn.end_s - turn.start_s > 1] == [
        f"S{1 + voice}" for i, (voice, *_) in enumerate(plan) if i == 0 or plan[i - 1][0] != voice or voices == 1
    ][: len(turns)]
    assert len({turn.speaker for turn in turns}) == voices


def test_a_change_without_a_pause_is_placed_well() -> None:
    """Two voices in one stretch of speech: the change is found within 0.3 s."""
    plan = [(0, 0.0, 5.0), (1, 5.0, 10.0)]
    windows = sliding_windows([(0.0, 10.0)])
    first, second = find_turns(_vectors(windows, plan), windows, [(0.0, 10.0)])
    assert first.end_s == second.start_s == pytest.approx(5.0, abs=0.3)
    assert (first.start_s, second.end_s) == (0.0, 10.0)
    assert min(first.confidence, second.confidence) > 0.8


def test_the_number_of_speakers_can_be_given() -> None:
    """Exactly one, two or three for the same three voices."""
    plan = _conversation(3, 6)
    for wanted in (1, 2, 3):
        assert len({turn.speaker for turn in _turns(plan, fewest=wanted, most=wanted)}) == wanted


def test_at_least_two_are_told_apart_when_asked_for() -> None:
    """Voices so alike that they pass for one are separated under min_speakers."""
    plan = _conversation(2, 6)
    assert len({turn.speaker for turn in _turns(plan, between=0.97)}) == 1
    turns = _turns(plan, between=0.97, fewest=2)
    assert len({turn.speaker for turn in turns}) == 2


def test_too_little_speech_for_the_speakers_asked_for() -> None:
    """One window cannot be three speakers: one comes out and nothing breaks."""
    assert len(_turns([(0, 0.0, 1.0)], fewest=3)) == 1


def test_a_pause_divides_turns_only_when_long() -> None:
    """0.2 s inside one speaker's speech is one turn, 0.6 s are two."""
    assert [(t.start_s, t.end_s) for t in _turns([(0, 0, 3), (0, 3.2, 6)])] == [(0, 6)]
    assert [(t.start_s, t.end_s) for t in _turns([(0, 0, 3), (0, 3.6, 6)])] == [(0, 3), (3.6, 6)]


def test_no_speech_has_no_turns() -> None:
    """Nothing in, nothing out."""
    assert sliding_windows([]) == []
    assert find_turns(np.zeros((0, 256), np.float32), [], []) == []


def test_contradicting_arguments_are_refused() -> None:
    """Vectors that belong to other windows, and limits that leave no number."""
    windows = sliding_windows([(0.0, 3.0)])
    vectors = _vectors(windows, [(0, 0, 3)])
    with pytest.raises(ValueError, match="vectors"):
        find_turns(vectors[1:], windows, [(0.0, 3.0)])
    with pytest.raises(ValueError, match="min_speakers"):
        find_turns(vectors, windows, [(0.0, 3.0)], min_speakers=3, max_speakers=2)


def test_windows_cover_speech_and_bridge_short_pauses() -> None:
    """From the first to the last moment, none longer than window_s, none over a long pause."""
    windows = sliding_windows([(1.0, 2.0), (2.3, 4.0), (6.0, 6.5)])
    assert windows[0][0] == 1.0
    assert windows[-2][1] == pytest.approx(4.0)
    assert windows[-1] == (6.0, 6.5)
    assert all(0 < end - start <= DEFAULT.window_s + 1e-9 for start, end in windows)


def test_short_windows_are_repeated_to_full_length() -> None:
    """Half a second three times over, not padded with silence."""
    samples = np.arange(16_000, dtype=np.float32)
    (piece,) = cut(samples, [(0.0, 0.5)], rate_hz=16_000)
    assert len(piece) == DEFAULT.window_s * 16_000
    np.testing.assert_array_equal(piece[8000:16_000], samples[:8000])


def test_a_change_inside_a_word_moves_to_its_edge() -> None:
    """To the nearer edge within reach; changes at a pause or far from both edges stay."""
    turns = [
        Turn(speaker="S1", start_s=0, end_s=2.0, confidence=1),
        Turn(speaker="S2", start_s=2.0, end_s=4.0, confidence=1),
        Turn(speaker="S1", start_s=4.0, end_s=6.0, confidence=1),
    ]
    moved = snap_to_words(turns, [(0.5, 1.0), (1.9, 2.6), (3.0, 5.0)])
    assert [(turn.start_s, turn.end_s) for turn in moved] == [(0, 1.9), (1.9, 4.0), (4.0, 6.0)]
    assert snap_to_words(turns, []) == turns


def test_two_voices_stay_two_however_long_they_speak() -> None:
    """Each has two ways of speaking (cosine 0.92), which make a difference of many seconds in the end."""
    plan = _conversation(2, 80)
    rng = np.random.default_rng(2)
    axes = np.linalg.qr(rng.normal(size=(256, 6)))[0].T
    voices = np.sqrt(0.6) * axes[0] + np.sqrt(0.4) * axes[1:3]
    ways = np.sqrt(0.96) * voices[:, None] + np.sqrt(0.04) * np.array([[axes[3], -axes[3]], [axes[4], -axes[4]]])
    spans = [(start, end) for _, start, end in plan]
    windows = sliding_windows(spans)
    rows = []
    for start, end in windows:
        shares = [max(0.0, min(b, end) - max(a, start)) for _, a, b in plan]
        spoken = (
            share * ways[voice, i // 2 % 2] for i, (share, (voice, *_)) in enumerate(zip(shares, plan, strict=True))
        )
        rows.append(sum(spoken) / sum(shares) + 0.6 * rng.normal(size=256) / 16)
    vectors = np.array(rows, np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert len({turn.speaker for turn in find_turns(vectors, windows, spans)}) == 2
    by_cost = replace(DEFAULT, same_cosine=1.0)
    assert len({turn.speaker for turn in find_turns(vectors, windows, spans, tuning=by_cost)}) > 2


@pytest.mark.slow
def test_an_hour_of_four_voices() -> None:
    """14,000 windows: a square matrix of them would take gigabytes, a slow loop the test's time limit."""
    assert len({turn.speaker for turn in _turns(_conversation(4, 850))}) == 4


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0.02, 1.5), st.floats(0.05, 6)), min_size=1, max_size=8),
    st.integers(1, 3),
)
def test_turns_cover_speech_once(stretches: list[tuple[int, float, float]], fewest: int) -> None:
    """Whatever the spans: turns are sorted, don't overlap, lie from the first to the last moment of speech."""
    plan: Plan = []
    at = 0.0
    for voice, pause, length in stretches:
        plan.append((voice, at + pause, at + pause + length))
        at += pause + length
    turns = _turns(plan, fewest=fewest)
    assert turns[0].start_s == pytest.approx(plan[0][1])
    assert turns[-1].end_s == pytest.approx(plan[-1][2])
    assert all(before.end_s <= after.start_s + 1e-9 for before, after in pairwise(turns))
    assert all(turn.start_s < turn.end_s and 0 < turn.confidence <= 1 + 1e-9 for turn in turns)
    assert sum(t.end_s - t.start_s for t in turns) >= sum(b - a for _, a, b in plan) - 1e-6
