"""What a file is, by its bytes and not by its name, and the checks that need no parser.

A binary format is what its bytes say, whatever the name says. Text has no marks of its own: there the name decides
between HTML, Markdown, CSV, e-mail and plain text; text under a binary format's name is refused, because what was meant
is missing.
"""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neuroedge.contract.errors import (
    EmptyMedia,
    NeuroEdgeError,
    TooLarge,
    UnreadableMedia,
    UnsupportedMedia,
)
from neuroedge.infra.containers import looks_like_media
from neuroedge.infra.documents.outcome import ParseLimits, first_bytes

FORMATS = "PDF, DOCX, PPTX, XLSX, HTML, Markdown, TXT, CSV, EML, images and sound"
Kind = Literal["pdf", "office", "html", "markdown", "csv", "email", "plain", "image", "audio"]

_OFFICE = "application/vnd.openxmlformats-officedocument."
DOCX = _OFFICE + "wordprocessingml.document"
"""Also the media type that DOCM and DOTX are read as."""
PPTX = _OFFICE + "presentationml.presentation"
_OFFICE_PARTS = {
    "word/": DOCX,
    "ppt/": PPTX,
    "xl/": _OFFICE + "spreadsheetml.sheet",
}
_IMAGES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"BM": "image/bmp",
}
_TEXTS: dict[str, tuple[Kind, str]] = {
    ".html": ("html", "text/html"),
    ".htm": ("html", "text/html"),
    ".xhtml": ("html", "text/html"),
    ".md": ("markdown", "text/markdown"),
    ".markdown": ("markdown", "text/markdown"),
    ".csv": ("csv", "text/csv"),
    ".tsv": ("csv", "text/csv"),
    ".eml": ("email", "message/rfc822"),
}
_BINARY_NAMES = {".pdf", ".docx", ".pptx", ".xlsx", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".webp"}
_HTML_START = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_HTML_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([A-Za-z0-9_:.-]{2,40})", re.IGNORECASE)
_MAX_PARTS = 20_000
_HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Format:
    """What to read a file as."""

    kind: Kind
    media_type: str


def recognised(path: Path, filename: str, limits: ParseLimits) -> Format:
    """The file's format. Raises EmptyMedia, UnsupportedMedia, UnreadableMedia, TooLarge."""
    head = first_bytes(path, _HEAD_BYTES)
    if not head:
        raise EmptyMedia("the file is empty", hint="send a document with at least a word")
    if b"%PDF-" in head[:1024]:
        return Format("pdf", "application/pdf")
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return Format("office", _office(path, limits))
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        raise _old_office(path)
    for start, media_type in _IMAGES.items():
        if head.startswith(start) and (start != b"BM" or head[6:10] == bytes(4)):
            return Format("image", media_type)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Format("image", "image/webp")
    # UTF-16 text begins as some MP3 frames do: its mark goes first.
    if not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        with path.open("rb") as file:
            if looks_like_media(file):
                return Format("audio", "audio/*")
    return _text_format(head, filename)


def _text_format(head: bytes, filename: str) -> Format:
    suffix = Path(filename).suffix.lower()
    if suffix in _BINARY_NAMES:
        raise UnsupportedMedia(f"the file is named {suffix} but its bytes are not", hint=f"send {FORMATS}")
    if suffix in _TEXTS:
        return Format(*_TEXTS[suffix])
    if _HTML_START.match(head):
        return Format("html", "text/html")
    return Format("plain", "text/plain")


def _office(path: Path, limits: ParseLimits) -> str:
    """The media type of an Office file, after a look at how much it would unpack to."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UnreadableMedia("the archive is damaged or broken off", hint="send the whole file again") from error
    if len(parts) > _MAX_PARTS or sum(part.file_size for part in parts) > limits.unpacked_bytes:
        raise TooLarge(
            f"the archive unpacks to more than {limits.unpacked_bytes} bytes or {_MAX_PARTS} parts",
            hint="split the document, or send it as PDF",
        )
    if any(part.flag_bits & 1 for part in parts):
        raise UnreadableMedia("the archive is encrypted", hint="send it without password")
    names = [part.filename for part in parts]
    for folder, media_type in _OFFICE_PARTS.items():
        if "[Content_Types].xml" in names and any(name.startswith(folder) for name in names):
            return media_type
    if "mimetype" in names:  # OpenDocument, EPUB
        raise UnsupportedMedia(
            "the file is an OpenDocument or EPUB file, which is not read", hint="save it as DOCX, PPTX, XLSX or PDF"
        )
    raise UnsupportedMedia("the file is a ZIP archive, but no Office document", hint="unpack it and send its documents")


def _old_office(path: Path) -> NeuroEdgeError:
    with path.open("rb") as file:
        if "EncryptedPackage".encode("utf-16-le") in file.read(1 << 20):
            return UnreadableMedia("the document is encrypted", hint="remove its password and send it again")
    return UnsupportedMedia(
        "the file is in the binary format of Office before 2007", hint="save it as DOCX, PPTX, XLSX or PDF"
    )


def decoded(data: bytes, *, kind: Kind, limits: ParseLimits) -> str:
    """The characters of a text file: UTF-8, or UTF-16 with its mark, or what an HTML page declares.

    Raises UnreadableMedia naming the line, TooLarge for a line no person wrote, EmptyMedia.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        encoding = "utf-8-sig"
        if (at := data.find(b"\x00")) >= 0:
            raise UnreadableMedia(f"line {_line(data, at)} holds a zero byte: this is no text", hint=f"send {FORMATS}")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        declared = _declared(data) if kind == "html" else None
        if declared is None:
            where = f"line {_line(data, error.start)}, byte {error.start}"
            raise UnreadableMedia(
                f"the text is not valid {error.encoding.upper()} at {where}", hint="save the file as UTF-8"
            ) from error
        text = data.decode(declared, "replace")
    text = text.replace("\x00", "")
    if not text.strip():
        raise EmptyMedia("the file holds no text", hint="send a document with at least a word")
    if kind != "html":
        _check_lines(text, limits)
    return text


def _declared(data: bytes) -> str | None:
    """The encoding an HTML page names, when Python knows it."""
    found = _HTML_CHARSET.search(data[:_HEAD_BYTES])
    if found is None:
        return None
    name = found.group(1).decode()
    try:
        b"".decode(name)
    except LookupError:
        return None
    return None if name.lower().replace("-", "") == "utf8" else name


def _check_lines(text: str, limits: ParseLimits) -> None:
    start, line = 0, 1
    while start <= len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if end - start > limits.line_characters:
            raise TooLarge(
                f"line {line} has {end - start} characters; {limits.line_characters} are allowed",
                hint="this looks like data, not text: break it into lines",
            )
        start, line = end + 1, line + 1


def _line(data: bytes, at: int) -> int:
    return data.count(b"\n", 0, at) + 1
