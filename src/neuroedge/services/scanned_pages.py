"""The pages of a document that are pictures, read one by one; each is kept, so that a job cut off reads none twice.

Pages are those of a PDF that hold no text, or all of an image file: a fax or a scanner's TIFF has hundreds.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from neuroedge.contract.errors import NotFound, UnsupportedMedia
from neuroedge.contract.principal import Principal
from neuroedge.infra.blobs import TenantBlobs
from neuroedge.infra.documents.outcome import LeafReader, PageReader, packed, read_blocks
from neuroedge.infra.documents.parser import DocumentParser
from neuroedge.kit.chunking import Block
from neuroedge.services.document_progress import DocumentGone, DocumentProgress
from neuroedge.services.documents import version_folder
from neuroedge.stores import documents
from neuroedge.stores.documents import Document
from neuroedge.stores.postgres import Database

OpenPageReader = Callable[[Principal, str], PageReader]
"""The reader for a caller and a request id: whose document it is, pays for it."""
OpenLeafReader = Callable[[Principal, str], LeafReader]
"""The same, of a reader that takes the pages of an image file apart."""


class ScannedPages:
    """Reads what only an OCR engine can read."""

    def __init__(
        self,
        *,
        db: Database,
        parser: DocumentParser,
        progress: DocumentProgress,
        tmp: Path,
        open_reader: OpenLeafReader | None,
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
        self, principal: Principal, document: Document, blobs: TenantBlobs, reader: LeafReader
    ) -> list[Block]:
        original = await blobs.get(f"{version_folder(document.id, document.version)}/original")
        if document.media_type.startswith("image/"):
            return await self._read_image(principal, document, blobs, reader, original)
        read: list[Block] = []
        with tempfile.TemporaryDirectory(dir=self._tmp) as folder:
            path, drawn = Path(folder) / "original", Path(folder) / "page.png"
            await asyncio.to_thread(path.write_bytes, original)

            async def look(page: int) -> list[Block]:
                await self._parser.picture(path, drawn, page=page)
                return await reader.read(await asyncio.to_thread(drawn.read_bytes), page=page)

            pages = document.described.unread_pages
            for done, page in enumerate(pages, start=1):
                read += await self._once(principal, document, blobs, page, look)
                await self._tell(principal, document, page=page, fraction=done / len(pages))
        return read

    async def _read_image(
        self, principal: Principal, document: Document, blobs: TenantBlobs, reader: LeafReader, original: bytes
    ) -> list[Block]:
        """Every page of an image file. How many there are is known with the first one, and kept before it is."""
        place = f"{version_folder(document.id, document.version)}/work/pages"
        pages = await _count(blobs, place)

        async def look(number: int) -> list[Block]:
            nonlocal pages
            blocks, pages = await reader.leaf(original, number=number)
            if number == 1:
                await blobs.put(place, str(pages).encode())
            return blocks

        read, number = list[Block](), 0
        while pages is None or number < pages:
            number += 1
            read += await self._once(principal, document, blobs, number, look)
            await self._tell(principal, document, page=number, fraction=number / (pages or number))
        return read

    async def _once(
        self,
        principal: Principal,
        document: Document,
        blobs: TenantBlobs,
        page: int,
        look: Callable[[int], Awaitable[list[Block]]],
    ) -> list[Block]:
        """What is kept of a page, or else what `look` finds on it, kept."""
        place = f"{version_folder(document.id, document.version)}/work/page-{page}"
        found = await _kept(blobs, place)
        if found is None:
            found = await look(page)
            await self._keep(principal, document, blobs, place, found)
        return found

    async def _tell(self, principal: Principal, document: Document, *, page: int, fraction: float) -> None:
        told = {"stage": "read", "page": page, "fraction": round(fraction, 3)}
        await self._progress.publish(principal, document.id, "progress", told)

    async def _keep(
        self, principal: Principal, document: Document, blobs: TenantBlobs, place: str, blocks: list[Block]
    ) -> None:
        await blobs.put(place, b"".join(packed(block) for block in blocks))
        async with self._db.tenant(principal, sees_all=True) as conn:
            same = await documents.set_staged(conn, document.id, version=document.version, staged=document.staged)
        if not same:
            await blobs.delete_prefix(place.rpartition("/")[0])
            raise DocumentGone(f"document {document.id} was deleted or replaced")


async def _count(blobs: TenantBlobs, place: str) -> int | None:
    try:
        return int(await blobs.get(place))
    except NotFound:
        return None


async def _kept(blobs: TenantBlobs, place: str) -> list[Block] | None:
    try:
        return list(read_blocks(await blobs.get(place)))
    except NotFound:
        return None
