"""A provider for these tests, and models of it."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from neuroedge.runtimes.remote_llm.anthropic_chat import AnthropicChat
from neuroedge.runtimes.remote_llm.connections import Address, Connections
from neuroedge.runtimes.remote_llm.openai_chat import OpenAIChat
from tests.upstreams import Upstream, running_upstream

KEY = "sk-secret-0123456789abcdef"


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
async def connections() -> AsyncIterator[Connections]:
    """Closed at the end."""
    connections = Connections()
    yield connections
    await connections.close()


@pytest.fixture
def openai_model(upstream: Upstream, connections: Connections) -> Callable[..., OpenAIChat]:
    """Makes models of the OpenAI wire."""
    return lambda name, **more: OpenAIChat(**_parts(name, "openai", upstream.openai_url, connections, **more))


@pytest.fixture
def anthropic_model(upstream: Upstream, connections: Connections) -> Callable[..., AnthropicChat]:
    """Makes models of the Anthropic wire."""
    return lambda name, **more: AnthropicChat(**_parts(name, "anthropic", upstream.anthropic_url, connections, **more))


def _parts(name: str, wire: Any, url: str, connections: Connections, **more: Any) -> dict[str, Any]:
    return {
        "connections": connections,
        "provider": "up",
        "model_id": f"up/{name}",
        "model": name,
        "address": Address(wire=wire, base_url=url, api_key=KEY),
        "context_tokens": 8192,
        "silence_s": 60.0,
        **more,
    }
