"""One scripted server for all tests of a module."""

from collections.abc import Iterator

import pytest

from tests.http.openai.scripted import Scripted, ScriptedLLM, running


@pytest.fixture(scope="module")
def _server() -> Iterator[Scripted]:
    with running() as server:
        yield server


@pytest.fixture
def scripted(_server: Scripted) -> Scripted:
    """The server, its model as at the beginning."""
    _server.say(*ScriptedLLM().steps)
    _server.llm.asked.clear()
    return _server
