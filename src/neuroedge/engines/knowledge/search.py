"""Hybrid search over what is remembered: by meaning and by words, fused by rank, put in order by a reranker.

Method: dense retrieval (sentence embeddings, cosine, HNSW) and BM25 over keyed hashes of the words, each asked for
three times what is wanted; fused by reciprocal rank (Cormack, Clarke & Büttcher 2009, k = 60); the best of them scored
again with the query beside them (the engine `ranking`: a cross-encoder or GGUF reranker where one is configured, else
late interaction) and combined with the first scores (kit/fusion.py). On request results that repeat each other give
way (maximal marginal relevance, Carbonell & Goldstein 1998). Default encoder: all-MiniLM-L6-v2.

Limits: rows embedded by another model than the present one are found by words only. Scores order the hits of one
query; they are no probabilities and cannot be compared between queries. Words are stemmed as English.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import numpy as np
from pydantic import BaseModel, Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.models import TEXT_EMBEDDING, Floats
from neuroedge.contract.ports import Found, Memory, MemoryFilter
from neuroedge.engines.knowledge.ranking import Input as RankingInput
from neuroedge.kit.fusion import RERANK_WEIGHTS, combined_scores, reciprocal_rank_fusion
from neuroedge.kit.highlights import best_window
from neuroedge.kit.mmr import maximal_marginal_relevance
from neuroedge.kit.names import names_in

OVER_RETRIEVE: Final = 3
MAX_RERANKED: Final = 60
MAX_RANKED_CHARS: Final = 20_000
Tag = Annotated[str, Field(min_length=1, max_length=100)]
Scalar = str | int | float | bool


class Input(EngineInput):
    """A question and what to restrict it to."""

    query: str = Field(min_length=1, max_length=8000, description="What to look for, in plain words.")
    top_k: int = Field(default=5, ge=1, le=50, description="Hits wanted.")
    mode: Literal["hybrid", "dense", "keyword"] = Field(
        default="hybrid", description="hybrid: by meaning and by words; or by one of them alone."
    )
    rerank: bool = Field(
        default=False, description="Score the best candidates again with the query beside them: slower, better order."
    )
    diversity: float = Field(
        default=0.0, ge=0, le=1, description="0: the most relevant; towards 1: rather unlike each other."
    )
    related: bool = Field(
        default=False,
        description="Also what mentions people, places and organisations named in the query, or connected with them in "
        "the knowledge graph.",
    )
    recording_id: UUID | None = Field(default=None, description="Only what was said in this recording.")
    document_id: UUID | None = Field(default=None, description="Only what stands in this document.")
    memory_type: str | None = Field(default=None, max_length=50, description="Only this type (note, segment …).")
    tags: list[Tag] | None = Field(default=None, max_length=50, description="Only rows with all of these tags.")
    metadata: dict[str, Scalar] | None = Field(
        default=None, max_length=20, description="Only rows whose metadata has all of these keys with these values."
    )
    speaker: str | None = Field(default=None, max_length=200, description="Only what this speaker said.")
    source: str | None = Field(default=None, max_length=2000, description="Only what comes from here.")
    since: datetime | None = Field(default=None, description="Only what happened at this time or later.")
    until: datetime | None = Field(default=None, description="Only what happened before this time.")


class Parts(BaseModel):
    """What each search thought of a hit; null where it did not find it."""

    dense: float | None = Field(description="Cosine similarity of query and content, -1 to 1.")
    keyword: float | None = Field(description="BM25 of the query's words, over 0.")
    related: float | None = Field(
        default=None, description="1 / its rank among what is connected with things named in the query."
    )
    rerank: float | None = Field(default=None, description="Score of the reranker; null when none was asked.")


class Highlight(BaseModel):
    """Where the words of the query stand in the content, offsets in characters."""

    start: int = Field(description="Start of the passage that holds most of them.")
    end: int = Field(description="End of that passage.")
    spans: list[tuple[int, int]] = Field(description="[start, end) of each word, from the start of the content.")


class Hit(BaseModel):
    """A remembered text."""

    id: UUID = Field(description="Id of the row.")
    content: str = Field(description="The remembered text.")
    score: float = Field(
        description="Fused score: sum of 1 / (60 + rank) over the searches that found it; reranked: 0 to 1."
    )
    parts: Parts = Field(description="Scores before fusion.")
    title: str | None = Field(description="What the text belongs to.")
    tags: list[str] = Field(description="Its labels.")
    metadata: dict[str, Any] = Field(description="As stored; segments carry speaker, start_s and end_s.")
    memory_type: str = Field(default="note", description="note, segment, document …")
    recording_id: UUID | None = Field(description="Recording it was said in.")
    document_id: UUID | None = Field(default=None, description="Document it stands in.")
    position: int | None = Field(default=None, description="Its place in the document, from 0.")
    source: str | None = Field(default=None, description="Where it comes from.")
    occurred_at: datetime | None = Field(default=None, description="When what it tells happened, UTC.")
    created_at: datetime = Field(description="When it was remembered, UTC.")
    highlight: Highlight | None = Field(default=None, description="Where the query's words stand in it.")


class Output(EngineOutput):
    """The best hits, best first."""

    hits: list[Hit] = Field(description="At most top_k hits, best first.")
    reranker: str | None = Field(default=None, description="What put them in order; null when only ranks were fused.")


class SearchEngine(Engine[Input, Output]):
    """Meaning and words, fused."""

    name = "search"
    title = "Hybrid search"
    version = "2"
    method = "hybrid-rrf"
    example = Input(query="Who lives in Texas?", top_k=3)
    needs = (TEXT_EMBEDDING,)

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Find the rows nearest to the query."""
        found, models = await self._find(payload, ctx)
        candidates = _fuse(found)
        reranker = None
        if payload.rerank and candidates:
            candidates, reranker, more = await _reranked(payload, candidates, ctx)
            models += [model for model in more if model not in models]
        if payload.diversity and candidates:
            candidates = await _diverse(candidates, payload, ctx)
        hits = [_highlighted(hit, payload.query) for hit in candidates[: payload.top_k]]
        method = self.method if payload.mode == "hybrid" else payload.mode
        if reranker:
            method = f"{method}+{reranker}"
        return Output(hits=hits, reranker=reranker, method=method, models=models)

    async def _find(self, payload: Input, ctx: EngineContext) -> tuple[Found, list[str]]:
        vector, model, models = None, "", list[str]()
        if payload.mode != "keyword":
            async with ctx.models.lease(TEXT_EMBEDDING.named(await ctx.memories.embedding_model())) as encoder:
                vector = (await encoder.encode([payload.query], kind="query")).vectors[0]
                model, models = encoder.model_id, [encoder.model_id]
        found = await ctx.memories.search(
            query="" if payload.mode == "dense" else payload.query,
            vector=vector,
            model=model,
            limit=OVER_RETRIEVE * payload.top_k,
            where=_filter(payload),
            score_all=payload.rerank,
            names=names_in(payload.query) if payload.related else (),
            keep=None if payload.rerank or payload.diversity else payload.top_k,
        )
        return found, models


def _filter(payload: Input) -> MemoryFilter:
    metadata = dict(payload.metadata or {})
    if payload.speaker is not None:
        metadata["speaker"] = payload.speaker
    return MemoryFilter(
        recording_id=payload.recording_id,
        document_id=payload.document_id,
        memory_type=payload.memory_type,
        tags=payload.tags or None,
        metadata=metadata or None,
        source=payload.source,
        since=payload.since,
        until=payload.until,
    )


def _fuse(found: Found) -> list[Hit]:
    cosines = {hit.id: hit.score for hit in found.dense}
    ranks = {hit.id: hit.score for hit in found.keyword}
    dense, keyword = {**found.cosines, **cosines}, {**found.bm25, **ranks}
    near = {hit.id: hit.score for hit in found.related}
    fused = reciprocal_rank_fusion({"dense": list(cosines), "keyword": list(ranks), "related": list(near)})
    return [
        _hit(
            found.rows[item.id],
            item.score,
            Parts(dense=dense.get(item.id), keyword=keyword.get(item.id), related=near.get(item.id)),
        )
        for item in fused
        if item.id in found.rows
    ]


def _hit(row: Memory, score: float, parts: Parts) -> Hit:
    return Hit(
        id=row.id,
        content=row.content,
        score=score,
        parts=parts,
        title=row.title,
        tags=row.tags,
        metadata=row.metadata,
        memory_type=row.memory_type,
        recording_id=row.recording_id,
        document_id=row.document_id,
        position=row.position,
        source=row.source,
        occurred_at=row.occurred_at,
        created_at=row.created_at,
    )


async def _reranked(payload: Input, candidates: Sequence[Hit], ctx: EngineContext) -> tuple[list[Hit], str, list[str]]:
    """The candidates in the order of all scores together, what scored them, and the models that did."""
    judged = list(candidates[: min(MAX_RERANKED, OVER_RETRIEVE * payload.top_k)])
    ranked: Any = await ctx.call(
        "ranking",
        RankingInput(query=payload.query, passages=[hit.content[:MAX_RANKED_CHARS] for hit in judged], brief=True),
    )
    parts: dict[str, Sequence[float | None]] = {ranked.method: ranked.scores}
    if ranked.method in RERANK_WEIGHTS:
        # What was not trained to rank only helps the others.
        searched = {"keyword": [h.parts.keyword for h in judged], "dense": [h.parts.dense for h in judged]}
        parts |= {name: scores for name, scores in searched.items() if any(s is not None for s in scores)}
    weights: Mapping[str, float] = RERANK_WEIGHTS if ranked.method in RERANK_WEIGHTS else {ranked.method: 1.0}
    scores = combined_scores(parts, weights)
    order = sorted(range(len(judged)), key=lambda i: -scores[i])
    hits = [
        judged[i].model_copy(
            update={"score": scores[i], "parts": judged[i].parts.model_copy(update={"rerank": ranked.scores[i]})}
        )
        for i in order
    ]
    return hits, ranked.method, list(ranked.models)


async def _diverse(candidates: list[Hit], payload: Input, ctx: EngineContext) -> list[Hit]:
    """As many as wanted, relevant and unlike each other; what has no vector keeps its place behind them."""
    async with ctx.models.lease(TEXT_EMBEDDING.named(await ctx.memories.embedding_model())) as encoder:
        model, dim = encoder.model_id, encoder.dim
    vectors = await ctx.memories.vectors([hit.id for hit in candidates], model=model, dim=dim)
    known = [hit for hit in candidates if hit.id in vectors]
    if not known:
        return candidates
    scores: Floats = np.asarray([hit.score for hit in known], np.float32)
    chosen = maximal_marginal_relevance(
        scores / max(float(scores.max()), 1e-9),
        np.stack([vectors[hit.id] for hit in known]),
        limit=payload.top_k,
        balance=1 - payload.diversity,
    )
    return [known[i] for i in chosen] + [hit for hit in candidates if hit.id not in vectors]


def _highlighted(hit: Hit, query: str) -> Hit:
    window = best_window(query, hit.content)
    return hit.model_copy(
        update={
            "highlight": Highlight(start=window.start, end=window.end, spans=window.spans) if window.spans else None
        }
    )
