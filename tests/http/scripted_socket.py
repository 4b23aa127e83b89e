"""A WebSocket without a network: what the client sends is put in a queue, what it is told is kept."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from fastapi import WebSocketDisconnect

from neuroedge.http.live_connection import LiveConnection
from neuroedge.services.live.sessions import LiveSessions


class ScriptedSocket:
    """As far as live connections use one."""

    def __init__(self, live: LiveSessions) -> None:
        status = SimpleNamespace(id="scripted-stt")
        platform = SimpleNamespace(live=live, pool=SimpleNamespace(status=lambda role: status))
        self.app = SimpleNamespace(state=SimpleNamespace(platform=platform))
        self.told: list[dict[str, Any]] = []
        self.closed_with: int | None = None
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._gone = False
        self._more = asyncio.Event()

    def connection(self) -> LiveConnection:
        """The server's side."""
        return LiveConnection(self)  # type: ignore[arg-type]

    def say(self, samples: bytes) -> None:
        """The client sends sound."""
        self._sent.put_nowait({"type": "websocket.receive", "bytes": samples})

    def ask(self, **message: Any) -> None:
        """The client sends JSON."""
        self._sent.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    def leave(self, code: int) -> None:
        """The client closes; nothing can be sent to it any more, and the code waits behind what it sent before."""
        self._gone = True
        self._sent.put_nowait({"type": "websocket.disconnect", "code": code})

    def break_off(self) -> None:
        """The network breaks: nothing can be sent, and nothing comes."""
        self._gone = True

    async def heard(self, kind: str, count: int) -> None:
        """Return when the client was told so many messages whose type ends like this."""
        async with asyncio.timeout(60):
            while sum(message["type"].endswith(kind) for message in self.told) < count:
                self._more.clear()
                await self._more.wait()

    async def receive(self) -> dict[str, Any]:
        """The next of what was sent."""
        return await self._sent.get()

    async def send_text(self, text: str) -> None:
        """Keep it. Raises WebSocketDisconnect when the client has gone."""
        if self._gone:
            raise WebSocketDisconnect(1006)
        self.told.append(json.loads(text))
        self._more.set()

    async def close(self, code: int) -> None:
        """Keep the code."""
        self.closed_with = code
