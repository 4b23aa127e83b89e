"""Port to vector indexes: how well an approximate one finds what an exact search finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from neuroedge.contract.errors import Unavailable
from neuroedge.contract.models import Floats

IndexMethod = Literal["hnsw", "ivfflat", "binary", "exact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexTrial:
    """What an index over given vectors found."""

    positions: Sequence[Sequence[int]]
    """For each query, positions of the vectors it found, nearest first."""
    cosines: Sequence[Sequence[float]]
    """Their cosine with the query."""
    build_s: float
    """Seconds of building the index; 0 for an exact search."""
    query_s: float
    """Seconds of all queries together."""
    index_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryTrial:
    """How a sample of a tenant's own vectors is found: what the index gave, and what comparing all gave."""

    kind: str
    """Of the installation's index: hnsw, hnsw_binary or ivfflat."""
    model: str | None
    """Catalogue id of the model most of the caller's rows are embedded by; None: there is none."""
    dim: int
    rows: int
    """Rows with a vector of that model that the caller may see."""
    found: Sequence[Sequence[UUID]]
    """For each sampled row, its nearest by the index."""
    exact: Sequence[Sequence[UUID]]
    query_s: float
    """Seconds of the queries by the index."""
    exact_s: float
    """Seconds of the exact ones."""


class Indexes(Protocol):
    """Vector indexes of the database, tried within the caller's own transaction."""

    async def trial(
        self,
        vectors: Floats,
        queries: Floats,
        *,
        method: IndexMethod,
        k: int,
        m: int,
        ef_construction: int,
        effort: int,
    ) -> IndexTrial:
        """Index `vectors` [n, dim] for this call alone and find the `k` nearest of each query [q, dim] by cosine.

        `effort`: rows a search looks at (hnsw, binary) or lists (ivfflat). Raises Unavailable, DeadlineExceeded.
        """
        ...

    async def memories(self, *, queries: int, k: int) -> MemoryTrial:
        """Search the caller's memories for so many of their own vectors, by the index and by comparing all."""
        ...


class NoIndexes:
    """The Indexes of a context without a database."""

    async def trial(
        self,
        vectors: Floats,
        queries: Floats,
        *,
        method: IndexMethod,
        k: int,
        m: int,
        ef_construction: int,
        effort: int,
    ) -> IndexTrial:
        """Refuse."""
        raise Unavailable("there is no index here", hint="give the context `indexes`")

    async def memories(self, *, queries: int, k: int) -> MemoryTrial:
        """Refuse."""
        raise Unavailable("there is no index here", hint="give the context `indexes`")
