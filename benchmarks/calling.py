"""A load generator over plain sockets: an HTTP library's client would take the cores that are to be measured."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call brought."""

    status: int
    body: bytes
    seconds: float


class Connection:
    """One keep-alive connection; one call at a time."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._head = f"Host: {parts.netloc}\r\nAuthorization: {token}\r\nContent-Type: application/json\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes) -> Answer:
        """POST, and read the whole answer. Connects when it has to."""
        started = time.perf_counter()
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        head = f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        top = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(top.split(b" ", 2)[1])
        length = int(top.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        answer = await reader.readexactly(length)
        if b"connection: close" in top:
            await self.close()
        return Answer(status, answer, time.perf_counter() - started)

    async def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass(slots=True)
class Tally:
    """Latencies of good answers in seconds, and how many had which other status."""

    good_s: list[float] = field(default_factory=list)
    refused: dict[int, int] = field(default_factory=dict)

    def add(self, answer: Answer) -> bool:
        """Count an answer; whether it was good."""
        if answer.status == 200:
            self.good_s.append(answer.seconds)
            return True
        self.refused[answer.status] = self.refused.get(answer.status, 0) + 1
        return False


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


async def users(count: int, one: Callable[[int], Awaitable[None]]) -> None:
    """Run so many at the same time, until all have ended."""
    await asyncio.gather(*(one(number) for number in range(count)))
