"""Hosts that tenants name are connected to where they were checked, whatever their names resolve to meanwhile."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from neuroedge.contract.chat import ChatMessage, ChatRequest
from neuroedge.contract.errors import InvalidInput, ProviderFailed
from neuroedge.runtimes.remote_llm import pinned
from neuroedge.runtimes.remote_llm.connections import Address, Connections
from neuroedge.runtimes.remote_llm.openai_chat import OpenAIChat
from tests.upstreams import Reply, Upstream

pytestmark = pytest.mark.anyio
HOST = "provider.example"


class Names:
    """What a name resolves to, changed by the test; an empty list is what may not be asked."""

    def __init__(self, *found: str) -> None:
        self.found: Sequence[str] = found
        self.asked: list[tuple[str, str, int | None]] = []

    async def addresses(self, scheme: str, host: str, port: int | None) -> Sequence[str]:
        """As Hosts.addresses tells it."""
        self.asked.append((scheme, host, port))
        if not self.found:
            raise InvalidInput(f"{host} is not on the public internet", hint="ask the operator")
        return self.found


@asynccontextmanager
async def model_at(url: str, names: Names) -> AsyncIterator[OpenAIChat]:
    """A tenant's own."""
    connections = Connections(addresses=names.addresses)
    try:
        yield OpenAIChat(
            connections=connections,
            provider="mine",
            model_id="mine/m",
            model="m",
            address=Address(wire="openai", base_url=url, api_key="sk-none", checked=True),
            context_tokens=8192,
            silence_s=60.0,
        )
    finally:
        await connections.close()


async def said(model: OpenAIChat) -> str:
    """Its answer."""
    request = ChatRequest([ChatMessage(role="user", content="hello")])
    return "".join([delta.text async for delta in model.stream(request)])


@pytest.fixture
def named(upstream: Upstream) -> str:
    """The upstream's URL under a name that no resolver knows."""
    upstream.script("m", Reply(text="fine"), Reply(text="fine"))
    return f"http://{HOST}:{urlsplit(upstream.openai_url).port}{urlsplit(upstream.openai_url).path}"


async def test_a_connection_goes_to_the_checked_address_under_the_hosts_name(upstream: Upstream, named: str) -> None:
    """The system's resolver does not know the name, so nothing but the check can have told the address."""
    names = Names("127.0.0.1")
    async with model_at(named, names) as model:
        assert await said(model) == "fine"
    port = urlsplit(named).port
    assert names.asked == [("http", HOST, port)]
    (asked,) = upstream.requests("m")
    assert asked.headers["host"] == f"{HOST}:{port}"


async def test_a_name_that_turns_private_is_not_asked_again(
    upstream: Upstream, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is checked anew when what is known of it is old; its caller is told why."""
    monkeypatch.setattr(pinned, "KEPT_S", 0.0)
    names = Names("127.0.0.1")
    async with model_at(named, names) as model:
        assert await said(model) == "fine"
        names.found = ()
        with pytest.raises(
            ProviderFailed, match=r"mine is not asked: provider\.example is not on the public"
        ) as caught:
            await said(model)
    assert not caught.value.transient
    assert len(upstream.requests("m")) == 1


async def test_the_next_address_takes_what_the_first_does_not(named: str) -> None:
    """A host with an address that is down is still there; one whose addresses all are is not."""
    names = Names("127.0.0.9", "127.0.0.1")
    async with model_at(named, names) as model:
        assert await said(model) == "fine"
    async with model_at(named, Names("127.0.0.9")) as model:
        with pytest.raises(ProviderFailed, match="ConnectError"):
            await said(model)


async def test_without_a_check_nothing_is_asked(upstream: Upstream) -> None:
    """Connections that were told no way to check refuse what must be checked."""
    connections = Connections()
    address = Address(wire="openai", base_url=upstream.openai_url, api_key="k", checked=True)
    async with connections.client(address) as client:
        with pytest.raises(Exception, match="Connection error"):
            await client.sdk.models.list()
    await connections.close()
    assert not upstream.requests("m")


async def test_tls_still_asks_for_the_name(tmp_path: Path) -> None:
    """The address is where to, the name is who: a server with another's certificate is not believed."""
    heard: list[str | None] = []
    context = _server_context(tmp_path, heard.append)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with model_at(f"https://{HOST}:{port}/v1", Names("127.0.0.1")) as model:
            with pytest.raises(ProviderFailed, match="connection to mine failed"):
                await said(model)
    assert heard == [HOST]


def _server_context(folder: Path, hear: Callable[[str | None], object]) -> ssl.SSLContext:
    """With a certificate nobody trusts; `hear` gets the name each client asks for."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    file = folder / "server.pem"
    file.write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.sni_callback = lambda _, asked, __: hear(asked) and None
    return context
