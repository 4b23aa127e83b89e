"""The pages of a document that are pictures, read one by one; each is kept, so that a job cut off reads none twice."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from neuroedge.contract.errors import NotFound, UnsupportedMedia
from neuroedge.contract.principal import Principal
from neuroedge.infra.blobs import TenantBlobs
from neuroedge.infra.documents.outcome import PageReader, packed, read_blocks
from neuroedge.infra.documents.parser import DocumentParser
from neuroedge.kit.chunking import Block
from neuroedge.services.document_progress import DocumentGone, DocumentProgress
from neuroedge.services.documents import version_folder
from neuroedge.stores import documents
from neuroedge.stores.documents import Document
from neuroedge.stores.postgres import Database

OpenPageReader = Callable[[Principal, str], PageReader]
"""The reader for a caller and a request id: whose document it is, pays for it."""


class ScannedPages:
    """Reads what only an OCR engine can read."""

    def __init__(
        self,
        *,
        db: Database,
        parser: DocumentParser,
        progress: DocumentProgress,
        tmp: Path,
        open_reader: OpenPageReader | None,
    ) -> None:
        self._db = db
        self._parser = parser
        self._progress = progress
        self._tmp = tmp
        self._open_reader = open_reader

    async def merged(
        self, principal: Principal, document: Document, blobs: TenantBlobs, blocks: bytes, *, request_id: str
    ) -> bytes:
        """The blocks with those of the scanned pages, in the order of the pages.

        Raises UnsupportedMedia for a document of pictures where no OCR engine is installed, DocumentGone, and what
        reading raises.
        """
        if not document.described.unread_pages and not document.media_type.startswith("image/"):
            return blocks
        if self._open_reader is None:
            if blocks:
                return blocks  # the pages with text are in; `unread_pages` tells of the others
            raise UnsupportedMedia("no OCR engine is installed", hint="send a document with text")
        read = await self._read(principal, document, blobs, self._open_reader(principal, request_id))
        ordered = sorted([*read_blocks(blocks), *read], key=lambda block: block.page or 0)
        return b"".join(packed(block) for block in ordered)

    async def _read(
        self, principal: Principal, document: Document, blobs: TenantBlobs, reader: PageReader
    ) -> list[Block]:
        version = version_folder(document.id, document.version)
        original = await blobs.get(f"{version}/original")
        if document.media_type.startswith("image/"):
            return await reader.read(original, page=None)
        read: list[Block] = []
        with tempfile.TemporaryDirectory(dir=self._tmp) as folder:
            path, drawn = Path(folder) / "original", Path(folder) / "page.png"
            path.write_bytes(original)
            pages = document.described.unread_pages
            for done, page in enumerate(pages, start=1):
                kept = f"{version}/work/page-{page}"
                found = await _kept(blobs, kept)
                if found is None:
                    await self._parser.picture(path, drawn, page=page)
                    found = await reader.read(drawn.read_bytes(), page=page)
                    await self._keep(principal, document, blobs, kept, found)
                read += found
                told = {"stage": "read", "page": page, "fraction": round(done / len(pages), 3)}
                await self._progress.publish(principal, document.id, "progress", told)
        return read

    async def _keep(
        self, principal: Principal, document: Document, blobs: TenantBlobs, place: str, blocks: list[Block]
    ) -> None:
        await blobs.put(place, b"".join(packed(block) for block in blocks))
        async with self._db.tenant(principal) as conn:
            same = await documents.set_staged(conn, document.id, version=document.version, staged=document.staged)
        if not same:
            await blobs.delete_prefix(place.rpartition("/")[0])
            raise DocumentGone(f"document {document.id} was deleted or replaced")


async def _kept(blobs: TenantBlobs, place: str) -> list[Block] | None:
    try:
        return list(read_blocks(await blobs.get(place)))
    except NotFound:
        return None
