"""Connections to hosts that tenants name; imports the SDKs' HTTP library, so it is imported late.

A name may resolve to a public address when it is checked and to a private one when it is connected to (DNS rebinding).
So a connection goes to the address that was checked a moment before, and TLS still proves the name. No proxy of the
environment is used: it would resolve the name again, unchecked.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import httpx2

from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.runtimes.remote_llm.connections import Addresses

KEPT_S: Final = 10.0
"""So long the addresses of a name are used again: not every call waits for a name server."""


class PinnedTransport(httpx2.AsyncHTTPTransport):
    """Asks a host at the addresses that `addresses` allows for it, one after another until one takes the connection."""

    def __init__(self, addresses: Addresses, **options: Any) -> None:
        super().__init__(trust_env=False, **options)
        self._addresses = addresses
        self._kept: dict[tuple[str, str, int | None], tuple[Sequence[str], float]] = {}
        self._looking = asyncio.Lock()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it. Raises httpx2.ConnectError also where no address may be asked."""
        url = request.url
        request.extensions = {**request.extensions, "sni_hostname": url.host}
        failed: httpx2.ConnectError | httpx2.ConnectTimeout | None = None
        for address in await self._of(url):
            request.url = url.copy_with(host=address)  # the Host header was made of the name
            try:
                return await super().handle_async_request(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failed = error
        self._kept.clear()
        raise failed or httpx2.ConnectError("the host has no address")

    async def _of(self, url: httpx2.URL) -> Sequence[str]:
        key = (url.scheme, url.host, url.port)
        async with self._looking:
            found, until = self._kept.get(key, ((), 0.0))
            if time.monotonic() >= until:
                try:
                    found = await self._addresses(url.scheme, url.host, url.port)
                except NeuroEdgeError as error:
                    raise httpx2.ConnectError("no address of the host may be asked") from error
                self._kept[key] = found, time.monotonic() + KEPT_S
        return found
