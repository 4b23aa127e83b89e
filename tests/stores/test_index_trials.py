"""Trials of vector indexes in a real database: each method against every row compared, and a tenant's memories."""

import asyncio
from typing import Any

import numpy as np
import pytest

from neuroedge.contract.index_trials import IndexMethod
from neuroedge.contract.ports import NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.kit.vector_recall import recalls
from neuroedge.stores import memories
from neuroedge.stores.index_trials import TenantIndexes
from neuroedge.stores.postgres import Database
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio
N, DIM, K = 600, 32, 10


def clustered(n: int, *, seed: int, dim: int = DIM) -> Any:
    """Unit vectors around 20 centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(20, dim))
    vectors = centres[rng.integers(0, 20, n)] + 0.4 * rng.normal(size=(n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def indexes(db: Database, caller: Principal) -> TenantIndexes:
    """The port of a caller."""
    return TenantIndexes(db, caller, slots=asyncio.Semaphore(1))


@pytest.mark.parametrize(("method", "effort"), [("exact", 1), ("hnsw", 200), ("ivfflat", 10), ("binary", 400)])
async def test_every_method_finds_what_is_near(db: Database, method: IndexMethod, effort: int) -> None:
    """With this much effort nearly all of what an exact search finds, nearest first, with its cosine."""
    vectors, queries = clustered(N, seed=1), clustered(25, seed=2)
    trial = await indexes(db, await new_principal(db)).trial(
        vectors, queries, method=method, k=K, m=16, ef_construction=64, effort=effort
    )
    assert all(len(row) == K for row in trial.positions)
    assert recalls(vectors, queries, trial.positions, k=K).mean() >= (1.0 if method == "exact" else 0.95)
    for query, positions, cosines in zip(queries, trial.positions, trial.cosines, strict=True):
        assert np.allclose(vectors[list(positions)] @ query, cosines, atol=2e-3)
        assert list(cosines) == sorted(cosines, reverse=True)
    assert (trial.build_s > 0) == (trial.index_bytes > 0) == (method != "exact")


async def test_little_effort_finds_less(db: Database) -> None:
    """One list of ten holds a part of the neighbours only: the measure can tell a bad index."""
    rng = np.random.default_rng(3)
    vectors, queries = (rng.normal(size=(n, DIM)).astype(np.float32) for n in (N, 25))
    vectors, queries = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (vectors, queries))
    found = {}
    for effort in (1, 10):
        trial = await indexes(db, await new_principal(db)).trial(
            vectors, queries, method="ivfflat", k=K, m=16, ef_construction=64, effort=effort
        )
        found[effort] = recalls(vectors, queries, trial.positions, k=K).mean()
    assert found[1] < 0.9 < found[10]


async def test_nothing_of_a_trial_stays(db: Database) -> None:
    """A second trial on the same connections finds no table of the first; settings are the connection's own again."""
    port = indexes(db, await new_principal(db))
    for _ in range(3):
        await port.trial(
            clustered(50, seed=4), clustered(2, seed=5), method="hnsw", k=3, m=8, ef_construction=16, effort=10
        )
    async with db.unbound() as conn:
        row = await (await conn.execute("SELECT to_regclass('index_trial') AS found")).fetchone()
        assert row == {"found": None}
        row = await (await conn.execute("SELECT current_setting('enable_seqscan') AS scan")).fetchone()
        assert row == {"scan": "on"}


async def test_memories_are_the_callers_own(db: Database) -> None:
    """Rows of another organisation, and others' private ones, are neither counted nor found."""
    mine, other = await new_principal(db), await new_principal(db)
    vectors = clustered(40, seed=6, dim=384)
    for caller, rows in ((mine, vectors[:30]), (other, vectors[30:])):
        items = [NewMemory(content=f"row {i}", embedding=row, embedding_model="m") for i, row in enumerate(rows)]
        async with db.tenant(caller) as conn:
            ids = await memories.insert(conn, org_id=caller.org_id, user_id=caller.user_id, items=items)
        trial = await indexes(db, caller).memories(queries=8, k=5)
        assert (trial.model, trial.dim, trial.rows, trial.kind) == ("m", 384, len(rows), "hnsw")
        assert len(trial.found) == len(trial.exact) == 8
        assert {i for row in (*trial.found, *trial.exact) for i in row} <= set(ids)
        assert all(set(a) == set(b) for a, b in zip(trial.found, trial.exact, strict=True))


async def test_without_memories_there_is_nothing_to_try(db: Database) -> None:
    """No rows, no queries, no error."""
    trial = await indexes(db, await new_principal(db)).memories(queries=5, k=5)
    assert (trial.model, trial.rows, list(trial.found)) == (None, 0, [])
