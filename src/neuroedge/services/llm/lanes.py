"""What this process knows and keeps of each provider: places for calls, name of the breaker, times measured.

Two organisations may each have a provider called "openai" with keys of their own; what the one does to its own must
not slow or block the other, so a lane belongs to a provider's name, address and key together.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from neuroedge.contract.errors import Overloaded
from neuroedge.services.llm.offers import Offer

REMEMBERED: Final = 32
"""First-token times of a model that its median is taken of."""


class NoPlace(Overloaded):
    """As many calls as a provider may get at a time are under way already, all from this process."""


@dataclass(slots=True, kw_only=True)
class Lane:
    """One provider as one owner of keys may use it."""

    breaker: str
    provider: str
    places: asyncio.Semaphore
    first_token_s: defaultdict[str, deque[float]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=REMEMBERED))
    )

    @asynccontextmanager
    async def place(self, *, wait_s: float) -> AsyncIterator[None]:
        """One of the provider's places. Raises NoPlace when none comes free in time."""
        try:
            async with asyncio.timeout(wait_s):
                await self.places.acquire()
        except TimeoutError as error:
            raise NoPlace(f"all calls that {self.provider} may get at a time are taken", retry_after_s=1) from error
        try:
            yield
        finally:
            self.places.release()


class Lanes:
    """Lanes by provider, address and key."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[object, ...], Lane] = {}
        self._named: defaultdict[str, int] = defaultdict(int)

    def of(self, offer: Offer) -> Lane:
        """The offer's lane."""
        key = (offer.provider, offer.wire, offer.base_url, offer.api_key, offer.concurrency)
        lane = self._lanes.get(key)
        if lane is None:
            number = self._named[offer.provider] = self._named[offer.provider] + 1
            name = f"llm:{offer.provider}" + (f"#{number}" if number > 1 else "")
            lane = Lane(breaker=name, provider=offer.provider, places=asyncio.Semaphore(offer.concurrency))
            self._lanes[key] = lane
        return lane

    def began(self, offer: Offer, seconds: float) -> None:
        """A first token came."""
        self.of(offer).first_token_s[offer.model].append(seconds)

    def latency(self, offer: Offer) -> float | None:
        """Median of the last first-token times; None: none is known."""
        known = self.of(offer).first_token_s.get(offer.model)
        return median(known) if known else None
