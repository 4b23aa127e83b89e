"""What SDKs raise becomes one error of NeuroEdge's, with nothing secret in it."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from neuroedge.contract.chat import ChatModel
from neuroedge.contract.errors import (
    ContextTooLong,
    NeuroEdgeError,
    Overloaded,
    ProviderFailed,
    ProviderRefused,
)
from neuroedge.runtimes.remote_llm.connections import Address
from tests.runtimes.remote_llm.asking import answer
from tests.runtimes.remote_llm.conftest import KEY
from tests.upstreams import Reply, Upstream

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["openai", "anthropic"])
def make(request: pytest.FixtureRequest) -> Callable[..., ChatModel]:
    """Models of both wires."""
    return request.getfixturevalue(f"{request.param}_model")  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(status=400), ProviderRefused),
        (Reply(status=404), ProviderRefused),
        (Reply(status=422), ProviderRefused),
        (Reply(status=413, error="prompt is too long: 9 tokens > 8 maximum"), ContextTooLong),
        (Reply(status=400, error="This model's maximum context length is 8"), ContextTooLong),
        (Reply(status=429), Overloaded),
        (Reply(status=529), Overloaded),
        (Reply(status=500), ProviderFailed),
        (Reply(status=408), ProviderFailed),
        (Reply(cut=True), ProviderFailed),
        (Reply(cut_after=1), ProviderFailed),
        (Reply(malformed_after=1), ProviderFailed),
        (Reply(end_after=1), ProviderFailed),
        (Reply(error_after=1), ProviderFailed),
    ],
)
async def test_each_failure_has_its_error(
    upstream: Upstream, make: Callable[..., ChatModel], reply: Reply, error: type[NeuroEdgeError]
) -> None:
    """By status and by what the provider says."""
    upstream.script("m", reply)
    with pytest.raises(NeuroEdgeError) as caught:
        await answer(make("m"))
    assert type(caught.value) is error
    if isinstance(caught.value, ProviderFailed):
        assert caught.value.transient


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=401, error=f"Incorrect API key provided: {KEY}"),
        Reply(status=403, error="not for you"),
        Reply(status=402, error="pay"),
    ],
)
async def test_a_refused_account_is_the_operators_to_mend(
    upstream: Upstream, make: Callable[..., ChatModel], reply: Reply
) -> None:
    """Trying again is of no use; the hint says where to look, and the provider's words are left out."""
    upstream.script("m", reply)
    with pytest.raises(ProviderFailed, match="does not let") as caught:
        await answer(make("m"))
    assert not caught.value.transient
    assert "key" in str(caught.value.hint)
    assert reply.error not in caught.value.detail


async def test_codes_tell_more_than_a_status(upstream: Upstream, openai_model: Callable[..., ChatModel]) -> None:
    """OpenAI's own: a prompt that is too long in any words, and a quota that no patience renews."""
    upstream.script("m", Reply(status=400, error="no", error_code="context_length_exceeded"))
    with pytest.raises(ContextTooLong):
        await answer(openai_model("m"))
    upstream.script("m", Reply(status=429, error="no", error_code="insufficient_quota"))
    with pytest.raises(ProviderFailed) as caught:
        await answer(openai_model("m"))
    assert not caught.value.transient


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", {7}), ("1.2", {2}), ("-3", {0}), ("inf", {None}), ("nonsense", {None}), ("999999", {3600})],
)
async def test_patience_is_passed_on(
    upstream: Upstream, make: Callable[..., ChatModel], value: str, seconds: set[int | None]
) -> None:
    """In whole seconds, at most an hour; nonsense is as good as nothing."""
    upstream.script("m", Reply(status=429, retry_after=value))
    with pytest.raises(Overloaded) as caught:
        await answer(make("m"))
    assert caught.value.retry_after_s in seconds


async def test_patience_may_be_a_date(upstream: Upstream, make: Callable[..., ChatModel]) -> None:
    """As HTTP allows."""
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    upstream.script("m", Reply(status=429, retry_after=at))
    with pytest.raises(Overloaded) as caught:
        await answer(make("m"))
    assert 80 <= (caught.value.retry_after_s or 0) <= 100


async def test_a_providers_words_are_cut_and_cleaned(upstream: Upstream, make: Callable[..., ChatModel]) -> None:
    """Neither the key nor what looks like one is repeated, and no novel."""
    upstream.script("m", Reply(status=400, error=f"key {KEY} or sk-other-98765432 is bad: {'x' * 5000}"))
    with pytest.raises(ProviderRefused) as caught:
        await answer(make("m"))
    assert KEY not in caught.value.detail
    assert "98765432" not in caught.value.detail
    assert len(caught.value.detail) < 500


async def test_nobody_there_is_a_failure(make: Callable[..., ChatModel]) -> None:
    """A refused connection."""
    wire: Any = "anthropic" if make("m").__class__.__name__ == "AnthropicChat" else "openai"
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(ProviderFailed, match="connection"):
        await answer(make("m", address=Address(wire=wire, base_url=f"http://127.0.0.1:{port}", api_key=KEY)))
