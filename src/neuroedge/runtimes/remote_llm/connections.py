"""Connections to providers: one SDK client, and so one pool of connections, for each address and key."""

import asyncio
import importlib
import logging
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

MOST_CLIENTS: Final = 64
"""Clients kept open; those nobody uses are closed beyond that, the longest unused first."""
CONNECT_S: Final = 10.0
WRITE_S: Final = 30.0
_VENDORS: Final = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
_QUIET: Final = ("openai", "anthropic", "httpx2", "httpcore2")
"""Loggers that write requests, and so conversations, at their lower levels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where and as whom a provider is asked."""

    wire: Literal["openai", "anthropic"]
    base_url: str | None
    """None: the vendor's own."""
    api_key: str | None = field(default=None, repr=False)
    direct: bool = False
    """Past any proxy of the environment, so that what is said to an own server does not take a way around."""


@dataclass(slots=True)
class Client:
    """An SDK client and what was learnt about its provider."""

    sdk: Any
    timeout: Callable[[float], Any]
    """The SDK's own kind of timeout, for the longest silence in seconds."""
    users: int = 0
    refused: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Parameters that a model does not take."""


class Connections:
    """SDK clients by address."""

    def __init__(self, *, most: int = MOST_CLIENTS) -> None:
        self._most = most
        self._clients: OrderedDict[Address, Client] = OrderedDict()

    @asynccontextmanager
    async def client(self, address: Address) -> AsyncIterator[Client]:
        """The address's client; it stays open while the block runs."""
        if address not in self._clients:
            # The SDKs take a second or more to import, during which the loop must go on.
            module, limit = await asyncio.to_thread(_import, address.wire)
            if address not in self._clients:
                self._clients[address] = _open(module, address, on_response=limit)
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


def _import(wire: str) -> tuple[Any, Any]:
    limited = importlib.import_module("neuroedge.runtimes.remote_llm.limited")
    return importlib.import_module(wire), limited.limit


def _open(module: Any, address: Address, *, on_response: Any) -> Client:
    for name in _QUIET:
        logger = logging.getLogger(name)
        logger.setLevel(max(logging.WARNING, logger.level))
    http = module.DefaultAsyncHttpxClient(
        follow_redirects=False,
        trust_env=not address.direct,
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [on_response]},
    )
    make = module.AsyncOpenAI if address.wire == "openai" else module.AsyncAnthropic
    sdk = make(
        # Own servers often want no key, but the SDKs do; an empty one would make them look into the environment.
        api_key=address.api_key or "none",
        base_url=address.base_url or _VENDORS[address.wire],
        max_retries=0,
        http_client=http,
    )
    if address.wire == "openai":
        # What the environment says of the operator's own account is nobody else's business.
        sdk.organization = sdk.project = None
    return Client(sdk, timeout=lambda silence_s: module.Timeout(CONNECT_S, read=silence_s, write=WRITE_S))
