"""Upstreams for these tests, and retries that do not wait."""

from collections.abc import Iterator

import pytest
import stamina

from tests.upstreams import Upstream, running_upstream


@pytest.fixture(scope="module")
def _running() -> Iterator[Upstream]:
    with running_upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(_running: Upstream) -> Upstream:
    """A provider that remembers nothing of other tests."""
    _running.forget()
    return _running


@pytest.fixture
def elsewhere() -> Iterator[Upstream]:
    """Another provider."""
    with running_upstream() as other:
        yield other


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3, cap=True):
        yield
