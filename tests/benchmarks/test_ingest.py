"""How growth is read out of memory readings."""

import pytest
from benchmarks.ingest import Memory, slope


def test_what_the_first_fifth_takes_is_no_growth() -> None:
    """Pools and caches fill, then memory is flat; what grows after that is a slope, in MB a chunk."""
    fills = [Memory(n, 100 + min(n, 180), 50.0) for n in range(0, 1001, 10)]
    assert slope(fills, "resident_mb") == pytest.approx(0, abs=1e-9)
    leaks = [Memory(n, 280 + 0.5 * n, 50 + 0.25 * n) for n in range(0, 1001, 10)]
    assert slope(leaks, "resident_mb") == pytest.approx(0.5)
    assert slope(leaks, "private_mb") == pytest.approx(0.25)
