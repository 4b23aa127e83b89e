"""Sentence embeddings: texts in, vectors out whose dot product says how near two meanings are.

Method: a Siamese-trained transformer with mean pooling (Reimers & Gurevych 2019, "Sentence-BERT"). Default model:
all-MiniLM-L6-v2, int8 weights, 384 dimensions, Apache-2.0.

Limits: the default model is trained on English; text beyond its 256 tokens is cut, `tokens` shows where. Vectors of
different models must never be compared, so `model` belongs with whatever is stored.

A text's vector is kept for seven days for the organisation that asked for it; no model is leased for what is kept.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.models import TEXT_EMBEDDING

_KEPT_S = 7 * 24 * 3600.0

Text = Annotated[str, Field(min_length=1, max_length=20_000)]


class Input(EngineInput):
    """Texts to embed."""

    texts: list[Text] = Field(min_length=1, max_length=256, description="Texts, each 1 to 20000 characters.")
    kind: Literal["query", "passage"] = Field(
        default="passage", description="What the texts are: models with separate instructions need to know."
    )
    model: str | None = Field(
        default=None,
        max_length=200,
        description="Catalogue id of the encoder; by default the one your organisation's memories are searched with.",
    )


class Output(EngineOutput):
    """One vector a text."""

    vectors: list[list[float]] = Field(description="L2-normalised vectors [len(texts)][dim], in the order given.")
    dim: int = Field(description="Length of each vector.")
    model: str = Field(description="Catalogue id of the encoder; vectors of another one are not comparable.")
    tokens: list[int] = Field(description="Tokens each text took, after cutting at the model's limit.")
    cached: int = Field(description="How many of the vectors were known, or shared with an equal text, not computed.")


class EmbeddingEngine(Engine[Input, Output]):
    """Texts to L2-normalised sentence vectors."""

    name = "embedding"
    title = "Text embedding"
    method = "sentence-transformer"
    example = Input(texts=["This is Diane in New Jersey.", "Sheila lives in Texas."])
    needs = (TEXT_EMBEDDING,)

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Embed the texts nobody embedded before, in one batch."""
        computed = 0
        ref = TEXT_EMBEDDING.named(payload.model or await ctx.memories.embedding_model())

        async def compute(positions: Sequence[int]) -> list[Any]:
            nonlocal computed
            computed = len(positions)
            # Leased in here: other callers may wait for these vectors when this one has left.
            async with ctx.models.lease(ref) as encoder:
                embedded = await encoder.encode([payload.texts[i] for i in positions], kind=payload.kind)
                rows = embedded.vectors.astype("<f4")
                return [[encoder.model_id, n, row.tobytes()] for n, row in zip(embedded.tokens, rows, strict=True)]

        model = ctx.models.status(ref)
        of_model = f"embedding:1:{model.id}:{model.fingerprint}:{payload.kind}:"
        kept = await ctx.cache.get_or_compute([of_model + text for text in payload.texts], compute, ttl_s=_KEPT_S)
        vectors = np.stack([np.frombuffer(vector, "<f4") for _, _, vector in kept])
        model_id = kept[0][0]
        return Output(
            vectors=vectors.tolist(),
            dim=vectors.shape[1],
            model=model_id,
            tokens=[tokens for _, tokens, _ in kept],
            cached=len(payload.texts) - computed,
            method=self.method,
            models=[model_id],
        )
