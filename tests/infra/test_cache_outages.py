"""The cache gives right answers, soon, whatever happens to Valkey and the disk, and mends by itself."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.cache import shared
from neuroedge.infra.cache.disk import DiskLevel
from neuroedge.infra.cache.entry import key_of
from neuroedge.infra.cache.memory import MemoryLevel
from neuroedge.infra.cache.shared import MAX_VALUE_BYTES, SharedLevel
from neuroedge.infra.cache.tiered import TieredCache
from tests.external import free_port
from tests.fakes import make_principal
from tests.infra.cache_parts import Counts, Doubled, ValkeyServer, value

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
REST_S = 1.0
PATIENCE_S = 60.0
"""Of tests in which no level is slow, but the machine may be."""
WHO = make_principal()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Valkey that the test may stop."""
    running = ValkeyServer(tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def counts() -> Counts:
    """What the cache told of."""
    return Counts()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Valkey itself is waited for as long as its answers are."""
    monkeypatch.setattr(shared, "_SOCKET_TIMEOUT_S", PATIENCE_S)


@pytest.fixture
async def over_valkey(server: ValkeyServer, counts: Counts, patient: None) -> AsyncIterator[TieredCache]:
    """No memory, so that every request asks Valkey."""
    cache = TieredCache(memory=MemoryLevel(0), shared=SharedLevel(server.url, patience_s=PATIENCE_S), count=counts)
    yield cache
    await cache.close()


async def ask(cache: TieredCache, *keys: str) -> int:
    """Ask, check the answer; how many had to be computed."""
    compute = Doubled(keys)
    assert await cache.of(WHO).get_or_compute(keys, compute, ttl_s=60) == [value(key) for key in keys]
    await cache.settled()
    return sum(map(len, compute.calls))


def tries(began: float) -> int:
    """How often a level may have been tried since: three times, then once for each rest."""
    return 3 + int((time.monotonic() - began) / REST_S)


async def test_valkey_stopped_and_started_again(server: ValkeyServer, over_valkey: TieredCache, counts: Counts) -> None:
    """Every request is answered; one warning for the outage, one line for its end; hits again without a restart."""
    await ask(over_valkey, "a")
    assert await ask(over_valkey, "a") == 0
    with capture_logs() as logs:
        server.stop()
        began = time.monotonic()
        for _ in range(20):
            assert await ask(over_valkey, "a") == 1
        assert 3 <= counts["error", "valkey"] <= tries(began)
        await asyncio.sleep(REST_S)
        for _ in range(20):
            assert await ask(over_valkey, "a") == 1
        assert 4 <= counts["error", "valkey"] <= tries(began)
        server.start()
        await asyncio.sleep(REST_S)
        assert await ask(over_valkey, "a") == 1
        assert await ask(over_valkey, "a") == 0
    told = [(line["log_level"], line["event"], line["part"]) for line in logs if line["log_level"] != "debug"]
    assert told == [
        ("warning", "cache_away", "valkey read"),
        ("info", "cache_back", "valkey read"),
    ]


async def test_a_valkey_that_was_restarted_between_two_requests(
    server: ValkeyServer, over_valkey: TieredCache, counts: Counts
) -> None:
    """Its old connections are dead, which only shows when they are used: no request fails for that."""
    await ask(over_valkey, "a")
    server.stop()
    server.start()
    assert await ask(over_valkey, "a") == 1
    assert await ask(over_valkey, "a") == 0
    assert counts["error", "valkey"] == 0


async def test_a_frozen_valkey_costs_no_request_more_than_a_moment(server: ValkeyServer, counts: Counts) -> None:
    """It accepts connections and never answers: the first request waits 0.1 s, those after it not at all."""
    cache = TieredCache(memory=MemoryLevel(0), shared=SharedLevel(server.url), count=counts)

    async def hits() -> None:
        async with asyncio.timeout(60):
            while await ask(cache, "a"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    await hits()
    counts.clear()
    server.freeze()
    try:
        began = time.monotonic()
        for _ in range(50):
            assert await ask(cache, "a") == 1
        assert 1 <= counts["error", "valkey"] <= tries(began)
    finally:
        server.thaw()
    await hits()
    await cache.close()


async def test_without_any_level_below_memory_all_is_computed() -> None:
    """An address where nobody listens, a folder that cannot be: the answers are right all the same."""
    cache = TieredCache(
        memory=MemoryLevel(MIB),
        shared=SharedLevel(f"redis://127.0.0.1:{free_port()}"),
        disk=DiskLevel(Path("/proc/self/nowhere"), limit_bytes=MIB),
    )
    assert await ask(cache, "a", "b") == 2
    assert await ask(cache, "a", "b") == 0
    await cache.close()


async def test_an_answer_that_takes_longer_than_the_patience_is_not_waited_for(server: ValkeyServer) -> None:
    """The command goes on by itself: its connection is good for the next one."""
    shared = SharedLevel(server.url, patience_s=0.0)
    for _ in range(3):
        with pytest.raises(Unavailable, match="slow"):
            await shared.get(WHO.org_id, [key_of(WHO.org_id, "a")])
        await shared.settled()
    with server.client() as client:
        assert client.info("stats")["total_connections_received"] <= 3  # one of the fixture, one of the cache, this one
    await shared.close()


async def test_a_full_valkey_is_still_read(server: ValkeyServer, over_valkey: TieredCache, counts: Counts) -> None:
    """Refused writes do not keep what is there from being used."""
    await ask(over_valkey, "a")
    with server.client() as client:
        client.config_set("maxmemory", "1")
    for n in range(5):
        assert await ask(over_valkey, "a", f"new {n}") == 1
    assert counts["hit", "valkey"] == 5
    assert counts["error", "valkey"] >= 3


async def test_damaged_and_foreign_values_in_valkey_count_as_missing(
    server: ValkeyServer, over_valkey: TieredCache
) -> None:
    """Cut off, of another program, of another type: computed again, and mended."""
    name = f"neuroedge:{WHO.org_id}:cache:{key_of(WHO.org_id, 'a')[16:].hex()}"
    with server.client() as client:
        await ask(over_valkey, "a")
        whole = client.get(name)
        for wrong in (whole[:-1], b"", b"\x81\xa1a\x01", whole[:40] + b"\0" + whole[41:]):
            client.set(name, wrong)
            assert await ask(over_valkey, "a") == 1
            assert await ask(over_valkey, "a") == 0
        client.delete(name)
        client.rpush(name, "a list")
        assert await ask(over_valkey, "a") == 1
        assert await ask(over_valkey, "a") == 0
        client.set(f"neuroedge:{WHO.org_id}:cache-generation", "short")
        assert await ask(over_valkey, "a") == 0


async def test_a_large_value_stays_out_of_valkey(server: ValkeyServer, over_valkey: TieredCache) -> None:
    """It would make everyone wait; the small ones of the same request go there."""
    large = "x" * MAX_VALUE_BYTES
    assert await ask(over_valkey, large, "a") == 2
    assert await ask(over_valkey, large, "a") == 1


async def test_forgetting_while_valkey_is_away_says_so(server: ValkeyServer, tmp_path: Path, patient: None) -> None:
    """The other levels are cleared; the caller knows to come back."""
    cache = TieredCache(
        memory=MemoryLevel(MIB),
        shared=SharedLevel(server.url, patience_s=PATIENCE_S),
        disk=DiskLevel(tmp_path / "cache", limit_bytes=MIB, patience_s=PATIENCE_S),
    )
    await ask(cache, "a")
    server.stop()
    with pytest.raises(Unavailable):
        await cache.forget(WHO.org_id)
    assert await ask(cache, "a") == 1
    server.start()
    await cache.forget(WHO.org_id)
    await cache.close()


FULL_DISK = """
import asyncio, json, resource, signal, sys, time
from pathlib import Path
from neuroedge.infra.cache.disk import DiskLevel
from neuroedge.infra.cache.memory import MemoryLevel
from neuroedge.infra.cache.tiered import TieredCache
from tests.fakes import make_principal
from tests.infra.cache_parts import Counts, Doubled, value

async def main():
    who, counts, computed = make_principal(), Counts(), []
    disk = DiskLevel(Path(sys.argv[1]), limit_bytes=1 << 28, patience_s=60)
    cache = TieredCache(memory=MemoryLevel(0), disk=disk, count=counts)

    async def ask(key):
        compute = Doubled([key])
        assert await cache.of(who).get_or_compute([key], compute, ttl_s=60) == [value(key)]
        await cache.settled()
        return len(compute.calls)

    large = [f"{n}" * 20_000 for n in range(10)]
    first = await ask("small")
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    began = time.monotonic()
    full = [await ask(key) for key in large]
    full_again = [await ask(key) for key in large]
    small = await ask("small")
    errors, took_s = counts["error", "disk"], time.monotonic() - began
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await asyncio.sleep(1.1)
    await ask(large[9])
    after = await ask(large[9])
    await cache.close()
    print(json.dumps([first, sum(full), sum(full_again), small, errors, took_s, after]))

asyncio.run(main())
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """No file may grow: answers stay right, what is there is still read; with room again, it is written again."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "cache")], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    first, full, full_again, small, errors, took_s, after = json.loads(done.stdout.splitlines()[-1])
    assert (first, full, small, after) == (1, 10, 0, 0)
    assert full_again > 0
    assert 3 <= errors <= 3 + took_s / REST_S  # of twenty writes: most were not tried


async def test_a_file_damaged_while_in_use_is_replaced(tmp_path: Path, counts: Counts) -> None:
    """One request finds out and is answered; later ones hit again."""
    disk = DiskLevel(tmp_path, limit_bytes=MIB, patience_s=PATIENCE_S)
    cache = TieredCache(memory=MemoryLevel(0), disk=disk, count=counts)
    keys = [f"{n}" * 500 for n in range(50)]
    await ask(cache, *keys)
    for name in ("cache.sqlite", "cache.sqlite-wal"):
        file = tmp_path / name
        file.write_bytes(b"\xa5" * file.stat().st_size)
    for _ in range(3):
        await ask(cache, *keys)
    assert await ask(cache, *keys) == 0
    await cache.close()
