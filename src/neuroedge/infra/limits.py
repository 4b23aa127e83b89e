"""Rate limits over Valkey, so that they hold across processes."""

import asyncio

import structlog
import valkey.asyncio
from limits import parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError

from neuroedge.contract.errors import Overloaded

log = structlog.get_logger(__name__)
_SCHEMES = {
    "redis": "valkey",
    "valkey": "valkey",
    "rediss": "valkeys",
    "valkeys": "valkeys",
    "unix": "valkey+unix",
}


class RateLimits:
    """Counts by key; when Valkey is away, requests pass and a warning is logged: a cache must not lock users out."""

    def __init__(self, valkey_url: str) -> None:
        scheme, _, rest = valkey_url.partition("://")
        self._connections = valkey.asyncio.ConnectionPool.from_url(valkey_url)
        storage = RedisStorage(
            f"async+{_SCHEMES[scheme]}://{rest}",
            wrap_exceptions=True,
            implementation="valkey",
            connection_pool=self._connections,  # type: ignore[arg-type]  # options are typed as plain values
        )
        self._limiter = MovingWindowRateLimiter(storage)

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.disconnect()

    async def hit(self, rule: str, *key: str) -> None:
        """Count one use of `key` under a rule such as "20/minute". Raises Overloaded when it is used up."""
        limit = parse(rule)
        try:
            async with asyncio.timeout(2):
                if await self._limiter.hit(limit, *key):
                    return
                reset = (await self._limiter.get_window_stats(limit, *key)).reset_time
        except (StorageError, TimeoutError, OSError) as error:
            log.warning("rate_limit_not_checked", error=str(error))
            return
        import time

        raise Overloaded("too many attempts", retry_after_s=max(1, round(reset - time.time())))
