"""Searching by meaning and by words through the functions of the tables' owner: complete, and within one's rights."""

import math
from collections.abc import AsyncIterator

import numpy as np
import pytest

from neuroedge.contract.models import Floats
from neuroedge.contract.ports import Memory, MemoryFilter, NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.stores import indexes, memories, memory_search
from neuroedge.stores.indexes import KINDS, SEARCH_OPTIONS, Kind
from neuroedge.stores.memory_filters import CHAT_MESSAGE
from neuroedge.stores.postgres import Database
from neuroedge.stores.tenant_memories import TenantMemories
from tests.stores.conftest import KEYS, Migrated, new_principal

pytestmark = pytest.mark.anyio
MODEL = "test-encoder"


def unit(seed: int, dim: int = 384) -> Floats:
    """A random direction."""
    vector: Floats = np.random.default_rng(seed).standard_normal(dim).astype(np.float32)
    return vector / np.float32(np.linalg.norm(vector))


async def _fill(db: Database, caller: Principal, count: int, *, rare_every: int = 10) -> None:
    """Rows "row <n> apple|pear …" with the tag all, and every tenth with the tag rare."""
    await TenantMemories(db, caller).add(
        [
            NewMemory(
                content=f"row number{n} {'apple' if n % 2 else 'pear'}",
                embedding=unit(n),
                embedding_model=MODEL,
                tags=["all", "rare"] if n % rare_every == 0 else ["all"],
            )
            for n in range(count)
        ]
    )


async def _near(
    db: Database, caller: Principal, kind: Kind, where: MemoryFilter, *, limit: int = 5
) -> list[tuple[Memory, float]]:
    async with db.tenant(caller) as conn:
        hits = await memory_search.nearest(
            conn, org_id=caller.org_id, vector=unit(30), model=MODEL, limit=limit, where=where, kind=kind
        )
        rows = await memories.find(conn, org_id=caller.org_id, ids=[hit.id for hit in hits])
        return [(row, hit.score) for row, hit in zip(rows, hits, strict=True)]


async def test_words_find_only_what_the_caller_may_see(db: Database) -> None:
    """The function of the tables' owner keeps to the organisation, the user and the row's end."""
    ann, other = await new_principal(db), await new_principal(db)
    bob = Principal(
        user_id=other.user_id, org_id=ann.org_id, username="b", role="member", permissions=frozenset({"read"})
    )
    store = TenantMemories(db, ann)
    [shared, private] = await store.add(
        [
            NewMemory(content="zebra shared", embedding=unit(1), embedding_model=MODEL, tags=["t"]),
            NewMemory(content="zebra mine", embedding=unit(2), embedding_model=MODEL, visibility="private", tags=["t"]),
        ]
    )

    async def found(who: Principal, where: MemoryFilter) -> set[object]:
        got = await TenantMemories(db, who).search(query="zebra", vector=unit(1), model=MODEL, limit=9, where=where)
        assert {hit.id for hit in got.keyword} == {hit.id for hit in got.dense}
        return {hit.id for hit in got.keyword}

    for where in (MemoryFilter(), MemoryFilter(tags=["t"])):
        assert await found(ann, where) == {shared, private}
        assert await found(bob, where) == {shared}
        assert await found(other, where) == set()


async def test_the_functions_give_nothing_without_a_tenant(db: Database) -> None:
    """Called by themselves, in a transaction bound to nobody."""
    await _fill(db, await new_principal(db), 3)
    async with db.unbound() as conn:
        rows = await conn.execute(
            "SELECT * FROM memories_by_words('{1:1}/1000000000', '{1}', '{}', 10, NULL, NULL, NULL, NULL, NULL, NULL)"
        )
        assert await rows.fetchall() == []
        row = await (
            await conn.execute("SELECT memories_by_facets('{1}', 10, NULL, NULL, NULL, NULL, NULL, NULL) AS ids")
        ).fetchone()
        assert row == {"ids": []}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_filter_never_starves_the_result(db: Database, kind: Kind) -> None:
    """As many rows with the rare tag as are wanted, the nearest of them, by whatever kind of index."""
    caller = await new_principal(db)
    await _fill(db, caller, 200, rare_every=20)
    found = await _near(db, caller, kind, MemoryFilter(tags=["rare"]))
    expected = sorted(range(0, 200, 20), key=lambda n: -float(unit(n) @ unit(30)))[:5]
    assert [row.content.split()[1] for row, _ in found] == [f"number{n}" for n in expected]


@pytest.mark.parametrize("kind", KINDS)
async def test_facets_too_common_to_compare_row_by_row(
    db: Database, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows are found through the index, and the facets are counted once."""
    caller = await new_principal(db)
    await _fill(db, caller, 100)
    exact = await _near(db, caller, kind, MemoryFilter(tags=["all"]))
    monkeypatch.setattr(memory_search, "EXACT", 10)
    for _ in range(2):
        assert await _near(db, caller, kind, MemoryFilter(tags=["all"])) == exact
    assert exact[0][0].content.startswith("row number30 ")
    assert exact[0][1] == pytest.approx(1, abs=1e-3)


@pytest.fixture
async def bounded(migrated: Migrated, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Reads an index no further than its first candidates, where it is left to the connection; and always reads it."""
    session = {"hnsw.max_scan_tuples": 1, "enable_sort": "off", "enable_seqscan": "off", "enable_bitmapscan": "off"}
    monkeypatch.setattr(indexes, "SEARCH_OPTIONS", {**SEARCH_OPTIONS, **session})
    database = Database(migrated.app_url, max_size=2, keys=KEYS)
    await database.open()
    yield database
    await database.close()


@pytest.mark.parametrize("score_all", [True, False])
async def test_a_scan_that_ends_before_enough_rows_pass_is_no_end(
    bounded: Database, monkeypatch: pytest.MonkeyPatch, score_all: bool
) -> None:
    """The rows that pass lie behind hundreds of nearer ones: all are compared, and the nearest come first."""
    monkeypatch.setattr(memory_search, "FILTERED_SCAN", {}, raising=False)
    caller = await new_principal(bounded)
    store = TenantMemories(bounded, caller)
    asked, aside = unit(1), unit(2)
    items = [(asked + 0.1 * unit(n), "note") for n in range(300)] + [
        (0.2 * n * aside - asked, "fact") for n in range(7)
    ]
    await store.add(
        [
            NewMemory(content=f"row {n}", embedding=vector, embedding_model=MODEL, memory_type=kind)
            for n, (vector, kind) in enumerate(items)
        ]
    )
    found = await store.search(
        query="", vector=asked, model=MODEL, limit=5, where=MemoryFilter(memory_type="fact"), score_all=score_all
    )
    assert [found.rows[hit.id].content for hit in found.dense] == [f"row {300 + n}" for n in (6, 5, 4, 3, 2)]


@pytest.mark.parametrize("score_all", [True, False])
async def test_without_a_filter_too_the_end_of_a_scan_is_no_end(bounded: Database, score_all: bool) -> None:
    """Behind hundreds of chat messages, which are found only where they are asked for."""
    caller = await new_principal(bounded)
    store = TenantMemories(bounded, caller)
    asked, aside = unit(1), unit(2)
    items = [(asked + 0.1 * unit(n), CHAT_MESSAGE) for n in range(300)] + [
        (0.2 * n * aside - asked, "fact") for n in range(7)
    ]
    await store.add(
        [
            NewMemory(content=f"row {n}", embedding=vector, embedding_model=MODEL, memory_type=kind)
            for n, (vector, kind) in enumerate(items)
        ]
    )
    found = await store.search(query="row", vector=asked, model=MODEL, limit=5, score_all=score_all)
    assert [found.rows[hit.id].content for hit in found.dense] == [f"row {300 + n}" for n in (6, 5, 4, 3, 2)]
    assert len(found.keyword) == 5


async def test_with_a_filter_an_index_is_read_further(bounded: Database) -> None:
    """For that search alone, whatever the connection's own bound."""
    caller = await new_principal(bounded)

    async def bound(where: MemoryFilter) -> int:
        async with bounded.reading(caller, options=memory_search.options(where)) as conn:
            row = await (await conn.execute("SELECT current_setting('hnsw.max_scan_tuples') AS bound")).fetchone()
        assert row is not None
        return int(row["bound"])

    filters = (MemoryFilter(), MemoryFilter(memory_type="fact"), MemoryFilter())
    assert [await bound(where) for where in filters] == [1, 40_000, 1]


async def test_all_rows_are_compared_only_where_the_index_brought_too_few(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where enough were found, nor where the few with a facet were compared."""
    caller = await new_principal(db)
    await _fill(db, caller, 20)
    compared: list[int] = []

    def counting(passed: str, limit: int) -> str:
        compared.append(limit)
        return statement(passed, limit)

    statement = memory_search._compared
    monkeypatch.setattr(memory_search, "_compared", counting)
    store = TenantMemories(db, caller)
    for where, limit, times in (
        (MemoryFilter(), 20, 0),
        (MemoryFilter(), 30, 1),
        (MemoryFilter(), 40, 0),  # all there are were counted just now
        (MemoryFilter(memory_type="note"), 20, 0),
        (MemoryFilter(memory_type="note"), 30, 1),
        (MemoryFilter(tags=["rare"]), 30, 1),
    ):
        found = await store.search(query="", vector=unit(0), model=MODEL, limit=limit, where=where)
        assert len(found.dense) == (2 if where.tags else 20)
        assert len(compared) == times, where
        compared.clear()


async def test_filters_restrict_both_searches(db: Database) -> None:
    """Type, user, times and facets."""
    caller = await new_principal(db)
    await _fill(db, caller, 20)
    store = TenantMemories(db, caller)
    for where, count in (
        (MemoryFilter(memory_type="note"), 10),
        (MemoryFilter(memory_type="segment"), 0),
        (MemoryFilter(user_id=caller.user_id), 10),
        (MemoryFilter(user_id=caller.org_id), 0),
        (MemoryFilter(tags=["all", "rare"]), 1),
        (MemoryFilter(tags=["none"]), 0),
    ):
        found = await store.search(query="apple pear", vector=unit(0), model=MODEL, limit=10, where=where)
        assert len(found.dense) == min(10, 2 if where.tags == ["all", "rare"] else count)
        assert len(found.keyword) == len(found.dense)


async def test_only_the_rows_wanted_are_opened(db: Database) -> None:
    """Those that come first when both searches are fused; the scores of all that was found are there."""
    caller = await new_principal(db)
    await _fill(db, caller, 20)
    store = TenantMemories(db, caller)
    every = await store.search(query="apple", vector=unit(0), model=MODEL, limit=10)
    some = await store.search(query="apple", vector=unit(0), model=MODEL, limit=10, keep=3)
    assert (some.dense, some.keyword) == (every.dense, every.keyword)
    assert set(every.rows) == {hit.id for hit in (*every.dense, *every.keyword)}
    assert list(some.rows) == list(every.rows)[:3]
    assert {i: every.rows[i] for i in some.rows} == some.rows


async def test_words_nobody_uses_and_no_words_at_all(db: Database) -> None:
    """No hit, no error."""
    caller = await new_principal(db)
    await _fill(db, caller, 3)
    store = TenantMemories(db, caller)
    for query in ("xylophone", "", "?!", "'; DROP TABLE memories; --"):
        found = await store.search(query=query, vector=None, model=MODEL, limit=5)
        assert (found.dense, found.keyword) == ([], [])


async def test_a_plan_that_is_kept_finds_what_is_added_and_never_another_organisation(db: Database) -> None:
    """Two organisations ask the same, more often than PostgreSQL plans a statement; both have a few rows each."""
    callers = [await new_principal(db) for _ in range(2)]
    stores = [TenantMemories(db, caller) for caller in callers]
    for caller in callers:
        await _fill(db, caller, 5)
    for turn in range(24):
        wanted = 5 + turn // 12
        if turn == 12:
            for store in stores:
                await store.add([NewMemory(content="apple late", embedding=unit(50), embedding_model=MODEL)])
        found = [await store.search(query="apple pear", vector=unit(50), model=MODEL, limit=9) for store in stores]
        assert [(len(f.dense), len(f.keyword)) for f in found] == [(wanted, wanted)] * 2
        assert not found[0].rows.keys() & found[1].rows.keys()
        assert turn < 12 or all(f.rows[f.dense[0].id].content == "apple late" for f in found)


async def test_every_score_is_that_of_its_own_search(db: Database) -> None:
    """With all scores asked for, rows found by one search alone have those of the other too; names bring more rows."""
    caller = await new_principal(db)
    await _fill(db, caller, 20)
    found = await TenantMemories(db, caller).search(
        query="apple", vector=unit(0), model=MODEL, limit=4, score_all=True, names=["nobody"]
    )
    assert set(found.rows) == set(found.cosines) == set(found.bm25) == {h.id for h in (*found.dense, *found.keyword)}
    assert {h.id: h.score for h in found.dense}.items() <= found.cosines.items()
    assert all(found.bm25[h.id] == pytest.approx(h.score) for h in found.keyword)
    assert {found.bm25[i] > 0 for i in found.rows if "pear" in found.rows[i].content} == {False}


async def test_words_are_weighed_by_how_rare_they_are(db: Database) -> None:
    """The scores are BM25's, computed by hand: four rows of 1, 3, 1 and 2 words."""
    caller = await new_principal(db)
    contents = ["apple", "apple pear pear", "plum", "plum fig"]
    store = TenantMemories(db, caller)
    await store.add([NewMemory(content=text, embedding=unit(1), embedding_model=MODEL) for text in contents])

    def part(*, rows: int, times: int, words: int) -> float:
        return math.log(1 + (4 - rows + 0.5) / (rows + 0.5)) * times / (times + 1.5 * (0.25 + 0.75 * words / (7 / 4)))

    found = await store.search(query="pear apple pear nothing", vector=None, model=MODEL, limit=9)
    assert [found.rows[hit.id].content for hit in found.keyword] == ["apple pear pear", "apple"]
    assert [hit.score for hit in found.keyword] == pytest.approx(
        [part(rows=2, times=1, words=3) + part(rows=1, times=2, words=3), part(rows=2, times=1, words=1)], abs=1e-5
    )
