"""One voice or two: pairs of clusters by how much speech they hold, and mixtures of two voices."""

import numpy as np
import pytest

from neuroedge.kit.voice_clusters import Numbers, likest_pair, not_a_voice

COST, COSINE = 0.39, 0.9


def _directions(cosine: float) -> Numbers:
    """Two unit vectors with that cosine, in four dimensions."""
    return np.array([[1.0, 0.0, 0.0, 0.0], [cosine, np.sqrt(1 - cosine**2), 0.0, 0.0]])


@pytest.mark.parametrize("seconds", [15, 150, 1500, 15_000])
def test_much_speech_is_judged_by_its_direction_alone(seconds: float) -> None:
    """Two halves of a voice stay one voice and two voices two, however long they speak."""
    assert likest_pair(seconds * _directions(0.93), cost=COST, cosine=COSINE)[2] < 1
    assert likest_pair(seconds * _directions(0.88), cost=COST, cosine=COSINE)[2] > 1


def test_a_second_of_speech_joins_the_voice_it_resembles() -> None:
    """Its direction is hardly known, so that it may be farther off than two voices are."""
    near, far = _directions(0.84)
    assert likest_pair(np.stack([100 * near, far]), cost=COST, cosine=COSINE)[2] < 1
    assert likest_pair(np.stack([100 * near, 5 * far]), cost=COST, cosine=COSINE)[2] > 1


def test_the_likest_of_three_is_chosen() -> None:
    """Not the smallest one, which any union costs little."""
    first, second = _directions(0.97)
    other = np.array([0.8, 0.0, 0.6, 0.0])
    i, j, _ = likest_pair(np.stack([100 * first, 4 * other, 100 * second]), cost=COST, cosine=COSINE)
    assert {i, j} == {0, 2}


def _conversation(third_frames: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Two voices in turn for 5 s each, a third cluster for so many frames of 0.25 s at each change."""
    return np.array([label for _ in range(6) for label in [0] * 20 + [2] * third_frames + [1] * 20], np.intp)


def _third(part: float) -> Numbers:
    """Two voices, and what lies between them with that part of the first; a tenth of it is neither's."""
    first, second = _directions(0.75)
    mixed = part * first + (1 - part) * second
    mixed = mixed / np.linalg.norm(mixed) + np.array([0.0, 0.0, 0.3, 0.0])
    return np.stack([first, second, mixed / np.linalg.norm(mixed)])


def test_what_lies_between_two_voices_and_is_always_short_is_both_at_once() -> None:
    """A mixture is the smallest such cluster."""
    assert not_a_voice(_third(0.5), _conversation(6), frame_s=0.25) == 2
    assert not_a_voice(_third(0.6), _conversation(4), frame_s=0.25) == 2


def test_a_third_voice_is_no_mixture() -> None:
    """Neither one that speaks for longer, nor one that is like one of the two only, nor one far from both."""
    assert not_a_voice(_third(0.5), _conversation(16), frame_s=0.25) is None
    assert not_a_voice(_third(0.9), _conversation(6), frame_s=0.25) is None
    far = _third(0.5)
    far[2] = [0.5, 0.4, 0.7, 0.33]
    far[2] /= np.linalg.norm(far[2])
    assert not_a_voice(far, _conversation(6), frame_s=0.25) is None


def test_what_is_always_over_at_once_is_a_sound() -> None:
    """However often it is heard, and wherever it lies; unless it is all there is."""
    far = _third(0.5)
    far[2] = [0.0, 0.0, 0.0, 1.0]
    assert not_a_voice(far, _conversation(2), frame_s=0.25) == 2
    assert not_a_voice(far, _conversation(3), frame_s=0.25) is None
    assert not_a_voice(far[:1], np.zeros(2, np.intp), frame_s=0.25) is None


def test_two_clusters_hold_no_mixture() -> None:
    """It takes two voices to make one."""
    labels = np.array([0] * 40 + [1] * 3 + [0] * 40, np.intp)
    assert not_a_voice(_directions(0.8), labels, frame_s=0.25) is None
