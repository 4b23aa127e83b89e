"""Connections to providers: one SDK client, and so one pool of connections, for each address and key."""

import asyncio
import importlib
import logging
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from neuroedge.contract.errors import InvalidInput

MOST_CLIENTS: Final = 64
"""Clients kept open; those nobody uses are closed beyond that, the longest unused first."""
CONNECT_S: Final = 10.0
WRITE_S: Final = 30.0
_VENDORS: Final = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
_PLAIN: Final = {"Accept-Encoding": "identity"}
_QUIET: Final = ("openai", "anthropic", "httpx2", "httpcore2")
"""Loggers that write requests, and so conversations, at their lower levels."""
Addresses = Callable[[str, str, int | None], Awaitable[Sequence[str]]]
"""Scheme, host and port (None: the scheme's) to the addresses that may be connected to. Raises InvalidInput."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where and as whom a provider is asked."""

    wire: Literal["openai", "anthropic"]
    base_url: str | None
    """None: the vendor's own."""
    api_key: str | None = field(default=None, repr=False)
    direct: bool = False
    """Past any proxy of the environment, so that what is said to an own server does not take a way around."""
    checked: bool = False
    """A tenant named it: each connection goes to an address that was checked, past any proxy (pinned.py)."""


@dataclass(slots=True)
class Client:
    """An SDK client and what was learnt about its provider."""

    sdk: Any
    http: Any
    """The SDK's HTTP client (httpx2.AsyncClient)."""
    chat_url: Any
    """httpx2.URL of OpenAI's chat completions, parsed once."""
    chat_headers: Any
    """httpx2.Headers of such a request, made once; its length is to be set."""
    timeout: Callable[[float], Any]
    """The SDK's own kind of timeout, for the longest silence in seconds."""
    users: int = 0
    refused: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Parameters that a model does not take."""


class Connections:
    """SDK clients by address. `addresses`: where those that are `checked` may be connected to; by default nowhere."""

    def __init__(self, *, most: int = MOST_CLIENTS, addresses: Addresses | None = None) -> None:
        self._most = most
        self._addresses = addresses or _nowhere
        self._clients: OrderedDict[Address, Client] = OrderedDict()

    @asynccontextmanager
    async def client(self, address: Address) -> AsyncIterator[Client]:
        """The address's client; it stays open while the block runs."""
        if address not in self._clients:
            # The SDKs take a second or more to import, during which the loop must go on.
            vendor, limited, pinned = await asyncio.to_thread(_import, address.wire)
            if address not in self._clients:
                options = {"event_hooks": {"response": [limited.limit]}}
                if address.checked:
                    options["transport"] = pinned.PinnedTransport(
                        self._addresses, limits=vendor.DEFAULT_CONNECTION_LIMITS
                    )
                self._clients[address] = _open(vendor, address, options)
        client = self._clients[address]
        self._clients.move_to_end(address)
        client.users += 1
        try:
            yield client
        finally:
            client.users -= 1
            await self._trim()

    async def close(self) -> None:
        """Close all."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.sdk.close()

    async def _trim(self) -> None:
        idle = [address for address, client in self._clients.items() if client.users == 0]
        for address in idle[: max(0, len(self._clients) - self._most)]:
            if (client := self._clients.pop(address, None)) is not None:
                await client.sdk.close()


async def _nowhere(scheme: str, host: str, port: int | None) -> Sequence[str]:
    raise InvalidInput(f"{host} cannot be checked here")


def _import(wire: str) -> tuple[Any, Any, Any]:
    limited = importlib.import_module("neuroedge.runtimes.remote_llm.limited")
    pinned = importlib.import_module("neuroedge.runtimes.remote_llm.pinned")
    return importlib.import_module(wire), limited, pinned


def _open(module: Any, address: Address, options: dict[str, Any]) -> Client:
    for name in _QUIET:
        logger = logging.getLogger(name)
        logger.setLevel(max(logging.WARNING, logger.level))
    http = module.DefaultAsyncHttpxClient(
        follow_redirects=False,
        trust_env=not (address.direct or address.checked),
        headers=_PLAIN,
        **options,
    )
    make = module.AsyncOpenAI if address.wire == "openai" else module.AsyncAnthropic
    base_url = (address.base_url or _VENDORS[address.wire]).rstrip("/")
    # Own servers often want no key, but the SDKs do; an empty one would make them look into the environment.
    key = address.api_key or "none"
    sdk = make(api_key=key, base_url=base_url, max_retries=0, http_client=http)
    if address.wire == "openai":
        # What the environment says of the operator's own account is nobody else's business.
        sdk.organization = sdk.project = None
    headers = {
        "Accept": "text/event-stream",
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "User-Agent": "NeuroEdge",
    }
    chat = http.build_request("POST", f"{base_url}/chat/completions", headers=headers)
    return Client(
        sdk,
        http=http,
        chat_url=chat.url,
        chat_headers=chat.headers,
        timeout=lambda silence_s: module.Timeout(CONNECT_S, read=silence_s, write=WRITE_S),
    )
