"""The durable job of a document: read scans, cut, embed what is new, then let all of it be found at once.

Embedded batches are kept as objects until the end, so a job that is resumed goes on behind the last one, unless the
text would be cut or embedded in another way by now; the memories are written in one transaction. Memory is that of the
document's blocks and one batch, whatever its length. Vectors do not go through the cache: nothing of a document stays
anywhere when it is deleted.

The job sees the document whoever sent the file: the sender may have left its division since.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

import msgpack
import numpy as np
import structlog

from neuroedge.contract.errors import EmptyMedia, NeuroEdgeError, NotFound
from neuroedge.contract.models import TEXT_EMBEDDING
from neuroedge.contract.ports import NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.infra.blobs import TenantBlobs
from neuroedge.infra.documents.outcome import read_blocks
from neuroedge.kit.chunking import PATH_SEPARATOR, Chunk, CountTokens, chunks, estimated_tokens
from neuroedge.kit.injection import signs
from neuroedge.services.document_progress import DocumentGone, DocumentProgress
from neuroedge.services.documents import folder_of, version_folder
from neuroedge.services.knowledge import Knowledge
from neuroedge.services.run_engine import EngineRunner
from neuroedge.services.scanned_pages import ScannedPages
from neuroedge.stores import documents, memories
from neuroedge.stores.documents import Document
from neuroedge.stores.postgres import Database

log = structlog.get_logger(__name__)

DOCUMENT_MEMORY = "document"
MAX_STARTS = 5
"""Starts without a batch finished, crashes of the worker included, before a document is given up."""
MAX_ERRORS = 3
BATCH = 128
_TITLE_CHARACTERS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSize:
    """How long chunks are; the encoder's own limit holds where it is shorter."""

    capacity_tokens: int = 256
    overlap_tokens: int = 32


class _Making(NamedTuple):
    """How batches are cut and embedded; those made in two ways do not go together."""

    model: str
    capacity_tokens: int
    overlap_tokens: int


@dataclass(slots=True)
class _Plan:
    """Which memories stay, at which position, and how far the new ones are."""

    known: dict[int, list[UUID]]
    kept: dict[UUID, int] = field(default_factory=dict)
    total: int = 0

    def take(self, mac: int, position: int) -> bool:
        """Whether an unchanged memory takes this position."""
        waiting = self.known.get(mac)
        if not waiting:
            return False
        self.kept[waiting.pop(0)] = position
        return True


class DocumentProcess:
    """Runs what is not finished yet."""

    def __init__(
        self,
        *,
        db: Database,
        runner: EngineRunner,
        progress: DocumentProgress,
        scanned: ScannedPages,
        knowledge: Knowledge,
        size: ChunkSize | None = None,
        count_tokens: CountTokens = estimated_tokens,
    ) -> None:
        """`count_tokens`: tokens of a text in the encoder's vocabulary; called from a thread."""
        self._db = db
        self._runner = runner
        self._progress = progress
        self._scanned = scanned
        self._knowledge = knowledge
        self._size = size or ChunkSize()
        self._count_tokens = count_tokens

    async def run(self, principal: Principal, document_id: UUID, *, version: int, request_id: str) -> None:
        """Go on where it stopped. Raises what a retry can mend; stores as failure what it can't."""
        async with self._db.tenant(principal, sees_all=True) as conn:
            document = await documents.find(conn, document_id, lock=True)
            if document is None or document.version != version or document.status in ("done", "failed"):
                return
            await documents.start_attempt(conn, document_id)
        if document.attempts >= MAX_STARTS:
            await self._fail(principal, document, NeuroEdgeError("processing was interrupted too often"))
            return
        try:
            await self._process(principal, document, request_id)
        except DocumentGone:
            return
        except NeuroEdgeError as error:
            if not error.retryable or await self._was_last(principal, document_id):
                await self._fail(principal, document, error)
                return
            raise
        except Exception:
            if await self._was_last(principal, document_id):
                log.exception("document_failed", document_id=str(document_id))
                await self._fail(principal, document, NeuroEdgeError(f"processing failed (request {request_id})"))
                return
            raise

    async def _process(self, principal: Principal, document: Document, request_id: str) -> None:
        blobs = self._runner.contexts.blobs(principal)
        folder = version_folder(document.id, document.version)
        blocks = await blobs.get(f"{folder}/blocks")
        blocks = await self._scanned.merged(principal, document, blobs, blocks, request_id=request_id)
        making = await self._making(principal, request_id)
        document = await self._resumed(principal, document, blobs, making)
        async with self._db.tenant(principal, sees_all=True) as conn:
            plan = _Plan(known=await documents.chunk_macs(conn, document.id))
        batches = await self._embed(principal, document, blobs, blocks, plan, making, request_id=request_id)
        if not plan.total:
            raise EmptyMedia("no text was found in the document", hint="send a document with at least a word")
        await self._store(
            principal, document, blobs, folder, plan, batches=batches, model=making.model, request_id=request_id
        )
        await self._progress.publish(principal, document.id, "done", {"chunks": plan.total})

    async def _making(self, principal: Principal, request_id: str) -> _Making:
        """How the organisation's documents are cut and embedded now."""
        context = self._runner.context(principal, request_id=request_id)
        self._db.forget(principal.org_id)  # what is known of it may be older than a switch of the model
        async with context.models.lease(TEXT_EMBEDDING.named(await context.memories.embedding_model())) as encoder:
            most = min(self._size.capacity_tokens, encoder.max_tokens - 2)  # 2: begin and end
            return _Making(encoder.model_id, most, min(self._size.overlap_tokens, most // 2 - 1))

    async def _resumed(self, principal: Principal, document: Document, blobs: TenantBlobs, making: _Making) -> Document:
        """The document; one without batches when those that are kept were made in another way. Raises DocumentGone."""
        if not document.staged:
            return document
        try:
            kept = await blobs.get(f"{version_folder(document.id, document.version)}/work/0")
        except NotFound:
            kept = b""
        if kept and tuple(msgpack.unpackb(kept)[:-1]) == making:
            return document
        async with self._db.tenant(principal, sees_all=True) as conn:
            if not await documents.set_staged(conn, document.id, version=document.version, staged=0):
                raise DocumentGone(f"document {document.id} was deleted or replaced")
        return replace(document, staged=0)

    async def _embed(
        self,
        principal: Principal,
        document: Document,
        blobs: TenantBlobs,
        blocks: bytes,
        plan: _Plan,
        making: _Making,
        *,
        request_id: str,
    ) -> int:
        """Cut the blocks, and keep the batches of new chunks that are not kept yet; how many batches there are."""
        cipher = (await self._db.known(principal.org_id)).cipher
        models = self._runner.context(principal, request_id=request_id).models
        model = TEXT_EMBEDDING.named(making.model)
        cut = chunks(
            read_blocks(blocks),
            capacity_tokens=making.capacity_tokens,
            overlap_tokens=making.overlap_tokens,
            count_tokens=self._count_tokens,
        )

        def changed() -> Iterator[tuple[int, Chunk]]:
            for chunk in cut:
                plan.total += 1
                mac = cipher.blind(_identity(chunk, document))
                if not plan.take(mac, chunk.position):
                    yield mac, chunk

        new, number = changed(), 0
        waiting = asyncio.create_task(asyncio.to_thread(_next_batch, new))
        try:
            while batch := await waiting:
                # The next one is cut while this one is embedded.
                waiting = asyncio.create_task(asyncio.to_thread(_next_batch, new))
                if number >= document.staged:
                    async with models.lease(model) as encoder:
                        embedded = await encoder.encode([chunk.embedded for _, chunk in batch], kind="passage")
                    data = _packed_batch(batch, embedded.vectors, making)
                    await self._stage(principal, document, blobs, number, data, chunks=batch[-1][1].position + 1)
                number += 1
        finally:
            await asyncio.gather(waiting, return_exceptions=True)
        return number

    async def _stage(
        self, principal: Principal, document: Document, blobs: TenantBlobs, number: int, data: bytes, *, chunks: int
    ) -> None:
        """Keep an embedded batch, from which a job that is cut off goes on. Raises DocumentGone."""
        await blobs.put(f"{version_folder(document.id, document.version)}/work/{number}", data)
        async with self._db.tenant(principal, sees_all=True) as conn:
            same = await documents.set_staged(conn, document.id, version=document.version, staged=number + 1)
        if not same:
            await self._forget(blobs, f"{version_folder(document.id, document.version)}/work")
            raise DocumentGone(f"document {document.id} was deleted or replaced")
        await self._progress.publish(principal, document.id, "progress", {"stage": "embed", "chunks": chunks})

    async def _store(
        self,
        principal: Principal,
        document: Document,
        blobs: TenantBlobs,
        folder: str,
        plan: _Plan,
        *,
        batches: int,
        model: str,
        request_id: str,
    ) -> None:
        """All chunks in one transaction, in place of those of the file before. Raises DocumentGone, ModelSwitched."""
        said = document.described
        async with self._db.tenant(principal, sees_all=True) as conn:
            now = await documents.find(conn, document.id, lock=True)
            if now is None or now.version != document.version:
                raise DocumentGone(f"document {document.id} was deleted or replaced")
            await documents.keep_chunks(conn, org_id=principal.org_id, document_id=document.id, kept=plan.kept)
            await documents.name_chunks(
                conn, org_id=principal.org_id, ids=list(plan.kept), filename=said.filename, source=_source(document)
            )
            await memories.require_model(conn, org_id=principal.org_id, model=model)
            for number in range(batches):
                items = _unpacked_batch(await blobs.get(f"{folder}/work/{number}"), document)
                await documents.add_chunks(
                    conn, org_id=principal.org_id, user_id=document.user_id, document_id=document.id, items=items
                )
            await documents.finish(conn, document.id, chunks=plan.total)
            # In its owner's name: whoever sent another file may not see it any more.
            owner = replace(principal, user_id=document.user_id)
            await self._knowledge.document_stored(conn, owner, document.id, asked=said.extract, request_id=request_id)
        await self._forget(blobs, f"{folder}/work")
        for name in await blobs.folders(folder_of(document.id)):
            if name.isdigit() and int(name) < document.version:
                await self._forget(blobs, f"{folder_of(document.id)}/{name}")

    async def _forget(self, blobs: TenantBlobs, folder: str) -> None:
        """Delete what is not needed any more; what stays goes with the document."""
        try:
            await blobs.delete_prefix(folder)
        except NeuroEdgeError as error:
            log.warning("blobs_not_deleted", folder=folder, detail=error.detail)

    async def _was_last(self, principal: Principal, document_id: UUID) -> bool:
        """Count an error, apart from interruptions; whether it was the last that is retried."""
        async with self._db.tenant(principal, sees_all=True) as conn:
            return await documents.count_error(conn, document_id) >= MAX_ERRORS

    async def _fail(self, principal: Principal, document: Document, error: NeuroEdgeError) -> None:
        async with self._db.tenant(principal, sees_all=True) as conn:
            if (now := await documents.find(conn, document.id, lock=True)) is None or now.version != document.version:
                return
            await documents.fail(conn, document.id, code=error.code, detail=error.detail, hint=error.hint)
        blobs = self._runner.contexts.blobs(principal)
        await self._forget(blobs, f"{version_folder(document.id, document.version)}/work")
        data = {"code": error.code, "detail": error.detail, "hint": error.hint}
        await self._progress.publish(principal, document.id, "failed", data)


def _identity(chunk: Chunk, document: Document) -> str:
    """Everything a chunk's memory is made of but its position: equal means that the memory can stay."""
    parts = (document.described.title, chunk.first_page, chunk.last_page, chunk.embedded)
    return "chunk:" + "\x00".join(map(str, parts))


def _next_batch(new: Iterator[tuple[int, Chunk]]) -> list[tuple[int, Chunk]]:
    return list(islice(new, BATCH))


def _packed_batch(batch: Sequence[tuple[int, Chunk]], vectors: Any, making: _Making) -> bytes:
    rows = [
        [mac, c.position, c.text, list(c.heading_path), c.first_page, c.last_page, vector.astype("<f4").tobytes()]
        for (mac, c), vector in zip(batch, vectors, strict=True)
    ]
    data: bytes = msgpack.packb([*making, rows])
    return data


def _unpacked_batch(data: bytes, document: Document) -> list[tuple[int, NewMemory]]:
    model, *_, rows = msgpack.unpackb(data)
    return [
        (mac, _memory(document, model, position, text, path, (first, last), np.frombuffer(vector, "<f4")))
        for mac, position, text, path, first, last, vector in rows
    ]


def _source(document: Document) -> str:
    return document.described.source or document.described.filename


def _memory(
    document: Document,
    model_id: str,
    position: int,
    text: str,
    path: Sequence[str],
    pages: tuple[int | None, int | None],
    vector: Any,
) -> NewMemory:
    described = document.described
    metadata: dict[str, Any] = {**described.metadata, "filename": described.filename, "heading_path": list(path)}
    if pages[0] is not None:
        metadata |= {"first_page": pages[0], "last_page": pages[1]}
    if found := signs(text):
        metadata["suspicious"] = found
    return NewMemory(
        content=text,
        title=PATH_SEPARATOR.join([described.title, *path])[:_TITLE_CHARACTERS],
        embedding=vector,
        embedding_model=model_id,
        tags=list(described.tags),
        memory_type=DOCUMENT_MEMORY,
        metadata=metadata,
        source=_source(document),
        document_id=document.id,
        position=position,
        visibility=document.visibility,
    )
