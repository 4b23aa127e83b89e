"""Rate limits over Valkey, so that they hold across processes.

A login is counted one by one, exactly. Engine calls are many: a process takes permits from the shared counter in
chunks and spends them itself, so that most calls cost no round trip. A chunk is one permit until calls come fast, and
at most a hundredth of the limit; what a process took and did not spend within a second is lost. So no more calls than
the limit ever pass, and at most 1 % per process fewer.
"""

import asyncio
import time
from contextvars import Context
from dataclasses import dataclass
from math import ceil

import structlog
import valkey.asyncio
from cachetools import LRUCache
from limits import RateLimitItem, RateLimitItemPerMinute, parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter
from limits.errors import StorageError

from neuroedge.contract.errors import Overloaded
from neuroedge.infra.telemetry import Metrics
from neuroedge.infra.valkey_commands import ValkeyCommands

log = structlog.get_logger(__name__)
_SCHEMES = {
    "redis": "valkey",
    "valkey": "valkey",
    "rediss": "valkeys",
    "valkeys": "valkeys",
    "unix": "valkey+unix",
}
_TIMEOUT_S = 0.5
_AWAY_S = 2.0
"""After a failure Valkey is not asked for so long: not every request may pay the time-out."""
_CHUNK_LIFE_S = 1.0
_CHUNKS_PER_LIMIT = 100
_FAST_S = 0.5
"""A chunk used up sooner is followed by one of twice its size: two calls a second are enough, so that streamed answers
one after another do not each wait for Valkey."""
_REFUSED_S = 1.0
"""So long, at most, calls are refused without asking again: a refusal must not cost more than a call."""
_ACCOUNTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Where a caller stands after one call."""

    granted: bool
    limit: int
    remaining: int
    reset_s: int
    """Seconds until more is allowed again."""


class RateLimits:
    """Counts by key; when Valkey is away, requests pass and a warning is logged: a cache must not lock users out."""

    def __init__(self, valkey_url: str, *, metrics: Metrics | None = None) -> None:
        scheme, _, rest = valkey_url.partition("://")
        # A time-out of the client's own: commands are not cancelled from outside (valkey_commands.py).
        self._connections = valkey.asyncio.ConnectionPool.from_url(
            valkey_url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
        )
        storage = RedisStorage(
            f"async+{_SCHEMES[scheme]}://{rest}",
            wrap_exceptions=True,
            implementation="valkey",
            connection_pool=self._connections,  # type: ignore[arg-type]  # options are typed as plain values
        )
        self._exact = MovingWindowRateLimiter(storage)
        self._counter = SlidingWindowCounterRateLimiter(storage)
        self._unchecked = (metrics or Metrics()).rate_limit_unchecked
        self._away_until = 0.0
        self._accounts: LRUCache[tuple[str, ...], _Account] = LRUCache(_ACCOUNTS)
        self._commands = ValkeyCommands()

    async def close(self) -> None:
        """Close the connections."""
        await self._commands.settled()
        await self._connections.disconnect()

    async def hit(self, rule: str, *key: str) -> None:
        """Count one use of `key` under a rule such as "20/minute". Raises Overloaded when it is used up."""
        limit = parse(rule)
        if self._away():
            return
        try:
            if await self._commands.run(self._exact.hit(limit, *key)):
                return
            reset = (await self._commands.run(self._exact.get_window_stats(limit, *key))).reset_time
        except (StorageError, OSError) as error:
            self._lost(error)
            return
        raise Overloaded("too many attempts", retry_after_s=max(1, round(reset - time.time())))

    async def spend(self, per_minute: int, *key: str) -> Quota | None:
        """Take one of the calls `key` may make a minute; None when `per_minute` is 0 or Valkey is away."""
        if per_minute <= 0:
            return None
        account = self._accounts.get(key)
        if account is None or account.limit.amount != per_minute:
            account = self._accounts[key] = _Account(RateLimitItemPerMinute(per_minute), key)
        while True:
            now = time.monotonic()
            if account.permits and now < account.valid_until:
                account.permits -= 1
                return account.quota(now, granted=True)
            if now < account.refused_until:
                return account.quota(now, granted=False)
            if self._away():
                return None
            # One refill for all who wait, in a task of its own: a caller that leaves must not cancel it.
            if account.refill is None:
                refill = asyncio.create_task(self._refill(account), context=Context())
                account.refill = self._commands.begin(refill)
            await asyncio.shield(account.refill)

    async def _refill(self, account: "_Account") -> None:
        want = account.next_size()
        try:
            granted = want if await self._counter.hit(account.limit, *account.key, cost=want) else 0
            if not granted and want > 1:
                granted = 1 if await self._counter.hit(account.limit, *account.key) else 0
            stats = await self._counter.get_window_stats(account.limit, *account.key)
        except (StorageError, OSError) as error:
            self._lost(error)
        else:
            account.take(granted, remaining=stats.remaining, reset_s=stats.reset_time - time.time())
        finally:
            account.refill = None

    def _away(self) -> bool:
        if time.monotonic() >= self._away_until:
            return False
        self._unchecked.inc()
        return True

    def _lost(self, error: Exception) -> None:
        self._away_until = time.monotonic() + _AWAY_S
        self._unchecked.inc()
        log.warning("rate_limit_not_checked", error=str(error), again_in_s=_AWAY_S)


class _Account:
    """What one key has left in this process, and what is known of the shared counter."""

    def __init__(self, limit: RateLimitItem, key: tuple[str, ...]) -> None:
        self.limit = limit
        self.key = key
        self.permits = 0
        self.valid_until = 0.0
        self.refused_until = 0.0
        self.refill: asyncio.Future[None] | None = None
        self._size = 1
        self._taken_at = 0.0
        self._remaining = 0
        self._reset_at = 0.0

    def next_size(self) -> int:
        """Twice as much when the last chunk was used up fast, one when it was not used up in its time."""
        most = max(1, self.limit.amount // _CHUNKS_PER_LIMIT)
        age_s = time.monotonic() - self._taken_at
        self._size = min(most, self._size * 2) if age_s < _FAST_S else (1 if self.permits else self._size)
        return self._size

    def take(self, granted: int, *, remaining: int, reset_s: float) -> None:
        """Note the answer of the shared counter."""
        now = time.monotonic()
        self.permits, self._taken_at, self.valid_until = granted, now, now + _CHUNK_LIFE_S
        self._remaining, self._reset_at = remaining, now + max(0.0, reset_s)
        if not granted:
            self.refused_until = now + min(_REFUSED_S, max(0.05, reset_s))

    def quota(self, now: float, *, granted: bool) -> Quota:
        """As a caller is told."""
        return Quota(
            granted=granted,
            limit=self.limit.amount,
            remaining=self._remaining + self.permits if granted else 0,
            reset_s=max(1, ceil(self._reset_at - now)),
        )
