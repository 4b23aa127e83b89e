"""Remembering: stores texts so that the search engine finds them by meaning and by words.

Method: a sentence embedding of each content (Reimers & Gurevych 2019) and its keywords by YAKE (Campos et al. 2020,
statistics of the text itself, no corpus). Default encoder: all-MiniLM-L6-v2, Apache-2.0.

Limits: an item is found by meaning through its first 256 tokens (the encoder's limit), by words through all of it;
split long documents into passages first. Keywords use English stop words.
"""

import asyncio
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import Unavailable
from neuroedge.contract.models import TEXT_EMBEDDING, Embeddings
from neuroedge.contract.ports import NewMemory
from neuroedge.kit.keywords import keywords

KEYWORDS_PER_ITEM = 10
Tag = Annotated[str, Field(min_length=1, max_length=100)]


class Item(EngineInput):
    """One text to remember."""

    content: str = Field(min_length=1, max_length=20_000, description="The text, 1 to 20000 characters.")
    title: str | None = Field(default=None, max_length=500, description="What the text belongs to.")
    tags: list[Tag] = Field(default_factory=list, max_length=50, description="Labels a search can ask for.")
    memory_type: str = Field(default="note", min_length=1, max_length=50, description="note, segment, document …")
    metadata: dict[str, Any] = Field(default_factory=dict, description="Anything to give back with a hit.")
    recording_id: UUID | None = Field(default=None, description="Recording the text was said in.")
    segment_id: UUID | None = Field(default=None, description="Segment of that recording.")


class Input(EngineInput):
    """Texts to remember, all or none."""

    items: list[Item] = Field(min_length=1, max_length=256, description="1 to 256 items.")


class Output(EngineOutput):
    """Where they are kept and under which keywords."""

    ids: list[UUID] = Field(description="Ids of the stored rows, in the order of the items.")
    keywords: list[list[str]] = Field(description="Keywords of each item, lower case, the best first.")


EXAMPLE = Input(items=[Item(content="Sheila lives in Texas and comes from Chicago.", tags=["people"])])


class MemoryEngine(Engine[Input, Output]):
    """Embeds, extracts keywords and stores."""

    name = "memory"
    title = "Remember texts"
    method = "embedding+yake"
    example = EXAMPLE
    needs = (TEXT_EMBEDDING,)

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Store all items; none when anything fails."""
        model, embedded, words = await self._prepare(payload.items, ctx)
        rows = [
            NewMemory(
                content=item.content,
                embedding=vector,
                embedding_model=model,
                title=item.title,
                tags=item.tags,
                keywords=found,
                memory_type=item.memory_type,
                metadata=item.metadata,
                recording_id=item.recording_id,
                segment_id=item.segment_id,
            )
            for item, vector, found in zip(payload.items, embedded.vectors, words, strict=True)
        ]
        ids = await ctx.memories.add(rows)
        return Output(ids=ids, keywords=words, method=self.method, models=[model])

    async def post_swap_test(self) -> None:
        """Prove embedding and keywords on the example, storing nothing: rows cannot be taken back."""
        _, embedded, words = await self._prepare(EXAMPLE.items, self.probe)
        if len(embedded.vectors) != len(EXAMPLE.items) or not all(words):
            raise Unavailable("the memory engine finds no vector or no keyword for its own example")

    async def _prepare(self, items: list[Item], ctx: EngineContext) -> tuple[str, Embeddings, list[list[str]]]:
        texts = [item.content for item in items]
        async with ctx.models.lease(TEXT_EMBEDDING.named(await ctx.memories.embedding_model())) as encoder:
            embedded = await encoder.encode(texts, kind="passage")
            model = encoder.model_id
        # In a thread: long texts take tens of milliseconds each.
        words = await asyncio.to_thread(lambda: [keywords(text, limit=KEYWORDS_PER_ITEM) for text in texts])
        return model, embedded, words
