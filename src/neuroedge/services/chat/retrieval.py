"""What an answer may rest on: memories, documents, recordings and the message's own attachments."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from neuroedge.contract.engine import EngineContext
from neuroedge.contract.models import TEXT_EMBEDDING, Floats
from neuroedge.engines.knowledge.search import Hit, Parts
from neuroedge.engines.knowledge.search import Input as SearchInput
from neuroedge.engines.language.chat import (
    MAX_NEIGHBOURED_RECORDINGS,
    WHOLE_RECORDING_HITS,
    by_time,
    with_neighbours,
)
from neuroedge.kit.passages import passages
from neuroedge.services.chat.citations import ATTACHMENT
from neuroedge.services.chat.state import Attached, Options
from neuroedge.stores.ids import new_id

MAX_QUERY_CHARS: Final = 8000
PASSAGE_CHARS: Final = 800
MAX_PASSAGES: Final = 500
"""Of all attachments of a message; what lies beyond is told in the trace."""


async def retrieved(query: str, options: Options, ctx: EngineContext) -> list[Hit]:
    """Excerpts in the order they are shown; the search looks at three times as many and ranks them anew."""
    if options.recording_id is not None:
        wide = await _search(ctx, query, top_k=WHOLE_RECORDING_HITS, recording_id=options.recording_id)
        if len(wide) < WHOLE_RECORDING_HITS:
            return by_time(wide)
        best = await _search(ctx, query, top_k=options.top_k, recording_id=options.recording_id, rerank=True)
        return with_neighbours(best, wide)
    if options.document_ids:
        found = [
            hit
            for document_id in options.document_ids
            for hit in await _search(ctx, query, top_k=options.top_k, document_id=document_id, rerank=True)
        ]
        return by_time(sorted(found, key=lambda hit: -hit.score)[: options.top_k])
    best = await _search(ctx, query, top_k=options.top_k, rerank=True)
    pool = list(best)
    spoken = list(dict.fromkeys(hit.recording_id for hit in best if hit.recording_id))
    for recording_id in spoken[:MAX_NEIGHBOURED_RECORDINGS]:
        pool += await _search(ctx, query, top_k=WHOLE_RECORDING_HITS, recording_id=recording_id)
    return with_neighbours(best, pool)


async def attached(
    attachments: Sequence[Attached], question: str, *, top_k: int, ctx: EngineContext
) -> tuple[list[Hit], int]:
    """The passages of the attachments that are nearest to the question, in their order, and how many were left out."""
    cut = [
        (each, each["text"][start:end].strip())
        for each in attachments
        for start, end in passages(each["text"], max_chars=PASSAGE_CHARS)
        if each["text"][start:end].strip()
    ]
    read = cut[:MAX_PASSAGES]
    if not read:
        return [], 0
    async with ctx.models.lease(TEXT_EMBEDDING) as encoder:
        vectors: Floats = (await encoder.encode([question, *(text for _, text in read)])).vectors
    cosines = [float(cosine) for cosine in vectors[1:] @ vectors[0]]
    wanted = sorted(range(len(read)), key=lambda i: -cosines[i])[: 2 * top_k]
    hits = [
        Hit(
            id=new_id(),
            content=read[i][1],
            score=cosines[i],
            parts=Parts(dense=cosines[i], keyword=None),
            title=read[i][0]["name"],
            tags=[],
            metadata={},
            memory_type=ATTACHMENT,
            recording_id=None,
            position=i,
            source=read[i][0]["id"],
            created_at=ctx.clock.now(),
        )
        for i in sorted(wanted)
    ]
    return hits, len(cut) - len(hits)


async def _search(
    ctx: EngineContext,
    query: str,
    *,
    top_k: int,
    recording_id: UUID | None = None,
    document_id: UUID | None = None,
    rerank: bool = False,
) -> list[Hit]:
    asked = SearchInput(
        query=query[-MAX_QUERY_CHARS:], top_k=top_k, recording_id=recording_id, document_id=document_id, rerank=rerank
    )
    found: Any = await ctx.call("search", asked)
    return list(found.hits)
