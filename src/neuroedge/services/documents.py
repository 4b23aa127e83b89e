"""Documents: taken in, listed, read, replaced, deleted. Their processing is `document_process`, a durable job.

A file is read at once, so that a bad one is answered at once and nothing of it is kept. What is kept: the file, its
blocks, and later its chunks as memories.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import structlog

from neuroedge.contract.errors import Conflict, InvalidInput, ModelUnavailable, NeuroEdgeError, UnsupportedMedia
from neuroedge.contract.models import TEXT_EMBEDDING
from neuroedge.contract.ports import Memory, Visibility
from neuroedge.contract.principal import Principal
from neuroedge.infra.blobs import TenantBlobs
from neuroedge.infra.documents.outcome import Parsed
from neuroedge.infra.documents.parser import DocumentParser
from neuroedge.infra.fetch import Fetcher
from neuroedge.infra.queue import JobQueue
from neuroedge.services.audit import audited
from neuroedge.services.document_progress import DocumentProgress, not_found, require
from neuroedge.services.housekeeping import forget_blobs, service_principal
from neuroedge.services.orphans import sweep_orphans
from neuroedge.services.recordings import Recordings, Upload
from neuroedge.services.run_engine import EngineRunner
from neuroedge.stores import documents, memories
from neuroedge.stores.documents import Described, Document, File, Status
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database

log = structlog.get_logger(__name__)

PROCESS_TASK = "process_document"
DELETE_TASK = "delete_document_blobs"
MAX_URLS = 20
MAX_FILES = 50
_AT_ONCE = 4
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What the sender says of a file."""

    title: str | None = None
    tags: Sequence[str] = ()
    visibility: Visibility = "organisation"
    metadata: dict[str, Any] = field(default_factory=dict)
    extract: bool = False
    """Whether its passages are to be read into the knowledge graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What became of a file: a document, perhaps one that was there already, or a recording, or an error."""

    source: str
    """The file's name or its URL."""
    document: Document | None = None
    duplicate: bool = False
    recording_id: UUID | None = None
    error: NeuroEdgeError | None = None


class Documents:
    """Documents of the caller's organisation, those the caller may see."""

    def __init__(
        self,
        *,
        db: Database,
        runner: EngineRunner,
        queue: JobQueue,
        progress: DocumentProgress,
        recordings: Recordings,
        parser: DocumentParser,
        fetcher: Fetcher,
        tmp: Path,
        reads_images: bool,
    ) -> None:
        """`tmp`: folder for files on their way; `reads_images`: whether the job has a PageReader."""
        self._db = db
        self._runner = runner
        self._queue = queue
        self._progress = progress
        self._recordings = recordings
        self._parser = parser
        self._fetcher = fetcher
        self._tmp = tmp
        self._reads_images = reads_images

    async def add(
        self, upload: Upload, *, principal: Principal, request_id: str, labels: Labels, source: str | None = None
    ) -> Added:
        """Check and keep a file, and queue its processing; sound becomes a recording.

        Raises what reading raises, InvalidInput for sound with labels no recording has; then nothing is kept. A file
        that a document of the organisation has already makes no second one.
        """
        sha256 = await asyncio.to_thread(_sha256, upload.path)
        async with self._db.tenant(principal) as conn:
            known = await documents.with_content(conn, sha256=sha256)
        if known is not None:
            return Added(source=source or upload.filename, document=known, duplicate=True)
        parsed, blocks = await self._read(upload)
        if parsed.kind == "audio":
            _check_recording(labels)
            recording = await self._recordings.add(
                upload, principal=principal, request_id=request_id, title=labels.title
            )
            return Added(source=source or upload.filename, recording_id=recording.id)
        await self._require_encoder(principal, request_id)
        file = _file(upload, parsed, sha256=sha256, labels=labels, source=source)
        return await self._keep(upload, blocks, file, labels.visibility, principal, request_id)

    async def add_urls(
        self, urls: Sequence[str], *, principal: Principal, request_id: str, labels: Labels
    ) -> list[Added]:
        """Fetch and add each, in the order given; what failed has its error, and raises it when nothing succeeded."""
        if not 1 <= len(urls) <= MAX_URLS:
            raise InvalidInput(f"give 1 to {MAX_URLS} URLs")

        async def one(url: str) -> Added:
            with tempfile.TemporaryDirectory(dir=self._tmp) as folder:
                got = await self._fetcher.fetch(url, Path(folder))
                upload = Upload(path=got.path, filename=got.filename, bytes=got.bytes)
                return await self.add(upload, principal=principal, request_id=request_id, labels=labels, source=url)

        return await _each(urls, one, named=str)

    async def add_files(
        self, uploads: Sequence[Upload], *, principal: Principal, request_id: str, labels: Labels
    ) -> list[Added]:
        """Add each, in the order given; what failed has its error, and raises it when nothing succeeded."""

        async def one(upload: Upload) -> Added:
            return await self.add(upload, principal=principal, request_id=request_id, labels=labels)

        return await _each(uploads, one, named=lambda upload: upload.filename)

    async def replace(self, upload: Upload, document_id: UUID, *, principal: Principal, request_id: str) -> Document:
        """Give a document a changed file: only what changed is embedded anew, and until then the old text is found.

        Raises NotFound, Conflict for sound, and what reading raises; then nothing changes.
        """
        async with self._db.tenant(principal) as conn:
            before = await require(conn, document_id)
        sha256 = await asyncio.to_thread(_sha256, upload.path)
        if sha256 == before.described.sha256 and before.status != "failed":
            return before
        parsed, blocks = await self._read(upload)
        if parsed.kind == "audio":
            raise Conflict("a document cannot become a recording", hint="POST /v1/recordings")
        await self._require_encoder(principal, request_id)
        described = before.described
        labels = Labels(
            title=described.title, tags=described.tags, metadata=described.metadata, extract=described.extract
        )
        file = _file(upload, parsed, sha256=sha256, labels=labels, source=described.source)
        blobs = self._runner.contexts.blobs(principal)
        async with self._db.tenant(principal) as conn:
            before = await require(conn, document_id, lock=True)
            folder = version_folder(document_id, before.version + 1)
            # Inside the transaction: its lock keeps a second replacement from writing to the same folder.
            try:
                await _put(blobs, folder, upload.path, blocks)
                await documents.replace_file(conn, document_id, file=file)
                await self._queued(conn, principal, request_id, document_id, before.version + 1, "document.replaced")
            except BaseException:
                await asyncio.shield(forget_blobs(blobs, folder))
                raise
            after = await require(conn, document_id)
        await self._progress.begin(principal, document_id)
        return after

    async def get(self, principal: Principal, document_id: UUID) -> Document:
        """One document. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            return await require(conn, document_id)

    async def chunks(self, principal: Principal, document_id: UUID, *, limit: int, after: int = -1) -> list[Memory]:
        """Its chunks in order, those beyond the position `after`. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            await require(conn, document_id)
            ids = await documents.chunk_ids(
                conn, org_id=principal.org_id, document_id=document_id, limit=limit, after=after
            )
            return await memories.find(conn, org_id=principal.org_id, ids=ids)

    async def list(
        self, principal: Principal, *, limit: int, before: UUID | None = None, status: Status | None = None
    ) -> list[Document]:
        """Newest first."""
        async with self._db.tenant(principal) as conn:
            return await documents.recent(conn, limit=limit, before=before, status=status)

    async def delete(self, principal: Principal, document_id: UUID, *, request_id: str) -> None:
        """Delete a document with its file and chunks. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            if not await documents.delete(conn, document_id):
                raise not_found(document_id)
            await self._audit(conn, principal, request_id, "document.deleted", document_id)
            # Deleted here at once, and by the job for certain: it outlives a crash or a blob store that is away.
            await self._queue.defer(
                conn,
                DELETE_TASK,
                lock=f"document:{document_id}",
                args={"document_id": str(document_id), "org_id": str(principal.org_id)},
            )
        await forget_blobs(self._runner.contexts.blobs(principal), folder_of(document_id))
        await self._progress.forget(principal, document_id)

    async def delete_blobs(self, org_id: UUID, document_id: UUID) -> None:
        """Delete a document's objects; none is fine. Raises Unavailable when the blob store is away."""
        await self._runner.contexts.blobs(service_principal(org_id)).delete_prefix(folder_of(document_id))

    async def sweep(self) -> int:
        """Delete objects that a crash left without a row, in every organisation; how many folders."""
        return await sweep_orphans(self._db, self._runner.contexts, "documents", exist=documents.exist)

    async def _read(self, upload: Upload) -> tuple[Parsed, Path]:
        """What the file holds and its blocks. Raises what reading raises, UnsupportedMedia for a scan nobody reads."""
        blocks = upload.path.with_name("blocks")
        await asyncio.to_thread(blocks.touch)  # an image has none yet
        parsed = await self._parser.parse(upload.path, upload.filename, blocks)
        if parsed.kind == "audio" or self._reads_images:
            return parsed, blocks
        if parsed.kind == "image" or not parsed.characters:
            what = (
                "is an image" if parsed.kind == "image" else f"has no text on pages 1 to {parsed.pages}: it is a scan"
            )
            raise UnsupportedMedia(
                f"the file {what}, and no OCR engine is installed",
                hint="send a document with text, or ask the operator for an OCR model (`neuroedge models pull`)",
            )
        return parsed, blocks

    async def _require_encoder(self, principal: Principal, request_id: str) -> None:
        """Raise ModelUnavailable while the model is not installed without which the job could only fail."""
        context = self._runner.context(principal, request_id=request_id)
        status = context.models.status(TEXT_EMBEDDING.named(await context.memories.embedding_model()))
        if status.state == "missing":
            raise ModelUnavailable(
                status.detail or f"{status.id} is not installed", hint=f"run `neuroedge models pull {status.id}`"
            )

    async def _keep(
        self, upload: Upload, blocks: Path, file: File, visibility: Visibility, principal: Principal, request_id: str
    ) -> Added:
        import psycopg

        source = file.described.source or upload.filename
        document_id = new_id()
        blobs, folder = self._runner.contexts.blobs(principal), folder_of(document_id)
        try:
            await _put(blobs, version_folder(document_id, 1), upload.path, blocks)
            async with self._db.tenant(principal) as conn:
                known = await documents.with_content(conn, sha256=file.described.sha256, lock=True)
                if known is None:
                    document = await documents.insert(
                        conn,
                        org_id=principal.org_id,
                        user_id=principal.user_id,
                        document_id=document_id,
                        file=file,
                        visibility=visibility,
                    )
                    await self._queued(conn, principal, request_id, document_id, 1, "document.created")
        except psycopg.errors.CheckViolation as error:
            await asyncio.shield(forget_blobs(blobs, folder))
            raise InvalidInput("you are in no division", hint="use the visibility private or organisation") from error
        except BaseException:
            await asyncio.shield(forget_blobs(blobs, folder))
            raise
        if known is not None:  # the same file was sent twice at the same time
            await forget_blobs(blobs, folder)
            return Added(source=source, document=known, duplicate=True)
        await self._progress.begin(principal, document_id)
        return Added(source=source, document=document)

    async def _queued(
        self, conn: Connection, principal: Principal, request_id: str, document_id: UUID, version: int, action: str
    ) -> None:
        await self._audit(conn, principal, request_id, action, document_id)
        await self._queue.defer(
            conn,
            PROCESS_TASK,
            lock=f"document:{document_id}",
            args={
                "document_id": str(document_id),
                "version": version,
                "org_id": str(principal.org_id),
                "user_id": str(principal.user_id),
                "username": principal.username,
                "role": principal.role,
                "request_id": request_id,
            },
        )

    async def _audit(
        self, conn: Connection, principal: Principal, request_id: str, action: str, document_id: UUID
    ) -> None:
        await audited(conn, principal, request_id=request_id, action=action, target=f"document:{document_id}")


def folder_of(document_id: UUID) -> str:
    """Where a document's objects lie."""
    return f"documents/{document_id}"


def version_folder(document_id: UUID, version: int) -> str:
    """Where the objects of one of its files lie: `original`, `blocks`, and `work` while it is processed."""
    return f"{folder_of(document_id)}/{version}"


def _check_recording(labels: Labels) -> None:
    """Raise InvalidInput for labels that would be lost with a recording; without some, all could read a private one."""
    lost = {
        "visibility": labels.visibility != "organisation",
        "tags": labels.tags,
        "metadata": labels.metadata,
        "extract": labels.extract,
    }
    if given := [name for name, value in lost.items() if value]:
        raise InvalidInput(
            f"the file is sound; a recording is seen by the whole organisation and takes no {', '.join(given)}",
            hint="send it without these, or to POST /v1/recordings",
        )


async def _each(
    things: Sequence[_T], add: Callable[[_T], Awaitable[Added]], *, named: Callable[[_T], str]
) -> list[Added]:
    """What became of each, some at a time. Raises the first one's error when all of them failed."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(thing: _T) -> Added:
        async with slots:
            try:
                return await add(thing)
            except NeuroEdgeError as error:
                return Added(source=named(thing), error=error)

    done = await asyncio.gather(*(one(thing) for thing in things))
    if all(added.error is not None for added in done) and (first := done[0].error) is not None:
        raise first
    return done


async def _put(blobs: TenantBlobs, folder: str, original: Path, blocks: Path) -> None:
    await blobs.put(f"{folder}/original", original)
    await blobs.put(f"{folder}/blocks", blocks)


def _file(upload: Upload, parsed: Parsed, *, sha256: str, labels: Labels, source: str | None) -> File:
    described = Described(
        title=labels.title or parsed.title or Path(upload.filename).stem or "document",
        filename=upload.filename,
        sha256=sha256,
        source=source,
        tags=list(labels.tags),
        metadata=dict(labels.metadata),
        unread_pages=list(parsed.unread_pages),
        extract=labels.extract,
    )
    return File(described=described, media_type=parsed.media_type, bytes=upload.bytes, pages=parsed.pages)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
