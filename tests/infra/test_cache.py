"""The cache port over all its levels: who computes, who waits, who may see what."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from neuroedge.contract import scope
from neuroedge.contract.errors import DeadlineExceeded, InvalidInput, Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.infra.cache import shared
from neuroedge.infra.cache.disk import DiskLevel
from neuroedge.infra.cache.memory import MemoryLevel
from neuroedge.infra.cache.shared import SharedLevel
from neuroedge.infra.cache.tiered import NoCache, TenantCache, TieredCache
from tests.fakes import make_principal
from tests.infra.cache_parts import Counts, Doubled, ValkeyServer, value

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A Valkey."""
    running = ValkeyServer(tmp_path_factory.mktemp("cache"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No level is given up here because the machine is busy."""
    monkeypatch.setattr(shared, "_SOCKET_TIMEOUT_S", 60.0)


class Node:
    """A cache as one process has it."""

    def __init__(
        self, *, url: str | None = None, folder: Path | None = None, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts = Counts()
        self.cache = TieredCache(
            memory=MemoryLevel(MIB, timer=timer),
            shared=None if url is None else SharedLevel(url, patience_s=60),
            disk=None if folder is None else DiskLevel(folder, limit_bytes=16 * MIB, patience_s=60),
            count=self.counts,
        )

    async def ask(self, principal: Principal, *keys: str, ttl_s: float = 60) -> list[list[int]]:
        """Ask for keys, check the answer, and give the positions that had to be computed."""
        compute = Doubled(keys)
        answer = await self.cache.of(principal).get_or_compute(keys, compute, ttl_s=ttl_s)
        assert answer == [value(key) for key in keys]
        await self.cache.settled()
        return compute.calls


@pytest.fixture
async def nodes() -> AsyncIterator[Callable[..., Node]]:
    """Makes nodes and closes them."""
    made: list[Node] = []

    def make(**levels: Any) -> Node:
        made.append(Node(**levels))
        return made[-1]

    yield make
    for node in made:
        await node.cache.close()


@pytest.fixture
async def tenant(nodes: Callable[..., Node]) -> TenantCache:
    """The port over memory alone."""
    return nodes().cache.of(make_principal())


async def test_only_what_nobody_has_is_computed_in_one_call(nodes: Callable[..., Node]) -> None:
    """Values come in the order of the keys; equal keys within a call are computed once."""
    node, who = nodes(), make_principal()
    assert await node.ask(who, "a", "b") == [[0, 1]]
    assert await node.ask(who, "b", "c", "a", "d", "c") == [[1, 3]]
    assert await node.ask(who, "d", "c") == []
    assert await node.ask(who) == []
    assert node.counts == {("miss", None): 4, ("hit", "memory"): 4}


@pytest.mark.parametrize("level", ["valkey", "disk"])
async def test_what_a_lower_level_has_moves_up(
    nodes: Callable[..., Node], server: ValkeyServer, tmp_path: Path, level: str
) -> None:
    """After a restart memory is empty: the value comes from below once, then from memory."""
    levels: dict[str, Any] = {"url": server.url} if level == "valkey" else {"folder": tmp_path}
    who = make_principal()
    await nodes(**levels).ask(who, "a")
    fresh = nodes(**levels)
    assert await fresh.ask(who, "a") == []
    assert await fresh.ask(who, "a") == []
    assert fresh.counts == {("hit", level): 1, ("hit", "memory"): 1}


async def test_disk_fills_valkey_again(nodes: Callable[..., Node], server: ValkeyServer, tmp_path: Path) -> None:
    """Of two processes, the one with the disk gives what Valkey lost to the one without."""
    who = make_principal()
    first = nodes(url=server.url, folder=tmp_path)
    await first.ask(who, "a", "b")
    with server.client() as client:
        client.flushall()
    first.cache.shrink()
    assert await first.ask(who, "a") == []
    assert first.counts["hit", "disk"] == 1
    other = nodes(url=server.url)
    assert await other.ask(who, "a", "b") == [[1]]
    assert other.counts == {("hit", "valkey"): 1, ("miss", None): 1}


async def test_an_entry_that_moves_up_keeps_its_time(
    nodes: Callable[..., Node], server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Valkey to memory only the time that is left goes along."""
    who, passed_s, real = make_principal(), 0.0, time.time
    await nodes(url=server.url).ask(who, "a", ttl_s=60)
    fresh = nodes(url=server.url, timer=lambda: passed_s)
    assert await fresh.ask(who, "a", ttl_s=3600) == []
    passed_s = 61.0
    monkeypatch.setattr(time, "time", lambda: real() + passed_s)
    assert await fresh.ask(who, "a") == [[0]]


@pytest.mark.parametrize("level", ["memory", "valkey", "disk"])
async def test_every_level_forgets_in_time(
    nodes: Callable[..., Node], server: ValkeyServer, tmp_path: Path, level: str
) -> None:
    """A value is not given out after its time, wherever it lies."""
    levels: dict[str, dict[str, Any]] = {"memory": {}, "valkey": {"url": server.url}, "disk": {"folder": tmp_path}}
    node, who = nodes(**levels[level]), make_principal()
    await node.ask(who, "a", ttl_s=0.2)
    if level != "memory":
        node.cache.shrink()
    await asyncio.sleep(0.25)
    assert await node.ask(who, "a") == [[0]]


async def test_a_hundred_equal_requests_compute_once(tenant: TenantCache) -> None:
    """All wait for the one computation, and each has a value of its own that it may change."""
    begun, end, calls = asyncio.Event(), asyncio.Event(), 0

    async def compute(positions: Sequence[int]) -> list[Any]:
        nonlocal calls
        calls += 1
        begun.set()
        await end.wait()
        return [{"n": 1} for _ in positions]

    tasks = [asyncio.create_task(tenant.get_or_compute(["k"], compute, ttl_s=60)) for _ in range(100)]
    await begun.wait()
    end.set()
    answers = [answer for (answer,) in await asyncio.gather(*tasks)]
    answers[0]["n"] = 2
    assert (calls, answers[1:]) == (1, [{"n": 1}] * 99)
    assert await tenant.get_or_compute(["k"], compute, ttl_s=60) == [{"n": 1}]


async def test_who_leaves_first_does_not_take_the_work_along(tenant: TenantCache) -> None:
    """The first of ten callers is cancelled in the middle: the others have the value of the same computation."""
    begun, end, calls = asyncio.Event(), asyncio.Event(), 0

    async def compute(positions: Sequence[int]) -> list[Any]:
        nonlocal calls
        calls += 1
        begun.set()
        await end.wait()
        return ["v"] * len(positions)

    first = asyncio.create_task(tenant.get_or_compute(["a", "b"], compute, ttl_s=60))
    await begun.wait()
    others = [asyncio.create_task(tenant.get_or_compute(["b"], compute, ttl_s=60)) for _ in range(9)]
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    end.set()
    assert await asyncio.gather(*others) == [["v"]] * 9
    assert calls == 1


async def test_who_has_more_time_is_not_failed_by_the_first_callers_deadline(tenant: TenantCache) -> None:
    """What is computed for several ends at the deadline of the first: the others begin anew, with their own."""
    begun, deadlines = asyncio.Event(), []

    async def compute(positions: Sequence[int]) -> list[Any]:
        deadlines.append(scope.remaining_s(999))
        begun.set()
        await asyncio.sleep(min(0.2, scope.remaining_s(999)))
        if scope.remaining_s(999) <= 0:
            raise DeadlineExceeded("too late")
        return ["v"] * len(positions)

    async def asked(timeout_s: float) -> list[Any]:
        with scope.call_scope(timeout_s=timeout_s):
            return await tenant.get_or_compute(["a"], compute, ttl_s=60)

    hurried = asyncio.create_task(asked(0.1))
    await begun.wait()
    patient, also = asyncio.create_task(asked(30)), asyncio.create_task(asked(40))
    with pytest.raises(DeadlineExceeded):
        await hurried
    assert await asyncio.gather(patient, also) == [["v"], ["v"]]
    assert len(deadlines) == 2


async def test_an_error_that_is_no_matter_of_time_is_everybodys(tenant: TenantCache) -> None:
    """And so is one that came of as little time as the caller itself has."""
    begun, calls = asyncio.Event(), 0

    async def compute(positions: Sequence[int]) -> list[Any]:
        nonlocal calls
        calls += 1
        begun.set()
        await asyncio.sleep(0.05)
        raise Unavailable("down")

    first = asyncio.create_task(tenant.get_or_compute(["a"], compute, ttl_s=60))
    await begun.wait()
    second = asyncio.create_task(tenant.get_or_compute(["a"], compute, ttl_s=60))
    for each in (first, second):
        with pytest.raises(Unavailable, match="down"):
            await each
    assert calls == 1


async def test_when_all_have_left_the_work_is_cancelled(tenant: TenantCache) -> None:
    """Nobody computes for nobody; the next caller begins anew instead of joining what is ending."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(positions: Sequence[int]) -> list[Any]:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.sleep(0.05)  # cleaning up takes a moment
            raise
        return []

    tasks = [asyncio.create_task(tenant.get_or_compute(["a"], endless, ttl_s=60)) for _ in range(3)]
    await begun.wait()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert await tenant.get_or_compute(["a"], Doubled("a"), ttl_s=60) == [value("a")]
    assert cancelled.is_set()


async def test_a_caller_cancelled_at_once_leaves_nothing_stuck(tenant: TenantCache) -> None:
    """Also when the computation had no time to begin."""
    task = asyncio.create_task(tenant.get_or_compute(["a"], Doubled("a"), ttl_s=60))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await tenant.get_or_compute(["a"], Doubled("a"), ttl_s=60) == [value("a")]


async def test_cancelling_a_caller_is_never_swallowed(nodes: Callable[..., Node], server: ValkeyServer) -> None:
    """A cancelled call ends cancelled, whenever it strikes; the cache works on."""
    node, who = nodes(url=server.url), make_principal()
    for cycles in range(12):
        for n in range(10):
            task = asyncio.create_task(node.ask(who, f"{cycles}/{n}"))
            for _ in range(cycles):
                await asyncio.sleep(0)
            if not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=60)
                assert task.cancelled()
    await node.cache.settled()
    await node.ask(who, "a")
    assert await node.ask(who, "a") == []


async def test_an_error_reaches_all_and_is_not_kept(tenant: TenantCache) -> None:
    """Whoever waits gets it; the next caller computes again."""
    calls = 0

    async def broken(positions: Sequence[int]) -> list[Any]:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        raise InvalidInput("no")

    asked = [tenant.get_or_compute(["a", "b"], broken, ttl_s=60) for _ in range(20)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [InvalidInput] * 20
    assert calls == 1
    assert await tenant.get_or_compute(["a"], Doubled("a"), ttl_s=60) == [value("a")]


async def test_a_computation_that_cancels_itself_is_an_error_not_a_cancellation(tenant: TenantCache) -> None:
    """A caller that nobody cancelled is not cancelled."""

    async def cancels(positions: Sequence[int]) -> list[Any]:
        raise asyncio.CancelledError

    with pytest.raises(Unavailable):
        await tenant.get_or_compute(["a"], cancels, ttl_s=60)


@pytest.mark.parametrize("wrong", [[], ["x", "y"], [object()], [2**70]], ids=["none", "two", "unpackable", "huge int"])
async def test_a_computation_that_breaks_the_contract_is_an_error(tenant: TenantCache, wrong: list[Any]) -> None:
    """One value a key, of what msgpack holds; nothing is kept of others."""

    async def compute(positions: Sequence[int]) -> list[Any]:
        return wrong

    with pytest.raises((ValueError, TypeError, OverflowError)):
        await tenant.get_or_compute(["a"], compute, ttl_s=60)
    assert await tenant.get_or_compute(["a"], Doubled("a"), ttl_s=60) == [value("a")]


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan")])
async def test_a_time_to_live_of_nothing_is_a_mistake(tenant: TenantCache, ttl_s: float) -> None:
    """Who wants nothing kept must not ask the cache."""
    with pytest.raises(ValueError, match="ttl_s"):
        await tenant.get_or_compute(["a"], Doubled("a"), ttl_s=ttl_s)


async def test_values_of_every_kind_survive(nodes: Callable[..., Node], server: ValkeyServer) -> None:
    """None is a value; bytes and text stay apart; keys may be of any length and characters."""
    values = [None, False, 0, -(2**63), 0.1, "ü", b"\xff\x00", [1, [2.5]], {"a": {"b": None}, "c": b""}, {1: 2}]
    keys = ["", "x" * 100_000, "\ud800", "a\nb", "ü", "ключ", " ", "neuroedge:*", "a:b", "\0"]

    async def compute(positions: Sequence[int]) -> list[Any]:
        return [values[i] for i in positions]

    who = make_principal()
    for _ in range(2):
        node = nodes(url=server.url)
        assert await node.cache.of(who).get_or_compute(keys, compute, ttl_s=60) == values
        await node.cache.settled()
    assert node.counts == {("hit", "valkey"): 10}


async def test_ten_thousand_keys_at_once(nodes: Callable[..., Node], server: ValkeyServer, tmp_path: Path) -> None:
    """All come back in order, from each level in turn, computed once."""
    who, keys = make_principal(), [f"key {n}" for n in range(10_000)]
    first = nodes(url=server.url, folder=tmp_path)
    assert await first.ask(who, *keys) == [list(range(10_000))]
    assert first.cache.memory_bytes <= MIB
    second = nodes(url=server.url)
    assert await second.ask(who, *keys) == []
    third = nodes(folder=tmp_path)
    assert await third.ask(who, *keys) == []


async def test_tenants_are_apart_on_every_level(
    nodes: Callable[..., Node], server: ValkeyServer, tmp_path: Path
) -> None:
    """Another organisation neither reads a value nor notices it, and does not even join its computation."""
    one, two = make_principal(), make_principal()
    node = nodes(url=server.url, folder=tmp_path)
    await node.ask(one, "a")
    assert await node.ask(two, "a") == [[0]]
    node.cache.shrink()
    third = make_principal()
    assert await node.ask(third, "a") == [[0]]
    assert [event for event in node.counts if event[0] == "hit"] == []

    begun, end, computing = asyncio.Event(), asyncio.Event(), 0

    async def slow(positions: Sequence[int]) -> list[Any]:
        nonlocal computing
        computing += 1
        if computing == 2:
            begun.set()
        await end.wait()
        return [computing]

    calls = [asyncio.create_task(node.cache.of(who).get_or_compute(["b"], slow, ttl_s=60)) for who in (one, two)]
    await begun.wait()
    end.set()
    await asyncio.gather(*calls)


@pytest.mark.parametrize("level", ["valkey", "disk"])
async def test_an_entry_under_another_tenants_key_is_no_hit(
    nodes: Callable[..., Node], server: ValkeyServer, tmp_path: Path, level: str
) -> None:
    """Even a copy of the stored bytes tells another organisation nothing."""
    import sqlite3

    from neuroedge.infra.cache.entry import key_of

    one, two = make_principal(), make_principal()
    node = nodes(url=server.url) if level == "valkey" else nodes(folder=tmp_path)
    await node.ask(one, "a")
    if level == "valkey":
        with server.client() as client:
            name = key_of(one.org_id, "a")[16:].hex()
            assert client.copy(f"neuroedge:{one.org_id}:cache:{name}", f"neuroedge:{two.org_id}:cache:{name}")
    else:
        with sqlite3.connect(tmp_path / "cache.sqlite") as file:
            file.execute("UPDATE entries SET key = ?", (key_of(two.org_id, "a"),))
        file.close()
    assert await node.ask(two, "a") == [[0]]


async def test_forgetting_an_organisation(nodes: Callable[..., Node], server: ValkeyServer, tmp_path: Path) -> None:
    """Nothing of it is left on any level; others keep theirs."""
    gone, stays = make_principal(), make_principal()
    node, other_machine = nodes(url=server.url, folder=tmp_path / "1"), nodes(url=server.url, folder=tmp_path / "2")
    for who in (gone, stays):
        await node.ask(who, "a", "b")
        await other_machine.ask(who, "c")
    await node.cache.forget(gone.org_id)
    other_machine.cache.shrink()
    with server.client() as client:
        assert client.keys(f"neuroedge:{gone.org_id}:cache:*") == []
    stored = b"".join(file.read_bytes() for file in (tmp_path / "1").iterdir())
    assert gone.org_id.bytes not in stored
    assert stays.org_id.bytes in stored
    assert await node.ask(stays, "a", "b") == []
    assert await node.ask(gone, "a", "b") == [[0, 1]]
    assert await other_machine.ask(gone, "c") == [[0]]  # its disk has it still, but of an older generation
    assert await other_machine.ask(gone, "c", "a") == []


async def test_what_was_being_computed_while_its_organisation_was_forgotten_is_not_kept(
    nodes: Callable[..., Node], server: ValkeyServer, tmp_path: Path
) -> None:
    """Its callers have it; later ones compute again."""
    node, who = nodes(url=server.url, folder=tmp_path), make_principal()
    begun, end = asyncio.Event(), asyncio.Event()

    async def slow(positions: Sequence[int]) -> list[Any]:
        begun.set()
        await end.wait()
        return ["old"]

    asked = asyncio.create_task(node.cache.of(who).get_or_compute(["a"], slow, ttl_s=60))
    await begun.wait()
    await node.cache.forget(who.org_id)
    end.set()
    assert await asked == ["old"]
    await node.cache.settled()
    assert await node.ask(who, "a") == [[0]]


@pytest.mark.parametrize("jump_s", [86_400, -86_400])
async def test_a_jump_of_the_clock_breaks_nothing(
    nodes: Callable[..., Node],
    server: ValkeyServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    jump_s: float,
) -> None:
    """Memory does not notice; below it entries whose time cannot be told any more are computed again."""
    node, who = nodes(url=server.url, folder=tmp_path), make_principal()
    await node.ask(who, "a")
    real: Callable[[], float] = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    assert await node.ask(who, "a") == []
    node.cache.shrink()
    assert await node.ask(who, "a") == [[0]]
    node.cache.shrink()
    assert await node.ask(who, "a") == []
    monkeypatch.setattr(time, "time", real)
    node.cache.shrink()
    assert await node.ask(who, "a") == [[0]]
    node.cache.shrink()
    assert await node.ask(who, "a") == []


async def test_in_a_crowd_reads_go_together(nodes: Callable[..., Node], server: ValkeyServer) -> None:
    """A call asks Valkey at once, unless many wait for the computation already: then it waits for company."""
    node, free, who = nodes(url=server.url), asyncio.Event(), make_principal()
    level, calls, computing = node.cache._levels.shared, list[asyncio.Task[list[Any]]](), 0
    assert level is not None

    async def compute(positions: Sequence[int]) -> list[Any]:
        nonlocal computing
        computing += 1
        await free.wait()
        return [value("a")]

    async def all_compute() -> None:
        async with asyncio.timeout(60):
            while computing < len(calls):  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    def call(name: str) -> None:
        calls.append(asyncio.create_task(node.cache.of(who).get_or_compute([name], compute, ttl_s=60)))

    with server.client() as client:

        def reads() -> int:
            return int(client.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"])

        before = reads()
        level._reads._linger_s = 600.0  # whoever waits for company waits in vain
        for name in "abcdefgh":
            call(name)
            await all_compute()
        alone = reads() - before
        level._reads._linger_s = 1.0
        for name in "ijklmnop":
            call(name)
            await asyncio.sleep(0.001)
        await all_compute()
        crowded = reads() - before - alone
    free.set()
    assert await asyncio.gather(*calls) == [[value("a")]] * 16
    assert alone == 8
    assert 1 <= crowded <= 2


async def test_closing_ends_what_is_under_way() -> None:
    """Who still waits hears that it ended."""
    node, begun = Node(), asyncio.Event()

    async def endless(positions: Sequence[int]) -> list[Any]:
        begun.set()
        await asyncio.Event().wait()
        return []

    who = make_principal()
    running = asyncio.create_task(node.cache.of(who).get_or_compute(["a"], endless, ttl_s=60))
    await begun.wait()
    barely = asyncio.create_task(node.cache.of(who).get_or_compute(["b"], endless, ttl_s=60))
    await asyncio.sleep(0)
    await node.cache.close()
    for task in (running, barely):
        with pytest.raises(Unavailable):
            await task


async def test_no_cache_computes_always() -> None:
    """For self-tests, which must not be answered from what was kept."""
    compute = Doubled("ab")
    for _ in range(2):
        assert await NoCache().get_or_compute(["a", "b"], compute, ttl_s=60) == [value("a"), value("b")]
    assert await NoCache().get_or_compute([], compute, ttl_s=60) == []
    assert compute.calls == [[0, 1], [0, 1]]
