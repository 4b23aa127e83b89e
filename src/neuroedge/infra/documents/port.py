"""The Documents port over the reading process."""

import asyncio
import tempfile
from pathlib import Path

from neuroedge.contract.content import ReadDocument
from neuroedge.contract.errors import UnsupportedMedia
from neuroedge.infra.documents.outcome import read_blocks
from neuroedge.infra.documents.parser import DocumentParser


class ParsedDocuments:
    """Documents read by `parser`; files on their way lie in `tmp` and are gone when a call ends."""

    def __init__(self, parser: DocumentParser, *, tmp: Path) -> None:
        self._parser = parser
        self._tmp = tmp

    async def read(self, data: bytes, *, filename: str) -> ReadDocument:
        """Blocks of a file. Raises what DocumentParser.parse raises, UnsupportedMedia for sound."""
        with tempfile.TemporaryDirectory(dir=self._tmp) as folder:
            path, out = Path(folder, "document"), Path(folder, "blocks")
            await asyncio.to_thread(path.write_bytes, data)
            parsed = await self._parser.parse(path, filename, out)
            if parsed.kind == "audio":
                raise UnsupportedMedia("the file holds sound", hint="send it to the engine transcription")
            blocks = await asyncio.to_thread(lambda: list(read_blocks(out.read_bytes())) if out.exists() else [])
        return ReadDocument(
            kind=parsed.kind,
            media_type=parsed.media_type,
            blocks=blocks,
            title=parsed.title,
            pages=parsed.pages,
            unread_pages=parsed.unread_pages,
            metadata=parsed.metadata,
        )

    async def picture(self, data: bytes, *, page: int) -> bytes:
        """A page of a PDF as PNG. Raises what DocumentParser.picture raises."""
        with tempfile.TemporaryDirectory(dir=self._tmp) as folder:
            path, drawn = Path(folder, "document"), Path(folder, "page.png")
            await asyncio.to_thread(path.write_bytes, data)
            await self._parser.picture(path, drawn, page=page)
            return await asyncio.to_thread(drawn.read_bytes)
