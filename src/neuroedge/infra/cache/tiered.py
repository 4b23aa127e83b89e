"""The Cache port: asks memory, then loads under way, then Valkey, then disk, and computes what nobody has.

No level is needed for a right answer: one that fails or is slow is skipped. docs/adr/0006-cache-and-breaker.md.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import msgpack

from neuroedge.contract import scope
from neuroedge.contract.errors import DeadlineExceeded, Overloaded, Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.infra.cache.disk import DiskLevel
from neuroedge.infra.cache.entry import MAX_TTL_S, key_of
from neuroedge.infra.cache.flight import Flight, Flights
from neuroedge.infra.cache.load import Compute, Levels, Load
from neuroedge.infra.cache.memory import MemoryLevel
from neuroedge.infra.cache.outages import Count
from neuroedge.infra.cache.shared import SharedLevel

_SOONER_S: Final = 1.0


class TieredCache:
    """The levels of all organisations; `of` binds them to one. Owns the levels it was given: `close` closes them.

    `secret`, the same in every process that shares the levels, keys the hashes that entries are stored under.
    """

    def __init__(
        self,
        *,
        memory: MemoryLevel,
        shared: SharedLevel | None = None,
        disk: DiskLevel | None = None,
        secret: bytes = b"",
        count: Count = lambda event, level, n: None,
    ) -> None:
        self._levels = Levels(memory=memory, shared=shared, disk=disk, flights=Flights(), count=count)
        self._secret = secret

    def of(self, principal: Principal) -> "TenantCache":
        """The port, bound to the caller's organisation."""
        return TenantCache(self._levels, principal.org_id, secret=self._secret)

    @property
    def memory_bytes(self) -> int:
        """Bytes the memory level takes now."""
        return self._levels.memory.size_bytes

    def shrink(self) -> int:
        """Give the memory level's bytes back; how many they were."""
        return self._levels.memory.clear()

    async def forget(self, org_id: UUID) -> None:
        """Delete all of one organisation, on every level.

        Raises Unavailable when a level could not be reached, after clearing the others: call it again. Other processes'
        memory holds values for at most five minutes more. Other machines' disks hold entries until they expire, which
        nobody can read any more once Valkey knows.
        """
        self._levels.flights.forget(org_id.bytes)
        self._levels.memory.forget(org_id.bytes)
        levels = []
        if self._levels.shared is not None:
            levels.append(self._levels.shared.forget(org_id))
        if self._levels.disk is not None:
            levels.append(self._levels.disk.forget(org_id.bytes))
        for outcome in await asyncio.gather(*levels, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def settled(self) -> None:
        """Wait until what was computed so far has reached the levels below memory."""
        await self._levels.flights.settled()

    async def close(self) -> None:
        """Cancel what is under way and close the levels."""
        await self._levels.flights.close()
        if self._levels.shared is not None:
            await self._levels.shared.close()
        if self._levels.disk is not None:
            await self._levels.disk.close()


class TenantCache:
    """The Cache port of one organisation: what it keeps can neither be read nor noticed by another."""

    def __init__(self, levels: Levels, org_id: UUID, *, secret: bytes) -> None:
        self._levels = levels
        self._org_id = org_id
        self._secret = secret

    async def get_or_compute(self, keys: Sequence[str], compute: Compute, *, ttl_s: float) -> list[Any]:
        """A value for each key, in order; `compute` gets the positions of those nobody has, each key's first.

        It runs in a task of its own and may outlive this call while others wait for the same keys: what it uses, it
        must hold by itself. Values come back as msgpack gives them: tuples as lists. `ttl_s` is cut at 30 days.
        """
        if not ttl_s > 0:
            raise ValueError("ttl_s must be more than 0")
        wanted = [key_of(self._org_id, key, secret=self._secret) for key in keys]
        load = Load(levels=self._levels, org_id=self._org_id, compute=compute, ttl_s=min(ttl_s, MAX_TTL_S))
        while (payloads := await self._loaded(wanted, load)) is None:
            pass
        return [msgpack.unpackb(payloads[key], strict_map_key=False) for key in wanted]

    async def _loaded(self, wanted: Sequence[bytes], load: Load) -> dict[bytes, bytes] | None:
        """The values; None when they were another call's to bring, which had too little time for it."""
        payloads, under_way, missing = self._look(wanted)
        sooner = [flight for flight in under_way.values() if _sooner(flight.deadline, scope.deadline())]
        if missing:
            under_way.update(dict.fromkeys(missing, self._levels.flights.start(missing, load)))
        try:
            if under_way:
                payloads.update(await self._levels.flights.join(under_way))
        except (DeadlineExceeded, Overloaded, Unavailable):
            if any(flight.failed for flight in sooner) and scope.remaining_s(1.0) > 0:
                return None
            raise
        return payloads

    def _look(self, wanted: Sequence[bytes]) -> tuple[dict[bytes, bytes], dict[bytes, Flight], dict[bytes, int]]:
        """What memory has, what is under way, and the first position of each key that is neither."""
        payloads: dict[bytes, bytes] = {}
        under_way: dict[bytes, Flight] = {}
        missing: dict[bytes, int] = {}
        for position, key in enumerate(wanted):
            if key in payloads or key in under_way or key in missing:
                continue
            if (payload := self._levels.memory.get(key)) is not None:
                payloads[key] = payload
            elif (flight := self._levels.flights.find(key)) is not None:
                under_way[key] = flight
            else:
                missing[key] = position
        if payloads:
            self._levels.count("hit", "memory", len(payloads))
        if under_way:
            self._levels.count("hit", "flight", len(under_way))
        return payloads, under_way, missing


def _sooner(theirs: float | None, mine: float | None) -> bool:
    """Whether a deadline is so much nearer than the present call's that what it ended may be tried again."""
    return theirs is not None and (mine is None or theirs + _SOONER_S < mine)


class NoCache:
    """The Cache port that keeps nothing: for calls that must prove that the computation itself works."""

    async def get_or_compute(self, keys: Sequence[str], compute: Compute, *, ttl_s: float) -> list[Any]:
        """Compute all."""
        return list(await compute(range(len(keys)))) if keys else []
