"""Possible overlap: runs of frames with a second likely speaker."""

import numpy as np
import pytest

from neuroedge.kit.diarization import diarized, sliding_windows
from neuroedge.kit.speech_overlap import Overlap, possible_overlaps
from tests.kit.test_diarization import _conversation, _vectors


def found(second: list[float], *, pauses: tuple[int, ...] = (), speakers: int = 2) -> list[Overlap]:
    """Of frames of 0.1 s whose second speaker has these posteriors."""
    posteriors = np.zeros((len(second), speakers))
    posteriors[:, 1] = second
    posteriors[:, 0] = 1 - posteriors[:, 1]
    after_pause = np.isin(np.arange(len(second)), (0, *pauses))
    times = np.asarray((np.arange(len(second)) + 0.5) * 0.1, np.float64)
    names = [f"S{i + 1}" for i in range(speakers)]
    return possible_overlaps(times, after_pause, posteriors, names, step_s=0.1, at_least_p=0.2, at_least_s=0.2)


def test_a_run_of_doubtful_frames_is_marked_with_both_speakers() -> None:
    """From its first to its last frame; `p` is the second one's mean, doubled."""
    (overlap,) = found([0.0, 0.1, 0.3, 0.4, 0.3, 0.0, 0.0])
    assert overlap.speakers == ("S1", "S2")
    assert [overlap.start_s, overlap.end_s] == pytest.approx([0.2, 0.5])
    assert overlap.p == pytest.approx(2 / 3)


def test_a_single_doubtful_frame_and_a_sole_speaker_are_not() -> None:
    """Shorter than asked for; nobody else there."""
    assert found([0.0, 0.4, 0.0]) == []
    assert (
        possible_overlaps(
            np.array([0.05]), np.array([True]), np.ones((1, 1)), ["S1"], step_s=0.1, at_least_p=0.2, at_least_s=0.05
        )
        == []
    )


def test_a_pause_ends_a_run() -> None:
    """Two stretches of speech are two overlaps; the last one reaches the end."""
    first, second = found([0.4] * 6, pauses=(3,))
    assert [first.end_s, second.start_s, second.end_s] == pytest.approx([0.3, 0.3, 0.6])


def test_voices_that_are_clearly_apart_leave_little_doubt() -> None:
    """Long turns with pauses between them: next to nothing is marked."""
    plan = _conversation(2, 6, pause_s=0.5)
    spans = [(start, end) for _, start, end in plan]
    windows = sliding_windows(spans)
    answer = diarized(_vectors(windows, plan), windows, spans)
    assert len({turn.speaker for turn in answer.turns}) == 2
    assert sum(o.end_s - o.start_s for o in answer.overlaps) < 0.1 * sum(end - start for start, end in spans)
