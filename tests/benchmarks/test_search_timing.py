"""What is made of searches that were timed."""

import pytest
from benchmarks.search_timing import Taken, met, processor


def test_callers_in_time_are_counted_up_to_the_first_that_wait_too_long() -> None:
    """By the median of the rounds; what more callers happened to get does not count."""
    p95_ms = {8: [9.0], 1: [4.0, 5.0, 30.0], 4: [11.0, 12.0], 2: [10.0]}
    assert met("search", p95_ms, 10.0).median == 2
    assert met("search", {1: [11.0], 2: [9.0]}, 10.0).median == 0
    assert met("search", {**p95_ms, 4: [1.0]}, 10.0).met


def test_processor_time_is_that_of_both_processes() -> None:
    """The median of the rounds' sums."""
    rounds = [Taken(p50_ms=1, p95_ms=2, own_ms=own, postgres_ms=3) for own in (1.0, 2.0, 9.0)]
    (figure,) = processor({"search": rounds})
    assert figure.name == "search: processor time"
    assert figure.median == pytest.approx(5.0)
    assert "this process 2.0, PostgreSQL 3.0" in figure.note
