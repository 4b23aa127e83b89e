"""The least a search over HTTP can be here, to compare with: a bare route, the same encoder, plain pgvector, ids only.

No accounts, limits, tenants' keys, words, contents, ledger or cache: what it needs, everything needs. Started by
`benchmarks.vector_search` as `python -m benchmarks.search_bare --postgres URL --org ID`; it prints its address.
"""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from pgvector import HalfVector
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel

from benchmarks import in_process
from benchmarks.search_timing import MOST
from neuroedge.cli.serve import bind
from neuroedge.contract.models import TEXT_EMBEDDING
from neuroedge.infra.telemetry import configure_logging

PLAIN: Final = "SELECT memory_id FROM bench_plain WHERE org_id = %(org)s ORDER BY embedding <=> %(vector)s LIMIT %(n)s"


class Query(BaseModel):
    """What is searched."""

    query: str
    top_k: int = 5


class Found(BaseModel):
    """The nearest."""

    ids: list[UUID]


async def prepared(conn: AsyncConnection) -> None:
    """Vectors, and the settings that NeuroEdge uses too."""
    await conn.set_autocommit(True)
    await register_vector_async(conn)
    await conn.execute("SET hnsw.iterative_scan = strict_order")
    await conn.execute("SET hnsw.ef_search = 100")


def app(postgres: str, org: UUID) -> FastAPI:
    """The route."""
    models = in_process.pool()
    connections = AsyncConnectionPool(postgres, min_size=MOST, max_size=MOST, open=False, configure=prepared)

    @asynccontextmanager
    async def open_parts(_: FastAPI) -> AsyncIterator[None]:
        async with connections, models.lease(TEXT_EMBEDDING) as encoder:
            made.state.encoder = encoder
            yield
        await models.close()

    made = FastAPI(lifespan=open_parts)

    @made.post("/search")
    async def search(asked: Query) -> Found:
        vector = (await made.state.encoder.encode([asked.query], kind="query")).vectors[0]
        async with connections.connection() as conn:
            wanted = {"org": org, "vector": HalfVector(np.asarray(vector)), "n": asked.top_k}
            rows = await (await conn.execute(PLAIN, wanted, binary=True)).fetchall()
        return Found(ids=[row[0] for row in rows])

    return made


@contextlib.contextmanager
def served(postgres: str, org: UUID) -> Iterator[tuple[str, int]]:
    """Its address and process id, until the block ends."""
    command = [sys.executable, "-m", "benchmarks.search_bare", "--postgres", postgres, "--org", str(org)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            _wait_for(url)
            yield url, process.pid
        finally:
            process.terminate()


def _wait_for(url: str) -> None:
    """Until it answers, at most a minute."""
    until = time.monotonic() + 60
    while True:
        try:
            httpx.get(f"{url}/docs", trust_env=False).raise_for_status()
            return
        except httpx.ConnectError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--org", type=UUID, required=True)
    given = parser.parse_args()
    configure_logging(level="warning", fmt="json")
    listening = bind("127.0.0.1", 0)
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app(given.postgres, given.org), loop="uvloop", http="httptools", log_level="warning")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
