"""Which addresses an organisation may have language models asked at.

An organisation's administrator names a URL that this server will speak to. So it is https on the public internet, or a
host of the operator's list, as infra/fetch.py has it for documents. The check is made when a provider is set up, and
again when it is connected to, at an address that was checked; no redirect is ever followed (runtimes/remote_llm).
"""

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from neuroedge.contract.errors import InvalidInput
from neuroedge.infra.fetch import Resolve, is_public, resolve

_RESOLVE_S: Final = 5.0
_PORTS: Final = {"http": 80, "https": 443}
_HINT: Final = "the operator allows hosts of their own with NEUROEDGE_LLM_PRIVATE_HOSTS"


class Hosts:
    """`own`: hosts of the operator's that organisations may use, as "gpu.internal" or "gpu.internal:8000"."""

    def __init__(self, *, own: Sequence[str], resolver: Resolve = resolve) -> None:
        self._own = {host.lower() for host in own}
        self._resolver = resolver

    async def check(self, url: str, *, private: bool) -> None:
        """Raise InvalidInput for an address that may not be asked; a `private` one must be the operator's own."""
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        if private and not self._allows(parts.scheme, host, parts.port):
            raise InvalidInput(f"{host} is no host of the operator's, so nothing sent there is private", hint=_HINT)
        await self.addresses(parts.scheme, host, parts.port)

    async def addresses(self, scheme: str, host: str, port: int | None) -> Sequence[str]:
        """Where a connection may go now: public addresses of the host; the name of one of the operator's own.

        Raises InvalidInput when there is none, also where only some of its addresses are private.
        """
        if self._allows(scheme, host, port):
            return [host]
        if scheme != "https":
            raise InvalidInput("the address of a provider must begin with https://", hint=_HINT)
        try:
            async with asyncio.timeout(_RESOLVE_S):
                found = [one.split("%")[0] for one in await self._resolver(host, port or _PORTS[scheme])]
        except (OSError, UnicodeError, TimeoutError) as error:
            raise InvalidInput(f"{host} has no address", hint="check base_url") from error
        if not found or not all(is_public(ipaddress.ip_address(one)) for one in found):
            raise InvalidInput(f"{host} is not on the public internet", hint=_HINT)
        return found

    def _allows(self, scheme: str, host: str, port: int | None) -> bool:
        usual = _PORTS[scheme]
        return f"{host}:{port or usual}" in self._own or (host in self._own and port in (None, usual))
