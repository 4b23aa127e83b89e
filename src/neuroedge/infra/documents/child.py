"""The process that reads one file: `python -m neuroedge.infra.documents.child <job as JSON>`.

It limits itself before it loads a parser, writes blocks to a file, prints one JSON line and ends. Whatever a hostile
file does to it, the server only sees it end. It has no secrets: its environment is empty.
"""

import csv
import io
import json
import math
import os
import resource
import secrets
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from neuroedge.contract.errors import EmptyMedia, NeuroEdgeError, TooLarge, UnreadableMedia
from neuroedge.infra.documents import formats
from neuroedge.infra.documents.formats import Format
from neuroedge.infra.documents.mail import NESTED, attachments, without_forwarded
from neuroedge.infra.documents.notes import notes
from neuroedge.infra.documents.outcome import Parsed, ParseLimits, packed, read_blocks
from neuroedge.infra.documents.references import Rewritten, without_references
from neuroedge.infra.documents.structure import blocks, markdown_table
from neuroedge.kit.chunking import Block

_ROWS_PER_TABLE = 200
_BYTES_PER_CHARACTER = 5
_MAX_METADATA = 500
_METADATA = {
    "author": ("authors", "author", "creator"),
    "subject": ("subject",),
    "description": ("description",),
    "keywords": ("keywords",),
    "language": ("language",),
    "created_at": ("created_at", "created"),
    "modified_at": ("modified_at", "modified"),
    "program": ("producer", "created_by", "application"),
}
"""Names given, and the names that formats use."""


def main() -> None:
    """Run the job named on the command line."""
    job = json.loads(sys.argv[1])
    limits = ParseLimits(**job["limits"])
    _limit(limits)
    try:
        if "page" in job:
            _render(Path(job["path"]), Path(job["out"]), page=job["page"], dpi=job["dpi"])
            answer: dict[str, Any] = {}
        else:
            answer = asdict(read(Path(job["path"]), job["filename"], Path(job["out"]), limits))
    except NeuroEdgeError as error:
        answer = {"code": error.code, "detail": error.detail, "hint": error.hint}
    except MemoryError:
        answer = {"code": "too_large", "detail": "reading the file takes too much memory", "hint": "split the document"}
    sys.stdout.write(json.dumps(answer) + "\n")


def _limit(limits: ParseLimits) -> None:
    """Bind this process; wall time is its parent's to keep. Raises nothing where the system knows no such limit."""
    seconds = math.ceil(limits.time_s)
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, limits.characters * _BYTES_PER_CHARACTER),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, limits.memory_bytes),
    ):
        try:
            resource.setrlimit(what, (most, most))
        except (ValueError, OSError):  # macOS has no RLIMIT_AS worth the name, a container may have lower ones
            continue


def read(path: Path, filename: str, out: Path, limits: ParseLimits, *, nested: int = 0) -> Parsed:
    """Write the file's blocks to `out`. `nested`: how many mails it is attached within. Raises errors of bad files."""
    found = formats.recognised(path, filename, limits)
    if found.kind == "image" or found.kind == "audio":
        return Parsed(kind=found.kind, media_type=found.media_type)
    if path.stat().st_size > limits.file_bytes:
        raise TooLarge(f"the document is larger than {limits.file_bytes} bytes", hint="split the document")
    with out.open("wb") as file:
        if found.kind == "plain" or found.kind == "csv":
            text = formats.decoded(path.read_bytes(), kind=found.kind, limits=limits)
            rows = _paragraphs(text) if found.kind == "plain" else _tables(text)
            return Parsed(kind="text", media_type=found.media_type, characters=_write(rows, file, limits))
        return _parsed(path, found, file, limits, nested=nested)


def _parsed(path: Path, found: Format, file: BinaryIO, limits: ParseLimits, *, nested: int) -> Parsed:
    import kreuzberg

    if found.kind == "pdf":
        _check_pages(kreuzberg, path, limits)
    marker = secrets.token_hex(8)
    config = kreuzberg.ExtractionConfig(
        use_cache=False,
        # Markdown rendering is what makes it look for headings in a PDF.
        output_format="markdown",
        include_document_structure=True,
        pages=kreuzberg.PageConfig(
            extract_pages=True, insert_page_markers=True, marker_format=f"\n\n{marker}n{{page_num}}n\n\n"
        ),
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
    )
    source = _source(path, found, limits)
    try:
        result = kreuzberg.extract_bytes_sync(source.data, found.media_type, config)
    except kreuzberg.KreuzbergError as error:
        raise _wrapped(error, found) from error
    page_texts = _page_texts(result, marker, named=found.kind == "pdf")
    nodes = (result.document or {"nodes": []})["nodes"]
    sizes = _page_sizes(result.metadata) if found.kind == "pdf" else {}
    told: Iterable[Block] = (b for b in blocks(nodes, page_texts, sizes) if marker not in b.text)
    if found.media_type == formats.PPTX:
        told = _with_notes(told, notes(path, unpacked_bytes=limits.unpacked_bytes))
    told = (replace(b, text=source.restored(b.text)) for b in told)
    if found.kind == "email":
        told = chain(told, _attached(path, limits, nested=nested))
    characters = _write(told, file, limits)
    pages = _page_count(result, page_texts)
    unread = tuple(n for n, text in page_texts if not text.strip()) if found.kind == "pdf" else ()
    if not characters and not unread:
        raise EmptyMedia("no text was found in the document", hint="send a document with at least a word")
    return Parsed(
        kind="text",
        media_type=found.media_type,
        title=source.restored(_title(result.metadata) or "") or None,
        pages=pages,
        unread_pages=unread,
        characters=characters,
        metadata={name: source.restored(text) for name, text in _metadata(result.metadata).items()},
    )


def _source(path: Path, found: Format, limits: ParseLimits) -> Rewritten:
    """What kreuzberg is given of a file."""
    if found.kind == "html" or found.kind == "markdown":
        return Rewritten(formats.decoded(path.read_bytes(), kind=found.kind, limits=limits).encode())
    if found.media_type == formats.DOCX:
        return without_references(path, unpacked_bytes=limits.unpacked_bytes)
    return Rewritten(without_forwarded(path) if found.kind == "email" else path.read_bytes())


def _check_pages(kreuzberg: Any, path: Path, limits: ParseLimits) -> None:
    try:
        with kreuzberg.PdfPageIterator(str(path)) as pages:
            count = len(pages)
    except (kreuzberg.KreuzbergError, RuntimeError) as error:
        raise _wrapped(error, Format("pdf", "application/pdf")) from error
    if count > limits.pages:
        raise TooLarge(f"the document has {count} pages; {limits.pages} are allowed", hint="split the document")


def _wrapped(error: Exception, found: Format) -> NeuroEdgeError:
    told = str(error).lower()
    if "password" in told or "encrypt" in told:
        return UnreadableMedia("the document is encrypted", hint="remove its password and send it again")
    if "limit" in told or "too large" in told or "exceed" in told:
        return TooLarge("the document unpacks to more than is allowed", hint="split the document")
    name = found.media_type.rsplit(".", 1)[-1].rsplit("/", 1)[-1]
    return UnreadableMedia(f"the document is damaged: it does not read as {name}", hint="send the whole file again")


def _with_notes(told: Iterable[Block], noted: dict[int, str]) -> Iterator[Block]:
    """The blocks of slides, those of each followed by its notes."""
    page = 0
    for block in told:
        if block.page is not None and block.page > page:
            yield from _notes_of(range(page, block.page), noted)
            page = block.page
        yield block
    yield from _notes_of(range(page, max(noted, default=0) + 1), noted)


def _notes_of(slides: Iterable[int], noted: dict[int, str]) -> Iterator[Block]:
    for number in slides:
        if number in noted:
            yield Block(type="paragraph", text=f"Notes: {noted[number]}", page=number)


def _attached(path: Path, limits: ParseLimits, *, nested: int) -> Iterator[Block]:
    """What is attached to a mail, each under its name; of what cannot be read, why. Pages are those of no document."""
    for name, data in attachments(path) if nested < NESTED else ():
        yield Block(type="heading", text=f"Attachment: {name}", level=1)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            file, out = Path(folder) / "upload", Path(folder) / "blocks"
            try:
                if len(data) > (most := limits.characters * _BYTES_PER_CHARACTER):  # the system would end the process
                    raise TooLarge(f"it has more than {most} bytes", hint="send it by itself")
                file.write_bytes(data)
                parsed = read(file, name, out, limits, nested=nested + 1)
            except NeuroEdgeError as error:
                yield Block(type="paragraph", text=f"Not read: {error.detail}.")
                continue
            if parsed.kind != "text":
                yield Block(type="paragraph", text=f"Not read: it is {parsed.media_type}; send it by itself.")
                continue
            for block in read_blocks(out.read_bytes()):
                yield replace(block, page=None, bbox=None, level=block.level and min(6, block.level + 1))


def _page_texts(result: Any, marker: str, *, named: bool) -> list[tuple[int, str]]:
    """(page, text): of a PDF the pages it names, else the marks it left; of slides it names only those with tables."""
    pages = [(int(page["page_number"]), page["content"]) for page in result.pages or []]
    if named or marker not in result.content:
        return pages
    marked: list[tuple[int, str]] = []
    for part in result.content.split(marker + "n")[1:]:
        number, _, text = part.partition("n")
        marked.append((int(number), text))
    return marked


def _page_count(result: Any, page_texts: list[tuple[int, str]]) -> int | None:
    told = (result.metadata.get("pages") or {}).get("total_count")
    return int(told) if told else (max((n for n, _ in page_texts), default=0) or None)


def _title(metadata: Any) -> str | None:
    title = metadata.get("title") or metadata.get("subject")
    if not isinstance(title, str) or title.startswith("(") or title.lower() == "untitled":
        # "(anonymous)", "(unspecified)": a program's word for none
        return None
    return " ".join(title.replace("\x00", "").split())[:500] or None


def _metadata(told: Any) -> dict[str, str]:
    """What the file says of itself, by names that are the same for all formats."""
    core = told.get("core_properties") or {}
    found: dict[str, str] = {}
    for name, others in _METADATA.items():
        for value in (*(told.get(other) for other in others), *(core.get(other) for other in others)):
            text = ", ".join(map(str, value)) if isinstance(value, list) else value
            if isinstance(text, str) and text.strip() and not text.startswith("("):
                found[name] = " ".join(text.replace("\x00", "").split())[:_MAX_METADATA]
                break
    return found


def _page_sizes(told: Any) -> dict[int, tuple[float, float]]:
    """Width and height of each page, in points."""
    pages = (told.get("pages") or {}).get("pages") or []
    return {int(page["number"]): tuple(page["dimensions"]) for page in pages if page.get("dimensions")}


def _paragraphs(text: str) -> Iterator[Block]:
    lines: list[str] = []
    for line in io.StringIO(text):
        if line.strip():
            lines.append(line.rstrip())
        elif lines:
            yield Block(type="paragraph", text="\n".join(lines))
            lines = []
    if lines:
        yield Block(type="paragraph", text="\n".join(lines))


def _tables(text: str) -> Iterator[Block]:
    """The rows of a CSV in tables of some hundred, each with the header."""
    # Not all the sniffer says of quotes, which rests on those of the first lines: later ones may be doubled.
    shape: dict[str, Any] = {"delimiter": ",", "skipinitialspace": False, "quotechar": '"'}
    try:
        sniffed = csv.Sniffer().sniff(text[:8192], delimiters=",;\t|")
        shape |= {"delimiter": sniffed.delimiter, "skipinitialspace": sniffed.skipinitialspace}
        if sniffed.quotechar == "'" and '"' not in text[:8192]:
            shape["quotechar"] = "'"
    except csv.Error:  # one column, or too irregular: commas then
        pass
    csv.field_size_limit(len(text) + 1)
    reader = csv.reader(io.StringIO(text, newline=""), doublequote=True, **shape)
    header: list[str] | None = None
    rows: list[list[str]] = []
    written = False
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = row
                continue
            rows.append(row)
            if len(rows) == _ROWS_PER_TABLE:
                yield Block(type="table", text=markdown_table([header, *rows]))
                rows, written = [], True
    except csv.Error as error:
        raise UnreadableMedia(f"line {reader.line_num} is no CSV: {error}", hint="check its quotes") from error
    if header is not None and (rows or not written):
        yield Block(type="table", text=markdown_table([header, *rows]))


def _write(found: Iterable[Block], file: BinaryIO, limits: ParseLimits) -> int:
    """Write blocks; how many characters. Raises TooLarge naming the page."""
    characters = 0
    for block in found:
        characters += len(block.text)
        if characters > limits.characters:
            where = f" by page {block.page}" if block.page else ""
            raise TooLarge(
                f"the document holds more than {limits.characters} characters of text{where}",
                hint="split the document",
            )
        file.write(packed(block))
    return characters


def _render(path: Path, out: Path, *, page: int, dpi: int) -> None:
    import kreuzberg

    try:
        out.write_bytes(kreuzberg.render_pdf_page(path, page - 1, dpi=dpi))
    except (kreuzberg.KreuzbergError, RuntimeError) as error:
        raise UnreadableMedia(f"page {page} cannot be drawn", hint="send the whole file again") from error


if __name__ == "__main__":
    os.environ.setdefault("HOME", "/nonexistent")  # no caches, no settings of a user
    main()
