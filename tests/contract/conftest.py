"""The engine contract's tests use the server that all tests share."""

from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import Server


@pytest.fixture(scope="session")
def neuroedge_client(server: Server) -> Iterator[httpx.Client]:
    """The owner of an organisation of the contract's own."""
    with server.new_account() as client:
        yield client
