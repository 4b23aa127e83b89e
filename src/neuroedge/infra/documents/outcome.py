"""What reading a file gives: blocks on disk, and facts about it."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from neuroedge.kit.chunking import Block

MIB = 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseLimits:
    """What one file may cost; more is TooLarge or UnreadableMedia, never the server's problem."""

    memory_bytes: int = 2048 * MIB
    """Address space of the reading process."""
    time_s: float = 120.0
    """Wall and processor time."""
    file_bytes: int = 256 * MIB
    """Of the file itself; sound may be longer, its own pipeline limits it."""
    pages: int = 3000
    characters: int = 20_000_000
    """Text found in the file; also bounds the output on disk, at 5 bytes a character."""
    line_characters: int = 1_000_000
    """Longest line of a text file: one longer is data, not text."""
    unpacked_bytes: int = 512 * MIB
    """Office files are ZIP archives: what they say they hold, unpacked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A file that was read. `kind` image: nothing was read, a PageReader is to; audio: it belongs to the recordings."""

    kind: Literal["text", "image", "audio"]
    media_type: str
    title: str | None = None
    pages: int | None = None
    unread_pages: tuple[int, ...] = ()
    """Pages, from 1, that hold no text: empty ones and scans."""
    characters: int = 0
    metadata: dict[str, str] = field(default_factory=dict, compare=False)
    """What the file says of itself: author, created_at …"""


class PageReader(Protocol):
    """Optical character recognition of one page."""

    model_id: str

    async def read(self, image: bytes, *, page: int | None) -> list[Block]:
        """Blocks of a PNG, JPEG, TIFF, WebP, GIF or BMP image in reading order, each with `page`; [] when it holds no
        text. Raises UnreadableMedia naming the page."""
        ...


class LeafReader(PageReader, Protocol):
    """A PageReader that reads the pages of an image file one by one, so that each can be kept."""

    async def leaf(self, image: bytes, *, number: int) -> tuple[list[Block], int]:
        """Blocks of page `number`, from 1, of an image file, and how many pages it has; a single page has no number.
        Raises UnreadableMedia naming the page, TooLarge for a file of too many."""
        ...


def read_blocks(data: bytes) -> Iterator[Block]:
    """The blocks of a file that `DocumentParser.parse` wrote."""
    import msgpack

    for kind, text, page, level, *rest in msgpack.Unpacker(io.BytesIO(data), raw=False):
        # Blocks kept by earlier versions name no place.
        yield Block(type=kind, text=text, page=page, level=level, bbox=tuple(rest[0]) if rest and rest[0] else None)


def packed(block: Block) -> bytes:
    """A block as `read_blocks` reads it."""
    import msgpack

    found: bytes = msgpack.packb([block.type, block.text, block.page, block.level, block.bbox])
    return found


def first_bytes(path: Path, count: int) -> bytes:
    """The beginning of a file."""
    with path.open("rb") as file:
        return file.read(count)
