"""The error rate of a diarization, given to blocks of the call."""

import numpy as np
import pytest
from benchmarks.diarization import annotation, der
from benchmarks.overlap import block_errors

REFERENCE = annotation([(0.0, 4.0, "ann"), (4.0, 8.0, "bob"), (7.5, 11.0, "ann")])


def test_an_error_is_counted_in_its_block() -> None:
    """The change of speakers is heard one second late; names do not matter."""
    heard = annotation([(0.0, 5.0, "1"), (5.0, 8.0, "2"), (7.5, 11.0, "1")])
    blocks = block_errors(REFERENCE, heard, total_collar_s=0.0)
    assert blocks == pytest.approx(np.array([[0, 2], [0, 2], [1, 2], [0, 2.5], [0, 2], [0, 1]]))


@pytest.mark.parametrize("collar_s", [0.0, 0.5])
def test_the_blocks_together_give_the_rate_of_the_whole(collar_s: float) -> None:
    """With a speaker too many, a false alarm after the end, speech missed and a collar about each boundary."""
    heard = annotation([(0.0, 4.6, "1"), (4.6, 6.0, "2"), (6.3, 8.0, "3"), (8.0, 12.5, "1")])
    wrong, spoken = block_errors(REFERENCE, heard, total_collar_s=collar_s).sum(axis=0)
    assert wrong / spoken == pytest.approx(der(REFERENCE, heard, total_collar_s=collar_s))
