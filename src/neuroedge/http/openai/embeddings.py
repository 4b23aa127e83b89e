"""POST /v1/embeddings as OpenAI's clients know it, over the engine `embedding`.

`model` is the catalogue id of an encoder, or `default` for the one the organisation's memories are searched with. Text
beyond what the model reads is cut, as the engine does; `usage` counts what was read.
"""

import base64
from typing import Annotated, Any, Final, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.models import TEXT_EMBEDDING
from neuroedge.http.auth import RequestId, Runner, ThePlatform
from neuroedge.http.budget_header import tell_budget
from neuroedge.http.departure import unless_client_leaves
from neuroedge.http.openai.errors import ModelNotFound, OpenAIRoute
from neuroedge.http.platform import Platform

router = APIRouter(tags=["openai"], route_class=OpenAIRoute)
DEFAULT: Final = "default"
MAX_INPUTS: Final = 2048
_AT_ONCE: Final = 256
Text = Annotated[str, Field(min_length=1, max_length=20_000)]
Tokens = Annotated[list[int], Field(min_length=1, max_length=8192)]


class EmbeddingsIn(BaseModel):
    """What to embed; fields OpenAI has and this server does not need are passed over."""

    model: str = Field(min_length=1, max_length=200, description="Catalogue id of an encoder, or default.")
    input: (
        Text
        | Tokens
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
        | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_INPUTS)]
    ) = Field(description="A text or up to 2048; arrays of tokens are refused, they belong to another vocabulary.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(
        default=None, ge=1, description="The model's own number: no model here was trained to have its vectors cut."
    )
    user: str | None = Field(default=None, max_length=1000)


class EmbeddingOut(BaseModel):
    """One vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="L2-normalised; as base64: float32, little-endian.")


class EmbeddingsUsage(BaseModel):
    """Tokens the model read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsOut(BaseModel):
    """A vector for each text, in the order given."""

    object: Literal["list"] = "list"
    data: list[EmbeddingOut]
    model: str
    usage: EmbeddingsUsage


@router.post("/v1/embeddings", summary="Embed texts (OpenAI)", response_model=EmbeddingsOut)
async def embeddings(
    body: EmbeddingsIn, request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> Response:
    """Texts to vectors; the engine `embedding`."""
    texts, model = _texts(body), _model(platform, body.model)

    async def work() -> list[Any]:
        answers = []
        for start in range(0, len(texts), _AT_ONCE):
            payload = {"texts": texts[start : start + _AT_ONCE], "model": model}
            answers.append(await platform.runner.run("embedding", payload, principal=principal, request_id=request_id))
        return answers

    answers = await unless_client_leaves(request, work())
    if body.dimensions not in (None, answers[0].dim):
        raise InvalidInput(
            f"{answers[0].model} gives vectors of {answers[0].dim} dimensions, which cannot be cut",
            hint="leave dimensions out",
            errors=[{"loc": ("dimensions",), "msg": f"must be {answers[0].dim}", "type": "value_error"}],
        )
    tokens = sum(sum(answer.tokens) for answer in answers)
    vectors = [vector for answer in answers for vector in answer.vectors]
    given = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": _encoded(vector, body.encoding_format)}
            for i, vector in enumerate(vectors)
        ],
        "model": answers[0].model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    await tell_budget(request, principal)
    return Response(to_json(given), media_type="application/json")


def _texts(body: EmbeddingsIn) -> list[str]:
    if isinstance(body.input, str):
        return [body.input]
    texts = [text for text in body.input if isinstance(text, str)]
    if len(texts) != len(body.input):
        raise InvalidInput(
            "arrays of tokens are of another model's vocabulary",
            hint="send the texts; in LangChain: check_embedding_ctx_length=False",
            errors=[{"loc": ("input",), "msg": "give texts", "type": "value_error"}],
        )
    return texts


def _model(platform: Platform, name: str) -> str | None:
    """The encoder's catalogue id; None: the organisation's. Raises ModelNotFound."""
    if name == DEFAULT:
        return None
    known = [entry.id for entry in platform.catalogue if entry.role == TEXT_EMBEDDING.role]
    if name not in known:
        raise ModelNotFound(f"there is no embedding model {name!r}", hint=f"one of {', '.join([*known, DEFAULT])}")
    return name


def _encoded(vector: list[float], encoding: Literal["float", "base64"]) -> list[float] | str:
    return vector if encoding == "float" else base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
