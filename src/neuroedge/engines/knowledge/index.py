"""Index: how well an approximate vector index finds what an exact search finds, and what it found.

Method: by pgvector (PostgreSQL licence), cosine over half-precision vectors: `hnsw` (Malkov & Yashunin 2018, "Efficient
and robust approximate nearest neighbor search using hierarchical navigable small world graphs"), `ivfflat` (inverted
lists of k-means cells), `binary` (one bit a dimension, Hamming distance over HNSW, then the exact cosine of the
candidates), `exact` (every row compared). recall@k is measured against every row compared in single precision. Given
vectors are indexed for the one call in a temporary table; without any, a sample of your memories' own vectors is
searched with the installation's index and compared with searching all.

Limits: 20,000 vectors of 1024 dimensions (a request takes about 6 million numbers in base64). Cosine only. Recall
depends on the data: random vectors are a worst case, one's own queries the one that counts. Times are those of a busy
server: compare them, do not quote them. A sample of the vectors themselves finds itself first, which flatters recall.
"""

import asyncio
import base64
import binascii
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.index_trials import IndexMethod
from neuroedge.contract.models import Floats
from neuroedge.kit.vector_recall import mean_ci95, recalls

MAX_VECTORS: Final = 20_000
MAX_QUERIES: Final = 500
MAX_DIM: Final = 1024
_MIN_QUERIES: Final = 20
"""Below, the recall is no more than a hint."""
_MIN_PER_RESULT: Final = 10
"""Vectors for each one wanted, below which any search finds all."""
EFFORT: Final = {"hnsw": 80, "ivfflat": 4, "binary": 160, "exact": 1}
_SEED: Final = 12
Row = Annotated[list[float], Field(min_length=1, max_length=MAX_DIM)]


class Vectors(BaseModel):
    """Vectors of one length: exactly one of `rows`, `base64` and `blob`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rows: list[Row] | None = Field(
        default=None, min_length=1, max_length=MAX_VECTORS, description="The vectors as numbers, all of one length."
    )
    base64: str | None = Field(default=None, description="Little-endian 32-bit floats, row after row, in base64.")
    blob: str | None = Field(default=None, description="Key of an object of such floats in the caller's blob storage.")
    dim: int | None = Field(
        default=None, ge=1, le=MAX_DIM, description="Numbers a vector; needed with base64 and blob only."
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Vectors":
        if sum(given is not None for given in (self.rows, self.base64, self.blob)) != 1:
            raise ValueError("give exactly one of 'rows', 'base64' and 'blob'")
        if self.rows is None and self.dim is None:
            raise ValueError("give 'dim' with base64 and blob")
        if self.rows is not None and len({len(row) for row in self.rows}) > 1:
            raise ValueError("all rows must have the same length")
        return self


class Input(EngineInput):
    """What to index and to look for; without vectors, the caller's memories are tried."""

    vectors: Vectors | None = Field(
        default=None, description="1 to 20,000 vectors of 1 to 1024 numbers; null: your memories' own."
    )
    queries: Vectors | None = Field(
        default=None,
        description="1 to 500 vectors to find the nearest of; null: a sample of `vectors`, which find themselves, too.",
    )
    method: IndexMethod = Field(
        default="hnsw", description="How `vectors` are indexed; memories are searched with the installation's index."
    )
    k: int = Field(default=10, ge=1, le=100, description="How many nearest are wanted of each query.")
    sample: int = Field(default=50, ge=1, le=MAX_QUERIES, description="Queries where none are given.")
    m: int = Field(default=16, ge=2, le=64, description="Neighbours a node of the graph keeps (hnsw, binary).")
    ef_construction: int = Field(
        default=64, ge=8, le=500, description="Candidates looked at for each row while building; at least 2 m."
    )
    effort: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Rows a search looks at (hnsw 80, binary 160) or lists (ivfflat 4): more finds more, slower.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Input":
        if self.ef_construction < 2 * self.m:
            raise ValueError("ef_construction must be at least 2 m")
        if self.queries is not None and self.vectors is None:
            raise ValueError("queries need vectors to look in")
        return self


class Output(EngineOutput):
    """What was found, and how much of what is there."""

    subject: Literal["vectors", "memories"] = Field(description="What was searched.")
    ids: list[list[int]] = Field(
        description="For each query, positions of the nearest vectors, nearest first; none for memories."
    )
    cosines: list[list[float]] = Field(description="Their cosine with the query, -1 to 1.")
    k: int = Field(description="How many were wanted; no more than there are vectors.")
    recall: float | None = Field(
        description="Mean over the queries of the part (0 to 1) of the k nearest that was found; null without rows."
    )
    recall_ci95: tuple[float, float] | None = Field(
        description="95 % confidence interval over the queries, by the bootstrap."
    )
    n: int = Field(description="Vectors searched.")
    dim: int = Field(description="Numbers a vector.")
    queries: int = Field(description="Queries asked.")
    build_s: float | None = Field(description="Seconds of building the index; null for memories, built before.")
    query_ms: float | None = Field(description="Mean milliseconds a query, with the way to the database.")
    exact_ms: float | None = Field(description="Mean milliseconds of comparing all memories; null for vectors.")
    index_bytes: int | None = Field(description="Size of the index; null for memories, whose index is shared.")
    embedding_model: str | None = Field(description="Of memories: catalogue id of the encoder most are embedded by.")
    reliable: bool = Field(description="Whether the recall rests on enough queries and rows.")
    warnings: list[str] = Field(description="What it rests on, where that is little.")


class IndexEngine(Engine[Input, Output]):
    """Vectors and queries to nearest neighbours and their recall."""

    name = "index"
    title = "Vector index trial"
    method = "hnsw"
    example = Input(
        vectors=Vectors(rows=[[1, 0, 0.1], [0.9, 0.2, 0], [0, 1, 0.1], [0.1, 0.9, 0], [0, 0.1, 1], [0.2, 0, 0.9]]),
        queries=Vectors(rows=[[1, 0.1, 0], [0, 0.1, 0.8]]),
        k=2,
    )
    timeout_s = 180.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Try an index. Raises InvalidInput, NotFound, DeadlineExceeded, Unavailable."""
        if payload.vectors is None:
            return await self._memories(payload, ctx)
        vectors = await _normalised(payload.vectors, ctx, field="vectors", most=MAX_VECTORS)
        warnings: list[str] = []
        if payload.queries is None:
            chosen = np.random.default_rng(_SEED).permutation(len(vectors))[: payload.sample]
            queries = vectors[chosen]
            warnings.append("the queries are some of the vectors and find themselves: recall is flattered")
        else:
            queries = await _normalised(payload.queries, ctx, field="queries", most=MAX_QUERIES)
        if queries.shape[1] != vectors.shape[1]:
            raise _wrong("queries", f"have {queries.shape[1]} numbers, the vectors {vectors.shape[1]}")
        k = min(payload.k, len(vectors))
        await ctx.progress("build", 0.0)
        trial = await ctx.indexes.trial(
            vectors,
            queries,
            method=payload.method,
            k=k,
            m=payload.m,
            ef_construction=payload.ef_construction,
            effort=payload.effort or EFFORT[payload.method],
        )
        await ctx.progress("compare", 0.8)
        shares = await asyncio.to_thread(recalls, vectors, queries, trial.positions, k=k)
        weak = _weak(len(queries), len(vectors), k)
        return Output(
            method=payload.method,
            subject="vectors",
            ids=[list(row) for row in trial.positions],
            cosines=[[round(value, 6) for value in row] for row in trial.cosines],
            k=k,
            recall=round(float(shares.mean()), 4),
            recall_ci95=mean_ci95(shares),
            n=len(vectors),
            dim=vectors.shape[1],
            queries=len(queries),
            build_s=round(trial.build_s, 4),
            query_ms=round(1000 * trial.query_s / len(queries), 3),
            exact_ms=None,
            index_bytes=trial.index_bytes,
            embedding_model=None,
            reliable=not weak,
            warnings=warnings + weak,
        )

    async def _memories(self, payload: Input, ctx: EngineContext) -> Output:
        trial = await ctx.indexes.memories(queries=payload.sample, k=payload.k)
        n, asked = trial.rows, len(trial.found)
        k = min(payload.k, n)
        shares = np.array(
            [
                len(set(found) & set(exact)) / max(1, len(exact))
                for found, exact in zip(trial.found, trial.exact, strict=True)
            ]
        )
        warnings = _weak(asked, n, k) if n else ["you have no memories with vectors"]
        if n:
            warnings.append("the queries are memories' own vectors and find themselves: recall is flattered")
        return Output(
            method=trial.kind,
            models=[trial.model] if trial.model else [],
            subject="memories",
            ids=[],
            cosines=[],
            k=k,
            recall=round(float(shares.mean()), 4) if asked else None,
            recall_ci95=mean_ci95(shares) if asked else None,
            n=n,
            dim=trial.dim,
            queries=asked,
            build_s=None,
            query_ms=round(1000 * trial.query_s / asked, 3) if asked else None,
            exact_ms=round(1000 * trial.exact_s / asked, 3) if asked else None,
            index_bytes=None,
            embedding_model=trial.model,
            reliable=bool(n) and not _weak(asked, n, k),
            warnings=warnings,
        )


def _weak(queries: int, n: int, k: int) -> list[str]:
    """Why a recall says little."""
    found = []
    if queries < _MIN_QUERIES:
        found.append(f"{queries} queries: the recall rests on fewer than {_MIN_QUERIES}")
    if n < _MIN_PER_RESULT * k:
        found.append(f"{n} vectors are few for {k} nearest: any search finds them")
    return found


async def _normalised(given: Vectors, ctx: EngineContext, *, field: str, most: int) -> Floats:
    """The vectors, L2-normalised [n, dim]. Raises InvalidInput naming the field."""
    if given.rows is not None:
        if len(given.rows) > most:
            raise _wrong(field, f"are {len(given.rows)}, more than {most}")
        rows = given.rows
        return await asyncio.to_thread(lambda: _checked(np.asarray(rows, np.float64), field))
    if given.blob is not None:
        data = await ctx.blobs.get(given.blob)
    else:
        try:
            data = await asyncio.to_thread(lambda: base64.b64decode(given.base64 or "", validate=True))
        except (binascii.Error, ValueError) as error:
            raise _wrong(field, "are not valid base64") from error
    dim = given.dim or 1
    if not data or len(data) % (4 * dim):
        raise _wrong(field, f"are {len(data)} bytes, which is no whole number of vectors of {dim} 32-bit floats")
    if len(data) > 4 * dim * most:
        raise _wrong(field, f"are {len(data) // (4 * dim)}, more than {most}")
    return await asyncio.to_thread(lambda: _checked(np.frombuffer(data, "<f4").reshape(-1, dim), field))


def _checked(vectors: NDArray[Any], field: str) -> Floats:
    wide = vectors.astype(np.float64)
    if not np.isfinite(wide).all():
        raise _wrong(field, "hold NaN or infinite numbers")
    largest = np.abs(wide).max(axis=1, keepdims=True)
    if not largest.all():
        row = int(np.flatnonzero(largest[:, 0] == 0)[0])
        raise _wrong(field, f"hold a vector of zeros, number {row}: it has no direction")
    wide /= largest  # squares of the largest numbers would be infinite
    unit: Floats = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _wrong(field: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"the {field} {what}", errors=[{"loc": (field,), "msg": f"the {field} {what}", "type": "value_error"}]
    )
