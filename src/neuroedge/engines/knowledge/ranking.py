"""Reranking: puts passages in the order in which they answer a query.

Method: a cross-encoder (Nogueira & Cho 2019) or a GGUF reranker where the role `rerank` has a model; else late
interaction (Khattab & Zaharia 2020, MaxSim) over the token states of the text encoder, which needs no further download.
Default encoder: all-MiniLM-L6-v2, Apache-2.0. `method` names which one answered.

Limits: late interaction uses states that were not trained for it: by itself it orders about as well as the cosine of
whole texts, and helps most when combined with other scores (kit/fusion.py). Scores order the passages of one query;
those of different methods, and late-interaction scores of different queries, cannot be compared. Text beyond the
model's tokens (256 for the default encoder, 512 of query and passage for rerankers) is not read; a `brief` call reads
384 characters, which by itself orders long passages a little worse (Cranfield's development half, nDCG@10 .337 instead
of .355), combined with the other scores no worse.
"""

import asyncio
from typing import Annotated, Final

from pydantic import Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput, Health
from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import RERANK, TEXT_EMBEDDING, Models, ModelStatus
from neuroedge.kit.late_interaction import max_sim, read_part

MAX_PASSAGES: Final = 200
LATE_INTERACTION: Final = "late-interaction"
_METHODS: Final = {"onnx-rerank": "cross-encoder", "llama-rerank": "gguf-reranker"}
"""By the runtime of the model."""
Passage = Annotated[str, Field(min_length=1, max_length=20_000)]


class Input(EngineInput):
    """A query and what may answer it."""

    query: str = Field(min_length=1, max_length=8000, description="What is asked, in plain words.")
    passages: list[Passage] = Field(
        min_length=1, max_length=MAX_PASSAGES, description="1 to 200 texts, each 1 to 20000 characters."
    )
    brief: bool = Field(
        default=False,
        description="Late interaction reads the first 384 characters of each passage only: less than half of the work,"
        " and no worse where its scores are combined with others. Models of the role rerank read on.",
    )


class Output(EngineOutput):
    """Scores and the order they make; `method` is cross-encoder, gguf-reranker or late-interaction."""

    scores: list[float] = Field(
        description="Relevance of each passage, in the order given; 0 to 1, from late interaction -1 to 1."
    )
    order: list[int] = Field(description="Positions of the passages, best first; equal scores in the order given.")


class RankingEngine(Engine[Input, Output]):
    """Query and passages to an order."""

    name = "ranking"
    title = "Passage reranking"
    method = LATE_INTERACTION
    example = Input(
        query="Who lives in Texas?",
        passages=["The weather was fine all week.", "Sheila lives in Texas and comes from Chicago."],
    )
    needs = (TEXT_EMBEDDING,)

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Score with the configured reranker, or without one by late interaction."""
        if _reranker(ctx.models) is not None:
            async with ctx.models.lease(RERANK) as reranker:
                scores = await reranker.score(payload.query, payload.passages)
                method, model = reranker.method, reranker.model_id
        else:
            async with ctx.models.lease(TEXT_EMBEDDING) as encoder:
                (query,) = await encoder.token_states([payload.query], kind="query")
                passages = await encoder.token_states([read_part(p) if payload.brief else p for p in payload.passages])
                method, model = self.method, encoder.model_id
            scores = await asyncio.to_thread(max_sim, query.vectors, [passage.vectors for passage in passages])
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        return Output(scores=scores.tolist(), order=order, method=method, models=[model])

    async def health(self) -> Health:
        """State of the reranker that would answer, or of the encoder that answers without one."""
        models = self.probe.models
        if (status := _reranker(models)) is not None:
            return Health(
                status="unavailable" if status.state == "failed" else "ready",
                method=_METHODS.get(status.runtime, status.runtime),
                models={status.id: status.state},
                detail=status.detail,
            )
        return await super().health()


def _reranker(models: Models) -> ModelStatus | None:
    """The configured reranker if its files are there; None: late interaction answers."""
    try:
        status = models.status(RERANK)
    except ModelUnavailable:
        return None  # no model has this role: the usual case
    return None if status.state == "missing" else status
