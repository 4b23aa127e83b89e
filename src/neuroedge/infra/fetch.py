"""Fetching a URL that a caller names, without letting the caller reach what only this server can reach.

- The operator's list of hosts decides; it is empty by default.
- Only http and https; no user names in the URL; only the scheme's own port unless the list names another.
- The name is resolved here, every address must be a public one, and the connection goes to the address that was
  checked: a name that resolves differently a moment later (DNS rebinding) gains nothing.
- Each redirect is checked in the same way.
- Size and time are limited; the body is streamed to disk and never unpacked (a compressed body is refused).

Source: OWASP Server-Side Request Forgery Prevention Cheat Sheet.
"""

import asyncio
import ipaddress
import mimetypes
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from neuroedge.contract import scope
from neuroedge.contract.errors import (
    DeadlineExceeded,
    EmptyMedia,
    Forbidden,
    InvalidInput,
    TooLarge,
    Unavailable,
)

if TYPE_CHECKING:
    import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_MAX_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_FILENAME = re.compile(r"filename\*?=(?:UTF-8'')?\"?([^\";]+)", re.IGNORECASE)
_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file from the network, on disk."""

    path: Path
    filename: str
    bytes: int
    url: str
    """Where it was in the end, after redirects."""


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet, not of this machine, its network or a special purpose."""
    if isinstance(address, ipaddress.IPv6Address):
        # An IPv4 address inside an IPv6 one is where the packet ends up.
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host by the system's resolver. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Fetcher:
    """Fetches from the hosts that are allowed.

    `hosts`: names ("example.org"), names with everything below ("*.example.org"), or "*" for any public host; a port
    other than the scheme's is part of the entry ("example.org:8443").
    """

    def __init__(
        self,
        *,
        hosts: Sequence[str],
        max_bytes: int,
        timeout_s: float = 60.0,
        resolver: Resolve = resolve,
        allowed: Callable[[Address], bool] = is_public,
    ) -> None:
        self._hosts = [host.lower() for host in hosts]
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._resolver = resolver
        self._allowed = allowed

    async def fetch(self, url: str, folder: Path) -> Fetched:
        """The file at `url`, written into `folder`.

        Raises Forbidden (host not on the list), InvalidInput (no such URL, private address, an answer other than
        200), TooLarge, EmptyMedia, DeadlineExceeded, Unavailable.
        """
        import httpx

        patience_s = scope.remaining_s(self._timeout_s)
        try:
            async with (
                asyncio.timeout(patience_s),
                # trust_env: a proxy of the environment would resolve the name again, unchecked.
                httpx.AsyncClient(
                    trust_env=False, timeout=httpx.Timeout(self._timeout_s, connect=_CONNECT_S)
                ) as client,
            ):
                return await self._follow(client, url, folder)
        except TimeoutError as error:
            raise DeadlineExceeded(f"the server did not answer within {patience_s:.3g} s") from error
        except httpx.TimeoutException as error:
            raise DeadlineExceeded("the server did not answer in time", hint="try again later") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Unavailable("the server of this URL cannot be reached", hint="check the URL") from error

    async def _follow(self, client: "httpx.AsyncClient", url: str, folder: Path) -> Fetched:
        import httpx

        for _ in range(_MAX_REDIRECTS + 1):
            target = _parsed(url)
            address = await self._checked(target)
            pinned = target.copy_with(host=address)
            request = client.build_request(
                "GET",
                pinned,
                headers={
                    "Host": target.netloc.decode(),
                    "Accept-Encoding": "identity",
                    "User-Agent": "NeuroEdge",
                },
                extensions={"sni_hostname": target.host},
            )
            try:
                response = await client.send(request, stream=True, follow_redirects=False)
            except UnicodeError as error:  # httpx decodes the host of a redirect that it does not follow
                raise InvalidInput("the URL redirects to what is none") from error
            try:
                if response.is_redirect and "location" in response.headers:
                    try:
                        url = str(target.join(response.headers["location"]))
                    except (httpx.InvalidURL, UnicodeError) as error:
                        raise InvalidInput("the URL redirects to what is none") from error
                    continue
                return await self._saved(response, target, folder)
            finally:
                await response.aclose()
        raise InvalidInput(f"the URL redirects more than {_MAX_REDIRECTS} times")

    async def _checked(self, target: "httpx.URL") -> str:
        """The address to connect to. Raises Forbidden, InvalidInput, Unavailable."""
        host = target.host.lower()
        port = target.port or _PORTS[target.scheme]
        if not any(_matches(entry, host, target.port, target.scheme) for entry in self._hosts):
            raise Forbidden(
                f"documents may not be fetched from {host}{f':{target.port}' if target.port else ''}",
                hint="the operator allows hosts with NEUROEDGE_DOCUMENT_HOSTS; upload the file instead",
            )
        try:
            found = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:  # the latter for labels no name has: empty, or over 63 characters
            raise InvalidInput(f"{host} has no address", hint="check the URL") from error
        # All of them: one private address among public ones is an attack, or soon will be.
        if not found or not all(self._allowed(ipaddress.ip_address(one.split("%")[0])) for one in found):
            raise InvalidInput(
                f"{host} is not on the public internet", hint="files of a private network must be uploaded"
            )
        return found[0]

    async def _saved(self, response: "httpx.Response", target: "httpx.URL", folder: Path) -> Fetched:
        if response.status_code != 200:
            raise InvalidInput(f"the server answered {response.status_code} instead of the file", hint="check the URL")
        if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise InvalidInput("the server sends the file compressed though it was not asked to", hint="upload it")
        announced = response.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self._max_bytes:
            raise self._too_large()
        path, size = folder / "fetched", 0
        with path.open("wb") as file:
            async for part in response.aiter_raw():
                size += len(part)
                if size > self._max_bytes:
                    raise self._too_large()
                file.write(part)
        if size == 0:
            raise EmptyMedia("the URL holds an empty file")
        return Fetched(path=path, filename=_filename(response, target), bytes=size, url=str(target))

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the file at this URL is larger than {self._max_bytes} bytes")


def _parsed(url: str) -> "httpx.URL":
    import httpx

    try:
        target = httpx.URL(url)
        host = target.host  # decoded here: "xn--" may begin what is no name
    except (httpx.InvalidURL, UnicodeError) as error:
        raise InvalidInput("this is no URL", hint="https://example.org/file.pdf") from error
    if target.scheme not in _PORTS or not host:
        raise InvalidInput("the URL must begin with https:// or http://", hint="https://example.org/file.pdf")
    if target.userinfo:
        raise InvalidInput("the URL holds a user name or password", hint="upload files that need a login")
    return target.copy_with(fragment=None)


def _matches(entry: str, host: str, port: int | None, scheme: str) -> bool:
    name, _, wanted = entry.partition(":")
    if (port or _PORTS[scheme]) != (int(wanted) if wanted.isdigit() else _PORTS[scheme]):
        return False
    return name == "*" or host == name or (name.startswith("*.") and host.endswith(name[1:]))


def _filename(response: "httpx.Response", target: "httpx.URL") -> str:
    """What the file is called: by its server, else by the URL; with the suffix of its media type when it has none."""
    told = _FILENAME.search(response.headers.get("content-disposition", ""))
    name = unquote(told.group(1)) if told else PurePosixPath(unquote(target.path)).name
    name = PurePosixPath(name.replace("\\", "/")).name
    name = "".join(c for c in name if c.isprintable())[:200] or "document"
    if not PurePosixPath(name).suffix:
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        name += mimetypes.guess_extension(media_type) or ""
    return name
