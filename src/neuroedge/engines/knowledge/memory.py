"""Remembering and recalling: stores texts so that they are found by meaning and by words, and recalls what matters now.

Method, `items`: a sentence embedding of each content (Reimers & Gurevych 2019) and its keywords by YAKE (Campos et al.
2020, statistics of the text itself, no corpus). Default encoder: all-MiniLM-L6-v2, Apache-2.0.

Method, `recall`: rows found by meaning and by words, put in order by relevance x recency x importance (after the
memory stream of Park et al. 2023, "Generative Agents", which adds the three; multiplied, none makes up for another
that is missing). Relevance: two thirds cosine, one third BM25 against the best of the candidates. Recency: one half for
each half-life that has passed since what the row tells. Each part stands in `why`. A row has two times (Snodgrass
1999): when what it tells happened (`occurred_at`), and when it was recorded; `known_at` recalls what had been recorded
by then.

Limits: an item is found by meaning through its first 256 tokens (the encoder's limit), by words through all of it;
split long documents into passages first. Keywords use English stop words. Recall weighs the five times `top_k` most
relevant rows by each search (250 with `known_at`): what is barely relevant is not recalled however new it is. Scores
order one recall's rows and cannot be compared between recalls. What was changed, deleted or has expired since
`known_at` is as it is now: earlier contents are not kept.
"""

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import Unavailable
from neuroedge.contract.models import TEXT_EMBEDDING, Embeddings, Floats
from neuroedge.contract.ports import Found, Memory, MemoryFilter, NewMemory, Visibility
from neuroedge.kit.keywords import keywords

KEYWORDS_PER_ITEM: Final = 10
OVER_RETRIEVE: Final = 5
DENSE_SHARE: Final = 2 / 3
"""Of the cosine in the relevance; the rest is the words'. The same shares as RERANK_WEIGHTS in kit/fusion.py."""
_MOST_RETRIEVED: Final = 250
_DAY_S: Final = 86_400.0
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
    source: str | None = Field(default=None, max_length=2000, description="Where it comes from, in your words.")
    visibility: Visibility = Field(default="organisation", description="Who may see it.")
    importance: float = Field(default=0.5, ge=0, le=1, description="0 to 1; a recall weighs by it.")
    occurred_at: AwareDatetime | None = Field(default=None, description="When what it tells happened; now by default.")
    expires_at: AwareDatetime | None = Field(default=None, description="After this it is found no more.")


class Recall(EngineInput):
    """What to call to mind."""

    query: str = Field(min_length=1, max_length=8000, description="What it is about, in plain words.")
    top_k: int = Field(default=5, ge=1, le=50, description="Memories wanted.")
    half_life_days: float = Field(
        default=30.0, gt=0, le=36_500, allow_inf_nan=False, description="After so many days a memory counts half."
    )
    memory_type: str | None = Field(default=None, max_length=50, description="Only this type.")
    tags: list[Tag] | None = Field(default=None, max_length=50, description="Only rows with all of these tags.")
    since: AwareDatetime | None = Field(default=None, description="Only what happened at this time or later.")
    until: AwareDatetime | None = Field(default=None, description="Only what happened before this time.")
    known_at: AwareDatetime | None = Field(
        default=None, description="As it was known at this time: nothing recorded later, and ages counted from it."
    )


class Input(EngineInput):
    """Texts to remember, all or none; or a recall."""

    items: list[Item] = Field(default_factory=list, max_length=256, description="1 to 256 items to remember.")
    recall: Recall | None = Field(default=None, description="In place of items: what to call to mind.")

    @model_validator(mode="after")
    def _one(self) -> "Input":
        if bool(self.items) == (self.recall is not None):
            raise ValueError("give either 'items' (1 to 256) or 'recall'")
        return self


class Why(BaseModel):
    """The parts whose product is the score."""

    relevance: float = Field(description="0 to 1: two thirds cosine, one third words.")
    recency: float = Field(description="0 to 1: a half for each half-life.")
    importance: float = Field(description="0 to 1, as stored.")
    cosine: float | None = Field(description="Of query and content; null when the row has no vector of this model.")
    keyword: float | None = Field(description="BM25 of the query's words; null when none of them was found.")
    age_days: float = Field(description="Since what the memory tells; 0 for what is to come.")


class Recalled(BaseModel):
    """A memory that came to mind."""

    id: UUID = Field(description="Id of the row.")
    content: str = Field(description="The remembered text.")
    score: float = Field(description="Relevance x recency x importance.")
    why: Why = Field(description="How the score came about.")
    title: str | None = Field(description="What the text belongs to.")
    tags: list[str] = Field(description="Its labels.")
    metadata: dict[str, Any] = Field(description="As stored.")
    memory_type: str = Field(description="note, segment, document …")
    source: str | None = Field(description="Where it comes from.")
    recording_id: UUID | None = Field(description="Recording it was said in.")
    document_id: UUID | None = Field(description="Document it stands in.")
    occurred_at: datetime = Field(description="When what it tells happened, UTC.")


class Output(EngineOutput):
    """Where items are kept and under which keywords; or what a recall brought."""

    ids: list[UUID] = Field(default_factory=list, description="Ids of the stored rows, in the order of the items.")
    keywords: list[list[str]] = Field(
        default_factory=list, description="Keywords of each item, lower case, the best first."
    )
    memories: list[Recalled] = Field(default_factory=list, description="What was recalled, the highest score first.")


EXAMPLE = Input(items=[Item(content="Sheila lives in Texas and comes from Chicago.", tags=["people"])])


class MemoryEngine(Engine[Input, Output]):
    """Embeds, extracts keywords and stores; recalls by relevance, recency and importance."""

    name = "memory"
    title = "Remember and recall texts"
    version = "2"
    method = "embedding+yake"
    example = EXAMPLE
    needs = (TEXT_EMBEDDING,)

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Store all items, none when anything fails; or recall."""
        if payload.recall is not None:
            return await _recalled(payload.recall, ctx)
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
                source=item.source,
                visibility=item.visibility,
                importance=item.importance,
                occurred_at=item.occurred_at,
                expires_at=item.expires_at,
            )
            for item, vector, found in zip(payload.items, embedded.vectors, words, strict=True)
        ]
        ids = await ctx.memories.add(rows)
        return Output(ids=ids, keywords=words, method=self.method, models=[model])

    async def post_swap_test(self) -> None:
        """Prove embedding, keywords and recall on the example, storing nothing: rows cannot be taken back."""
        _, embedded, words = await self._prepare(EXAMPLE.items, self.probe)
        if len(embedded.vectors) != len(EXAMPLE.items) or not all(words):
            raise Unavailable("the memory engine finds no vector or no keyword for its own example")
        await _recalled(Recall(query=EXAMPLE.items[0].content), self.probe)

    async def _prepare(self, items: list[Item], ctx: EngineContext) -> tuple[str, Embeddings, list[list[str]]]:
        texts = [item.content for item in items]
        async with ctx.models.lease(TEXT_EMBEDDING.named(await ctx.memories.embedding_model())) as encoder:
            embedded = await encoder.encode(texts, kind="passage")
            model = encoder.model_id
        # In a thread: long texts take tens of milliseconds each.
        words = await asyncio.to_thread(lambda: [keywords(text, limit=KEYWORDS_PER_ITEM) for text in texts])
        return model, embedded, words


async def _recalled(asked: Recall, ctx: EngineContext) -> Output:
    async with ctx.models.lease(TEXT_EMBEDDING.named(await ctx.memories.embedding_model())) as encoder:
        vector: Floats = (await encoder.encode([asked.query], kind="query")).vectors[0]
        model, dim = encoder.model_id, encoder.dim
    found = await ctx.memories.search(
        query=asked.query,
        vector=vector,
        model=model,
        limit=_MOST_RETRIEVED if asked.known_at else OVER_RETRIEVE * asked.top_k,
        where=MemoryFilter(
            memory_type=asked.memory_type, tags=asked.tags or None, since=asked.since, until=asked.until
        ),
    )
    # What was found by words alone has a cosine too.
    known = await ctx.memories.vectors([hit.id for hit in found.keyword], model=model, dim=dim)
    cosines = {memory_id: float(row @ vector) for memory_id, row in known.items()}
    cosines |= {hit.id: hit.score for hit in found.dense}
    now = asked.known_at or ctx.clock.now()
    if asked.known_at:
        found = replace(found, rows={id_: row for id_, row in found.rows.items() if row.created_at <= now})
    memories = _weighed(found, cosines, half_life_days=asked.half_life_days, now=now)
    return Output(memories=memories[: asked.top_k], method="hybrid-recall", models=[model])


def _weighed(found: Found, cosines: dict[UUID, float], *, half_life_days: float, now: datetime) -> list[Recalled]:
    """All that was found, the highest product first."""
    words = {hit.id: hit.score for hit in found.keyword}
    most = max(words.values(), default=0.0)
    recalled = []
    for row in found.rows.values():
        cosine, keyword = cosines.get(row.id), words.get(row.id)
        worded = keyword / most if keyword is not None and most > 0 else 0.0
        age_days = max(0.0, (now - row.occurred_at).total_seconds() / _DAY_S)
        why = Why(
            relevance=DENSE_SHARE * min(1.0, max(0.0, cosine or 0.0)) + (1 - DENSE_SHARE) * worded,
            recency=0.5 ** (age_days / half_life_days),
            importance=row.importance,
            cosine=cosine,
            keyword=keyword,
            age_days=age_days,
        )
        recalled.append(_recalled_row(row, why))
    return sorted(recalled, key=lambda memory: (-memory.score, -memory.why.relevance))


def _recalled_row(row: Memory, why: Why) -> Recalled:
    return Recalled(
        id=row.id,
        content=row.content,
        score=why.relevance * why.recency * why.importance,
        why=why,
        title=row.title,
        tags=row.tags,
        metadata=row.metadata,
        memory_type=row.memory_type,
        source=row.source,
        recording_id=row.recording_id,
        document_id=row.document_id,
        occurred_at=row.occurred_at,
    )
