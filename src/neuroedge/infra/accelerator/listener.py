"""Hears the channels over a connection of its own, and comes back by itself after Valkey was away."""

import asyncio
from collections.abc import Callable, Sequence

import structlog
import valkey.asyncio
from valkey.exceptions import ValkeyError

from neuroedge.infra.accelerator.wake import wait

log = structlog.get_logger(__name__)

_POLL_S = 1.0
_RETRY_S = 0.5


class Listener:
    """Calls `heard` with channel and body of every message, and `connected` whenever messages may have been missed.

    After `silence_s` without a message the server is asked for one, and after as long again without an answer the
    connection is taken for dead: a peer that vanished does not close it. Only time spent waiting counts, not time in
    which this process itself stood still.
    """

    def __init__(
        self,
        client: "valkey.asyncio.Valkey",
        channels: Sequence[str],
        *,
        heard: Callable[[str, bytes], None],
        connected: Callable[[], None],
        silence_s: float = 5,
    ) -> None:
        self._client = client
        self._channels = channels
        self._heard = heard
        self._connected = connected
        self._silence_s = silence_s
        self._closing = False
        self._listening = asyncio.Event()

    async def listening(self, timeout_s: float) -> bool:
        """Wait until it hears; whether it does."""
        return await wait(self._listening, timeout_s)

    def stop(self) -> None:
        """End `run` within about a second, even if the client swallows the cancellation of its task."""
        self._closing = True

    async def run(self) -> None:
        """Listen until stopped."""
        away = False
        while not self._closing:
            pubsub = self._client.pubsub()
            try:
                await pubsub.subscribe(*self._channels)
                await self._listen(pubsub)
            except (ValkeyError, OSError) as error:
                if self._listening.is_set() or not away:
                    log.warning("accelerator_channels_lost", error=str(error))
                away = True
            finally:
                self._listening.clear()
                await _closed(pubsub)
            if not self._closing:
                await asyncio.sleep(_RETRY_S)

    async def _listen(self, pubsub: "valkey.asyncio.client.PubSub") -> None:
        silent_s, asked = 0.0, False
        poll_s = min(_POLL_S, self._silence_s)
        while not self._closing:
            message = await pubsub.get_message(timeout=poll_s)
            if message is not None:
                silent_s, asked = 0.0, False
                self._take(message)
                continue
            silent_s += poll_s
            if silent_s >= 2 * self._silence_s:
                raise ConnectionError(f"nothing heard for {2 * self._silence_s:g} s")
            if silent_s >= self._silence_s and not asked:
                await pubsub.ping()
                asked = True

    def _take(self, message: dict[str, object]) -> None:
        kind, channel, body = message["type"], message["channel"], message["data"]
        if kind == "message" and isinstance(channel, bytes) and isinstance(body, bytes):
            self._heard(channel.decode(), body)
        elif kind == "subscribe" and body == len(self._channels):
            self._listening.set()
            self._connected()


async def _closed(pubsub: "valkey.asyncio.client.PubSub") -> None:
    try:
        await pubsub.aclose()  # type: ignore[no-untyped-call]
    except (ValkeyError, OSError) as error:
        log.debug("accelerator_close_failed", error=str(error))
