"""Upstreams for these tests, and retries that do not wait."""

from collections.abc import Iterator

import pytest
import stamina

from neuroedge.services.llm import attempt
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
def _long_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for some seconds is no provider without a free place."""
    monkeypatch.setattr(attempt, "PLACE_WAIT_S", 60.0)


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3, cap=True):
        yield
