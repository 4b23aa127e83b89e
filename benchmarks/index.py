"""Recall and time of pgvector's indexes as the engine index tries them, against every row compared.

    python -m benchmarks.index [--n 10000] [--dim 384] [--queries 200] [--seeds 3] [--models DIR --data DIR]

Runs on an embedded PostgreSQL of its own. Vectors are drawn around 100 centres (spread 0.5), which is nearer to what
encoders give than pure noise; `random` draws them in all directions, the worst case there is. With --models and --data
(a folder with cranfield/) Cranfield's abstracts and questions are embedded by the default encoder and searched. Search
parameters are the engine's defaults, chosen before. recall@10 is against single precision; the interval is a bootstrap
over the queries of the first seed. Times are of the whole way to the database and back on a busy machine.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.report import Figure, figure, save
from neuroedge.bootstrap import app_password, open_servers
from neuroedge.contract.index_trials import IndexMethod
from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal
from neuroedge.engines.knowledge.index import EFFORT
from neuroedge.infra.vault import Vault, new_master_key
from neuroedge.kit.vector_recall import mean_ci95, recalls
from neuroedge.settings import Settings
from neuroedge.stores import accounts, schema
from neuroedge.stores.index_trials import TenantIndexes
from neuroedge.stores.postgres import Database

K: Final = 10
METHODS: Final[tuple[IndexMethod, ...]] = ("exact", "hnsw", "binary", "ivfflat")
TARGET: Final = 0.95


def clustered(n: int, dim: int, *, seed: int, centres: Any) -> Any:
    """Unit vectors around the centres."""
    rng = np.random.default_rng(seed)
    return unit(centres[rng.integers(0, len(centres), n)] + 0.5 * rng.normal(size=(n, dim)))


def unit(vectors: Any) -> Any:
    """L2-normalised, single precision."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


async def embedded(texts: list[str], models: Path) -> Any:
    """Vectors by the default encoder, of what stands in the first 384 characters."""
    from neuroedge.runtimes import text_encoder

    name = "all-minilm-l6-v2-int8"
    encoder = text_encoder.load(name, models / name, threads=2, options={})
    try:
        parts = [(await encoder.encode([t[:384] for t in texts[i : i + 64]])).vectors for i in range(0, len(texts), 64)]
        return np.concatenate(parts)
    finally:
        encoder.close()


async def sets(given: argparse.Namespace) -> list[tuple[str, list[tuple[Any, Any]]]]:
    """Name, and for each seed vectors and queries."""
    centres = np.random.default_rng(0).normal(size=(100, given.dim))
    found = [
        (
            f"clusters, {given.n} × {given.dim}",
            [
                (
                    clustered(given.n, given.dim, seed=2 * seed + 1, centres=centres),
                    clustered(given.queries, given.dim, seed=2 * seed + 2, centres=centres),
                )
                for seed in range(given.seeds)
            ],
        )
    ]
    rng = np.random.default_rng(99)
    noise = [unit(rng.normal(size=(n, given.dim))) for n in (given.n, given.queries)]
    found.append((f"random, {given.n} × {given.dim}", [(noise[0], noise[1])]))
    if given.models and given.data:
        from benchmarks.retrieval_collections import cranfield

        collection = cranfield(given.data / "cranfield")
        rows = await embedded(collection.documents, given.models)
        asked = await embedded(collection.questions, given.models)
        usable = np.linalg.norm(rows, axis=1) > 0.5
        found.append((f"Cranfield, {int(usable.sum())} × {rows.shape[1]}", [(rows[usable], asked)]))
    return found


async def measure(given: argparse.Namespace) -> list[Figure]:
    """Recall, seconds of building, milliseconds a query, by data and method."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder))
        async with open_servers(settings) as servers:
            await asyncio.to_thread(
                schema.upgrade, servers.postgres_owner, app_password=app_password(settings, servers.secrets)
            )
            db = Database(servers.postgres_app, max_size=2, keys=Vault(new_master_key()))
            await db.open()
            try:
                indexes = TenantIndexes(db, await _principal(db), slots=asyncio.Semaphore(1))
                for name, runs in await sets(given):
                    for method in METHODS:
                        figures += await _tried(indexes, name, runs, method)
            finally:
                await db.close()
    return figures


async def _tried(indexes: TenantIndexes, name: str, runs: list[tuple[Any, Any]], method: IndexMethod) -> list[Figure]:
    found, built, asked, note = [], [], [], ""
    for vectors, queries in runs:
        trial = await indexes.trial(
            vectors, queries, method=method, k=K, m=16, ef_construction=64, effort=EFFORT[method]
        )
        shares = recalls(vectors, queries, trial.positions, k=K)
        found.append(float(shares.mean()))
        built.append(trial.build_s)
        asked.append(1000 * trial.query_s / len(queries))
        low, high = mean_ci95(shares)
        note = note or f"95 % CI {low:.3f} to {high:.3f}, {len(queries)} queries"
        print(f"{name}, {method}: {found[-1]:.4f}", flush=True)
    target = TARGET if method == "hnsw" and not name.startswith("random") else None
    figures = [figure(f"recall@10, {name}, {method}", "", found, at_least=target, note=note)]
    if method != "exact":
        figures.append(figure(f"building, {name}, {method}", "s", built))
    return [*figures, figure(f"a query, {name}, {method}", "ms", asked)]


async def _principal(db: Database) -> Principal:
    async with db.unbound() as conn:
        login = await accounts.create_user_with_organisation(
            conn, username="bench", email="bench@example.org", password_hash="-", organisation="bench", admin=False
        )
    return Principal(
        user_id=login.user_id,
        org_id=login.org_id,
        username="bench",
        role="owner",
        permissions=ROLE_PERMISSIONS["owner"],
    )


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", type=Path, help="the model store, for Cranfield")
    parser.add_argument("--data", type=Path, help="a folder with cranfield/")
    given = parser.parse_args()
    figures = asyncio.run(measure(given))
    command = f"python -m benchmarks.index --n {given.n} --dim {given.dim} --queries {given.queries}"
    command += f" --seeds {given.seeds}" + (" --models DIR --data DIR" if given.models and given.data else "")
    save("index", figures, title="Vector indexes against an exact search", command=command)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
