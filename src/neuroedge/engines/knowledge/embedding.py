"""Sentence embeddings: texts in, vectors out whose dot product says how near two meanings are.

Method: a Siamese-trained transformer with mean pooling (Reimers & Gurevych 2019, "Sentence-BERT"). Default model:
all-MiniLM-L6-v2, int8 weights, 384 dimensions, Apache-2.0.

Limits: the default model is trained on English; text beyond its 256 tokens is cut, `tokens` shows where. Vectors of
different models must never be compared, so `model` belongs with whatever is stored.
"""

from typing import Annotated, Literal

from pydantic import Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.models import TEXT_EMBEDDING

Text = Annotated[str, Field(min_length=1, max_length=20_000)]


class Input(EngineInput):
    """Texts to embed."""

    texts: list[Text] = Field(min_length=1, max_length=256, description="Texts, each 1 to 20000 characters.")
    kind: Literal["query", "passage"] = Field(
        default="passage", description="What the texts are: models with separate instructions need to know."
    )


class Output(EngineOutput):
    """One vector a text."""

    vectors: list[list[float]] = Field(description="L2-normalised vectors [len(texts)][dim], in the order given.")
    dim: int = Field(description="Length of each vector.")
    model: str = Field(description="Catalogue id of the encoder; vectors of another one are not comparable.")
    tokens: list[int] = Field(description="Tokens each text took, after cutting at the model's limit.")


class EmbeddingEngine(Engine[Input, Output]):
    """Texts to L2-normalised sentence vectors."""

    name = "embedding"
    title = "Text embedding"
    method = "sentence-transformer"
    example = Input(texts=["This is Diane in New Jersey.", "Sheila lives in Texas."])
    needs = (TEXT_EMBEDDING,)

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Embed all texts with the leased encoder."""
        async with ctx.models.lease(TEXT_EMBEDDING) as encoder:
            embedded = await encoder.encode(payload.texts, kind=payload.kind)
            return Output(
                vectors=embedded.vectors.tolist(),
                dim=encoder.dim,
                model=encoder.model_id,
                tokens=embedded.tokens,
                method=self.method,
                models=[encoder.model_id],
            )
