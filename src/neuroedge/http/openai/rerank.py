"""POST /v1/rerank in the shape of Jina's and Cohere's, over the engine `ranking`."""

from typing import Annotated, Any, Final
from uuid import uuid4

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from neuroedge.http.auth import RequestId, Runner, ThePlatform
from neuroedge.http.departure import unless_client_leaves
from neuroedge.http.openai.errors import ModelNotFound, OpenAIRoute
from neuroedge.http.platform import Platform

router = APIRouter(tags=["openai"], route_class=OpenAIRoute)
MAX_DOCUMENTS: Final = 1000
_AT_ONCE: Final = 200
Text = Annotated[str, Field(min_length=1, max_length=20_000)]


class RerankDocument(BaseModel):
    """A document as an object."""

    text: Text


class RerankIn(BaseModel):
    """A query and what may answer it; other fields of Jina's and Cohere's are passed over."""

    model: str | None = Field(default=None, max_length=200, description="The reranker's catalogue id, or default.")
    query: str = Field(min_length=1, max_length=8000)
    documents: list[Text | RerankDocument] = Field(min_length=1, max_length=MAX_DOCUMENTS)
    top_n: int | None = Field(default=None, ge=1, description="So many of the best; all when left out.")
    return_documents: bool = False


class RerankResult(BaseModel):
    """A document's relevance."""

    index: int = Field(description="Its place among the documents given, from 0.")
    relevance_score: float = Field(description="Comparable within one answer only.")
    document: RerankDocument | None = None


class RerankOut(BaseModel):
    """The best first."""

    id: str
    object: str = "list"
    model: str
    results: list[RerankResult]


@router.post("/v1/rerank", summary="Order documents by relevance (Jina, Cohere)", response_model_exclude_none=True)
async def rerank(
    body: RerankIn, request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> RerankOut:
    """Put documents in the order in which they answer the query; the engine `ranking`."""
    await _check_model(platform, body.model)
    texts = [document if isinstance(document, str) else document.text for document in body.documents]

    async def work() -> tuple[list[float], list[str]]:
        scores: list[float] = []
        models: list[str] = []
        for start in range(0, len(texts), _AT_ONCE):
            payload: dict[str, Any] = {"query": body.query, "passages": texts[start : start + _AT_ONCE]}
            answer: Any = await platform.runner.run("ranking", payload, principal=principal, request_id=request_id)
            scores, models = scores + answer.scores, answer.models
        return scores, models

    scores, models = await unless_client_leaves(request, work())
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[: body.top_n]
    return RerankOut(
        id=f"rerank-{uuid4().hex}",
        model=", ".join(models),
        results=[
            RerankResult(
                index=i,
                relevance_score=scores[i],
                document=RerankDocument(text=texts[i]) if body.return_documents else None,
            )
            for i in order
        ],
    )


async def _check_model(platform: Platform, name: str | None) -> None:
    """The engine has one model; another name is told apart from it. Raises ModelNotFound."""
    if name in (None, "default"):
        return
    served = (await platform.runner.registry.get("ranking").health()).models
    if name not in served:
        raise ModelNotFound(f"{name!r} does not rerank here", hint=f"{', '.join(served)} does; or leave it out")
