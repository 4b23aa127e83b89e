"""Attention against one's own usual: what lowers the score, and when stretches are found."""

import numpy as np
import pytest

from neuroedge.kit.attention import Doubles, Stretch, score, segments, usual


def _reactions(n: int, *, median_ms: float = 300.0, spread: float = 0.2, seed: int = 0) -> Doubles:
    return np.asarray(median_ms * np.exp(spread * np.random.default_rng(seed).standard_normal(n)), np.float64)


def _own() -> list[Stretch]:
    return [Stretch(reactions_ms=_reactions(60, seed=s), idle_share=0.05) for s in range(4)]


def test_usual_reactions_score_about_fifty() -> None:
    """The mean over many sessions drawn as the baseline was."""
    own = usual(_own())
    values = [score(Stretch(reactions_ms=_reactions(20, seed=s), idle_share=0.05), own).value for s in range(50, 90)]
    assert 40 < np.mean(values) < 60


@pytest.mark.parametrize(
    ("reactions", "idle", "worse"),
    [
        (_reactions(20, median_ms=400, seed=7), 0.05, 0),
        (_reactions(20, spread=0.6, seed=7), 0.05, 1),
        (np.where(np.arange(20) % 3 == 0, 900.0, 300.0), 0.05, 2),
        (_reactions(20, seed=7), 0.6, 3),
    ],
)
def test_slowing_irregularity_lapses_and_idleness_each_lower_it(reactions: Doubles, idle: float, worse: int) -> None:
    """And the measure that tells is the one that was changed."""
    answer = score(Stretch(reactions_ms=reactions, idle_share=idle), usual(_own()))
    assert answer.value < 40
    assert answer.z[worse] > 1.5
    assert 0 <= answer.low <= answer.high <= 100


def test_quicker_than_usual_is_no_proof_of_attention() -> None:
    """Hasty answers gain at most one spread a measure."""
    answer = score(Stretch(reactions_ms=_reactions(20, median_ms=60, seed=3)), usual(_own()))
    assert answer.z.min() == -1
    assert answer.value <= 85


def test_it_is_scale_free() -> None:
    """A learner ten times as slow as another, in all sessions, has the same score."""
    now = _reactions(20, median_ms=350, seed=3)
    slow = [Stretch(reactions_ms=10 * s.reactions_ms, idle_share=s.idle_share) for s in _own()]
    one = score(Stretch(reactions_ms=now), usual(_own()))
    other = score(Stretch(reactions_ms=10 * now), usual(slow))
    assert one.value == pytest.approx(other.value, abs=1e-6)


def test_too_short_a_baseline_is_refused() -> None:
    """With what would be enough."""
    with pytest.raises(ValueError, match="39 earlier responses, needs 40"):
        usual([Stretch(reactions_ms=_reactions(39))])
    with pytest.raises(ValueError, match="0 earlier"):
        usual([])


def test_a_response_that_stands_alone_in_its_session_is_no_baseline() -> None:
    """It has no variation: any number of such says nothing, and among others they count for nothing."""
    alone = [Stretch(reactions_ms=_reactions(1, median_ms=9000, seed=s)) for s in range(60)]
    with pytest.raises(ValueError, match="0 earlier responses, needs 40; 60 more stand alone in their sessions"):
        usual(alone)
    with pytest.raises(ValueError, match="39 earlier responses"):
        usual([*alone, Stretch(reactions_ms=_reactions(39))])
    one, other = usual(_own()), usual([*alone, *_own()])
    assert (one.median_ms, one.windows) == (other.median_ms, other.windows)


def test_a_planted_slow_stretch_is_found_within_three_responses() -> None:
    """60 quick, 40 slow, 60 quick."""
    course = np.concatenate([_reactions(60, seed=1), _reactions(40, median_ms=600, seed=2), _reactions(60, seed=3)])
    found = [s for s in segments(course) if s.slow and s.stop - s.first > 10]
    assert len(found) == 1
    assert abs(found[0].first - 60) <= 3
    assert abs(found[0].stop - 100) <= 3


@pytest.mark.parametrize("course", [_reactions(200, seed=5), np.full(200, 300.0), _reactions(59), np.empty(0)])
def test_one_state_is_one_segment(course: Doubles) -> None:
    """Noise, sameness, too little and nothing are not cut."""
    (only,) = segments(course)
    assert (only.first, only.stop, only.slow) == (0, len(course), None)
