"""Hybrid search over what is remembered: by meaning and by words, fused by rank.

Method: dense retrieval (sentence embeddings, cosine, HNSW) and PostgreSQL full text, each asked for three times what
is wanted, fused by reciprocal rank (Cormack, Clarke & Büttcher 2009, k = 60). Default encoder: all-MiniLM-L6-v2.

Limits: rows embedded by another model than the present one are found by words only. The score orders the hits of one
query; it is no probability and cannot be compared between queries.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.models import TEXT_EMBEDDING
from neuroedge.contract.ports import MemoryFilter, MemoryHit
from neuroedge.kit.fusion import reciprocal_rank_fusion

OVER_RETRIEVE = 3
Tag = Annotated[str, Field(min_length=1, max_length=100)]


class Input(EngineInput):
    """A question and what to restrict it to."""

    query: str = Field(min_length=1, max_length=8000, description="What to look for, in plain words.")
    top_k: int = Field(default=5, ge=1, le=50, description="Hits wanted.")
    recording_id: UUID | None = Field(default=None, description="Only what was said in this recording.")
    memory_type: str | None = Field(default=None, max_length=50, description="Only this type (note, segment …).")
    tags: list[Tag] | None = Field(default=None, max_length=50, description="Only rows with all of these tags.")


class Parts(BaseModel):
    """What each search thought of a hit; null where it did not find it."""

    dense: float | None = Field(description="Cosine similarity of query and content, -1 to 1.")
    keyword: float | None = Field(description="Full-text rank, 0 or more.")


class Hit(BaseModel):
    """A remembered text."""

    id: UUID = Field(description="Id of the row.")
    content: str = Field(description="The remembered text.")
    score: float = Field(description="Fused score: sum of 1 / (60 + rank) over the searches that found it.")
    parts: Parts = Field(description="Scores before fusion.")
    title: str | None = Field(description="What the text belongs to.")
    tags: list[str] = Field(description="Its labels.")
    metadata: dict[str, Any] = Field(description="As stored; segments carry speaker, start_s and end_s.")
    recording_id: UUID | None = Field(description="Recording it was said in.")
    created_at: datetime = Field(description="When it was remembered, UTC.")


class Output(EngineOutput):
    """The best hits, best first."""

    hits: list[Hit] = Field(description="At most top_k hits, best first.")


class SearchEngine(Engine[Input, Output]):
    """Meaning and words, fused."""

    name = "search"
    title = "Hybrid search"
    method = "hybrid-rrf"
    example = Input(query="Who lives in Texas?", top_k=3)
    needs = (TEXT_EMBEDDING,)

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Find the rows nearest to the query."""
        where = MemoryFilter(
            recording_id=payload.recording_id, memory_type=payload.memory_type, tags=payload.tags or None
        )
        limit = OVER_RETRIEVE * payload.top_k
        async with ctx.models.lease(TEXT_EMBEDDING) as encoder:
            embedded = await encoder.encode([payload.query], kind="query")
            model = encoder.model_id
        dense = await ctx.memories.nearest(embedded.vectors[0], model=model, limit=limit, where=where)
        worded = await ctx.memories.matching(payload.query, limit=limit, where=where)
        return Output(hits=_fuse(dense, worded)[: payload.top_k], method=self.method, models=[model])


def _fuse(dense: Sequence[MemoryHit], worded: Sequence[MemoryHit]) -> list[Hit]:
    rows = {hit.id: hit for hit in (*dense, *worded)}
    cosines = {hit.id: hit.score for hit in dense}
    ranks = {hit.id: hit.score for hit in worded}
    fused = reciprocal_rank_fusion({"dense": list(cosines), "keyword": list(ranks)})
    return [
        Hit(
            id=item.id,
            content=rows[item.id].content,
            score=item.score,
            parts=Parts(dense=cosines.get(item.id), keyword=ranks.get(item.id)),
            title=rows[item.id].title,
            tags=rows[item.id].tags,
            metadata=rows[item.id].metadata,
            recording_id=rows[item.id].recording_id,
            created_at=rows[item.id].created_at,
        )
        for item in fused
    ]
