"""Document: what a PDF, Office, web or text file holds, block by block in reading order, with headings and tables.

Method: the format's own structure (styles of DOCX and PPTX, elements of HTML and Markdown); in a PDF the layout of its
characters: type size makes headings, white space blocks, order from top to bottom by columns. By kreuzberg (MIT), in a
process of its own that a hostile file can only end. Pages without text go to the engine `ocr`.

Limits: 64 MB a file (base64 in a request: what the request may be), 3000 pages, `max_characters` of text,
`max_ocr_pages` pages read by OCR. A PDF says nothing of its headings: they are guessed from type size, and its tables
mostly come as rows of text. Places (`bbox`) are known in PDFs and on pages read by OCR only. Merged cells of tables
stand in their first cell. Headers, footers and pictures within a page are left out; forms and annotations are not read.
Sound belongs to the engine transcription. Text recall by format is in benchmarks/results/document.json.
"""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, cast

from pydantic import BaseModel, Field

from neuroedge.contract.content import Block, FileSource, ReadDocument
from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput, Health
from neuroedge.contract.errors import EmptyMedia, InvalidInput, ModelUnavailable, NeuroEdgeError, TooLarge
from neuroedge.contract.models import OCR
from neuroedge.contract.ports import ImageSource
from neuroedge.engines.vision import ocr
from neuroedge.kit.markdown_table import cells

MAX_BYTES: Final = 64 * 1000**2
MAX_TABLES: Final = 1000
_EXAMPLE_HTML: Final = (
    "<!doctype html><html><head><title>Pumps</title></head><body><h1>Pumps</h1><p>Grease them weekly.</p>"
    "<table><tr><th>Part</th><th>Count</th></tr><tr><td>Valve</td><td>3</td></tr></table></body></html>"
)
Part = Annotated[float, Field(ge=0, le=1)]


class Input(EngineInput):
    """A document."""

    file: FileSource = Field(
        description="PDF, DOCX, PPTX, XLSX, HTML, Markdown, TXT, CSV, EML or a picture of pages; at most 64 MB."
    )
    filename: str = Field(
        default="document",
        min_length=1,
        max_length=255,
        description="The sender's name of the file: its ending tells text formats, which bytes do not tell.",
    )
    ocr: bool = Field(default=True, description="Whether pages without text are read by the engine ocr.")
    max_ocr_pages: int = Field(
        default=20, ge=1, le=200, description="At most so many pages are read by OCR (seconds each); the first ones."
    )
    max_characters: int = Field(
        default=1_000_000, ge=1, le=5_000_000, description="Blocks beyond so many characters of text are left out."
    )
    markdown: bool = Field(default=False, description="Whether the whole text is wanted as Markdown, too.")


class DocumentBlock(BaseModel):
    """A piece of the document."""

    type: Literal["heading", "paragraph", "table", "list", "code"] = Field(description="What kind of piece it is.")
    text: str = Field(description="What it says; tables and lists as Markdown.")
    page: int | None = Field(description="Page, slide or sheet it begins on, from 1; null: the format has none.")
    level: int | None = Field(description="Of a heading: 1 the highest.")
    bbox: tuple[Part, Part, Part, Part] | None = Field(
        description="Left, top, right, bottom in parts of the page's width and height from its upper left (0 to 1);"
        " null where it is not known."
    )
    source: Literal["file", "ocr"] = Field(description="Whether the text stood in the file or was read from a picture.")


class DocumentHeading(BaseModel):
    """An entry of the outline."""

    block: int = Field(description="Its block, from 0.")
    level: int = Field(description="1 the highest.")
    text: str = Field(description="What it says.")
    page: int | None = Field(description="Page it stands on, from 1.")


class DocumentTable(BaseModel):
    """A table's cells."""

    block: int = Field(description="Its block, from 0.")
    page: int | None = Field(description="Page it begins on, from 1.")
    rows: list[list[str]] = Field(description="Cells by row, the header row first.")


class Output(EngineOutput):
    """What the document holds."""

    blocks: list[DocumentBlock] = Field(description="Its pieces in reading order.")
    headings: list[DocumentHeading] = Field(description="Its outline.")
    tables: list[DocumentTable] = Field(description="Cells of the tables, of the first 1000.")
    title: str | None = Field(description="As the file tells it.")
    media_type: str = Field(description="Format recognised from the bytes.")
    metadata: dict[str, str] = Field(description="What the file says of itself: author, created_at, language …")
    pages: int | None = Field(description="Pages, slides or sheets; null: the format has none.")
    ocr_pages: list[int] = Field(description="Pages, from 1, that were read by OCR.")
    unread_pages: list[int] = Field(description="Pages, from 1, without text that nothing was read on.")
    characters: int = Field(description="Characters of text in the blocks.")
    truncated: bool = Field(description="Whether blocks beyond max_characters were left out.")
    markdown: str | None = Field(description="The whole text as Markdown, where it was asked for.")
    reliable: bool = Field(description="False where part of the document was not read; `warnings` tell which.")
    warnings: list[str] = Field(description="What was not read, and why.")


@dataclass(slots=True)
class _Pages:
    """What OCR gave."""

    blocks: list[Block] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    total: int | None = None


class DocumentEngine(Engine[Input, Output]):
    """A file to its structure."""

    name = "document"
    title = "Document structure"
    method = "document-structure"
    example = Input(file=FileSource(base64=base64.b64encode(_EXAMPLE_HTML.encode()).decode()), filename="pumps.html")
    timeout_s = 600.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Read a file. Raises EmptyMedia, UnsupportedMedia, UnreadableMedia, TooLarge, Overloaded, NotFound."""
        data = await _bytes(payload.file, ctx)
        await ctx.progress("read", 0.0)
        found = await ctx.documents.read(data, filename=payload.filename)
        await ctx.progress("read", 0.3)
        scans = await _scans(data, found, payload, ctx)
        return await asyncio.to_thread(self._answer, found, scans, payload)

    async def health(self) -> Health:
        """Degraded where no OCR model is installed: scans are not read."""
        status = self.probe.models.status(OCR)
        if status.state in ("missing", "failed"):
            detail = f"scanned pages are not read: {status.detail or status.state}"
            return Health(status="degraded", method=self.method, detail=detail)
        return Health(status="ready", method=self.method)

    def _answer(self, found: ReadDocument, scans: _Pages, payload: Input) -> Output:
        sourced: list[tuple[Block, Literal["file", "ocr"]]] = [(block, "file") for block in found.blocks]
        sourced += [(block, "ocr") for block in scans.blocks]
        if scans.blocks:
            sourced.sort(key=lambda pair: pair[0].page or 0)
        kept, characters = _within(sourced, payload.max_characters)
        blocks = [
            DocumentBlock(type=b.type, text=b.text, page=b.page, level=b.level, bbox=b.bbox, source=source)
            for b, source in kept
        ]
        warnings = list(scans.warnings)
        if truncated := len(kept) < len(sourced):
            warnings.append(
                f"{len(sourced) - len(kept)} blocks beyond {payload.max_characters} characters are left out"
            )
        tables = [(i, block) for i, block in enumerate(blocks) if block.type == "table"]
        pages = found.pages if found.kind == "text" else scans.total
        missing = found.unread_pages if found.kind == "text" else range(1, (scans.total or 1) + 1)
        return Output(
            method=f"{self.method}+ocr" if scans.read else self.method,
            models=scans.models,
            blocks=blocks,
            headings=[
                DocumentHeading(block=i, level=block.level or 1, text=block.text, page=block.page)
                for i, block in enumerate(blocks)
                if block.type == "heading"
            ],
            tables=[DocumentTable(block=i, page=b.page, rows=cells(b.text)) for i, b in tables[:MAX_TABLES]],
            title=found.title,
            media_type=found.media_type,
            metadata=dict(found.metadata),
            pages=pages,
            ocr_pages=scans.read,
            unread_pages=sorted(set(missing) - set(scans.read)),
            characters=characters,
            truncated=truncated,
            markdown=_markdown(blocks) if payload.markdown else None,
            reliable=not warnings,
            warnings=warnings,
        )


async def _bytes(source: FileSource, ctx: EngineContext) -> bytes:
    if source.blob is not None:
        data = await ctx.blobs.get(source.blob)
    else:
        text = source.base64 or ""
        _check_size(len(text) * 3 // 4 - 2)
        try:
            data = await asyncio.to_thread(lambda: base64.b64decode("".join(text.split()), validate=True))
        except (binascii.Error, ValueError) as error:
            raise InvalidInput("the file is not valid base64", hint="send the file's bytes in base64") from error
    _check_size(len(data))
    if not data:
        raise EmptyMedia("the file has no bytes", hint="send the file's bytes")
    return data


def _check_size(n_bytes: int) -> None:
    if n_bytes > MAX_BYTES:
        raise TooLarge(
            f"the file is larger than {MAX_BYTES // 1000**2} MB", hint="POST /v1/documents takes larger ones"
        )


async def _scans(data: bytes, found: ReadDocument, payload: Input, ctx: EngineContext) -> _Pages:
    """Text of the pages that are pictures."""
    scans = _Pages()
    unread = list(found.unread_pages) if found.kind == "text" else [1]
    if not unread:
        return scans
    if not payload.ocr:
        scans.warnings.append(f"{len(unread)} pages without text are not read: ocr is off")
        return scans
    try:
        await _read_pages(data, found, unread, payload.max_ocr_pages, scans, ctx)
    except ModelUnavailable as error:
        scans.warnings.append(f"pages without text are not read: {error.detail}")
    return scans


async def _read_pages(
    data: bytes, found: ReadDocument, unread: list[int], most: int, scans: _Pages, ctx: EngineContext
) -> None:
    is_picture = found.kind == "image"
    for page in unread:  # of a picture the first answer tells how many more there are
        if len(scans.read) == most:
            scans.warnings.append(f"{len(unread) - most} pages without text are not read: more than max_ocr_pages")
            return
        try:
            drawn = data if is_picture else await ctx.documents.picture(data, page=page)
            answer = await _page(drawn, page if is_picture else 1, ctx)
        except ModelUnavailable:
            raise
        except NeuroEdgeError as error:
            if is_picture and page == 1:
                raise
            scans.warnings.append(f"page {page} is not read: {error.detail}")
            continue
        if is_picture and page == 1:
            scans.total = answer.pages
            unread += range(2, answer.pages + 1)
        scans.read.append(page)
        scans.models = answer.models
        scans.blocks += _paragraphs(answer, page)
        await ctx.progress("ocr", 0.3 + 0.7 * len(scans.read) / min(most, len(unread)), page=page)


async def _page(picture: bytes, page: int, ctx: EngineContext) -> ocr.Output:
    text = await asyncio.to_thread(lambda: base64.b64encode(picture).decode())
    return cast(ocr.Output, await ctx.call("ocr", ocr.Input(image=ImageSource(base64=text), page=page)))


def _paragraphs(answer: ocr.Output, page: int) -> list[Block]:
    """A block for each paragraph; its place is that of its lines together."""
    texts = [text for text in answer.text.split("\n\n") if text]
    width, height = (max(1, side) for side in answer.size_px)
    blocks = []
    for number, text in enumerate(texts):
        boxes = [line.bbox_px for line in answer.lines if line.paragraph == number]
        left, top = min(b[0] for b in boxes) / width, min(b[1] for b in boxes) / height
        right, bottom = max(b[2] for b in boxes) / width, max(b[3] for b in boxes) / height
        place = (round(max(0, left), 4), round(max(0, top), 4), round(min(1, right), 4), round(min(1, bottom), 4))
        blocks.append(Block(type="paragraph", text=text, page=page, bbox=place))
    return blocks


def _within(
    sourced: Sequence[tuple[Block, Literal["file", "ocr"]]], most: int
) -> tuple[list[tuple[Block, Literal["file", "ocr"]]], int]:
    """The first blocks that together hold at most so many characters, and how many they hold."""
    characters = 0
    for number, (block, _) in enumerate(sourced):
        if characters + len(block.text) > most:
            return list(sourced[:number]), characters
        characters += len(block.text)
    return list(sourced), characters


def _markdown(blocks: Sequence[DocumentBlock]) -> str:
    return "\n\n".join(
        f"{'#' * min(6, block.level or 1)} {block.text}" if block.type == "heading" else block.text for block in blocks
    )
