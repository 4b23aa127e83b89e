"""How a load brings its keys: from Valkey, from disk, by computing; then it fills the levels that did not have them."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgpack

from neuroedge.infra.cache.disk import DiskLevel
from neuroedge.infra.cache.entry import NO_GENERATION, Entry, Kept, seal, unseal
from neuroedge.infra.cache.flight import Flight, Flights
from neuroedge.infra.cache.memory import MemoryLevel
from neuroedge.infra.cache.outages import Count, Level, attempt
from neuroedge.infra.cache.shared import SharedLevel

_CROWD: Final = 8
"""Loads that wait for their computation. Beyond, one more is in no hurry to know that it has to wait as well."""
Compute = Callable[[Sequence[int]], Awaitable[Sequence[Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """What a cache is made of."""

    memory: MemoryLevel
    shared: SharedLevel | None
    disk: DiskLevel | None
    flights: Flights
    count: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Lands every missing key of a flight of one organisation, or raises what `compute` raised."""

    levels: Levels
    org_id: UUID
    compute: Compute
    ttl_s: float

    async def __call__(self, flight: Flight) -> None:
        """Ask the levels in turn; the callers have their values before any of them is written to."""
        generation = await self._from_shared(flight)
        from_disk = await self._from_disk(flight, generation)
        computed = await self._computed(flight)
        fresh = _sealed(generation, computed)
        if generation is not None:
            await self._to_shared(flight, [*_sealed(generation, from_disk), *fresh])
        await self._to_disk(flight, fresh)

    async def _from_shared(self, flight: Flight) -> bytes | None:
        """The organisation's generation, None when Valkey is away."""
        shared = self.levels.shared
        if shared is None:
            return None
        keys = list(flight.missing)
        hurry = self.levels.flights.computing < _CROWD
        answer = await attempt("valkey", shared.get(self.org_id, keys, hurry=hurry), self.levels.count)
        if answer is None:
            return None
        generation, entries = answer
        self._accept(flight, "valkey", generation, entries)
        return generation

    async def _from_disk(self, flight: Flight, generation: bytes | None) -> dict[bytes, Kept]:
        disk = self.levels.disk
        if disk is None or not flight.missing:
            return {}
        keys = list(flight.missing)
        entries = await attempt("disk", disk.get(keys), self.levels.count)
        return self._accept(flight, "disk", generation, entries or {})

    def _accept(
        self, flight: Flight, level: Level, generation: bytes | None, entries: Mapping[bytes, bytes]
    ) -> dict[bytes, Kept]:
        """Land what a level had and is still good."""
        accepted, now = {}, time.time()
        for key, entry in entries.items():
            kept = unseal(key, entry, generation=generation, now=now)
            if kept is not None:
                accepted[key] = kept
                self._land(flight, key, kept)
        if accepted:
            self.levels.count("hit", level, len(accepted))
        return accepted

    async def _computed(self, flight: Flight) -> dict[bytes, Kept]:
        positions = dict(flight.missing)
        if not positions:
            return {}
        self.levels.count("miss", None, len(positions))
        flights = self.levels.flights
        flights.computing += 1
        try:
            values = await self.compute(list(positions.values()))
        finally:
            flights.computing -= 1
        if len(values) != len(positions):
            raise ValueError(f"computed {len(values)} values for {len(positions)} keys")
        # All are packed before the first one lands: what cannot be packed is an error for all.
        packed = {key: Kept(msgpack.packb(value), self.ttl_s) for key, value in zip(positions, values, strict=True)}
        for key, kept in packed.items():
            self._land(flight, key, kept)
        return packed

    def _land(self, flight: Flight, key: bytes, kept: Kept) -> None:
        if flight.keep:
            self.levels.memory.put(key, kept.payload, kept.left_s)
        self.levels.flights.land(flight, key, kept.payload)

    async def _to_shared(self, flight: Flight, entries: Sequence[Entry]) -> None:
        shared = self.levels.shared
        if shared is not None and entries and flight.keep:
            await attempt("valkey", shared.put(self.org_id, entries), self.levels.count)

    async def _to_disk(self, flight: Flight, entries: Sequence[Entry]) -> None:
        disk = self.levels.disk
        if disk is not None and entries and flight.keep:
            dropped = await attempt("disk", disk.put(entries), self.levels.count)
            if dropped:
                self.levels.count("dropped", "disk", dropped)


def _sealed(generation: bytes | None, found: Mapping[bytes, Kept]) -> list[Entry]:
    now = time.time()
    return [
        Entry(key, seal(key, kept, generation=generation or NO_GENERATION, now=now), kept.left_s)
        for key, kept in found.items()
    ]
