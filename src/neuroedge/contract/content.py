"""Ports to documents and pictures: engines see what a file holds, never the library that reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.errors import Unavailable
from neuroedge.kit.chunking import Block as Block

Pixels = NDArray[np.uint8]


class FileSource(BaseModel):
    """Where the file of a request lies: exactly one of the fields."""

    model_config = ConfigDict(extra="forbid")

    base64: str | None = Field(default=None, description="The file's bytes in base64.")
    blob: str | None = Field(default=None, description="Key of an object in the caller's blob storage.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "FileSource":
        if (self.base64 is None) == (self.blob is None):
            raise ValueError("give exactly one of 'base64' and 'blob'")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadDocument:
    """What a document's file holds. `kind` image: a picture, of which nothing was read."""

    kind: Literal["text", "image"]
    media_type: str
    blocks: Sequence[Block]
    """In reading order."""
    title: str | None = None
    pages: int | None = None
    """None where the format has no pages."""
    unread_pages: Sequence[int] = ()
    """Pages, from 1, that hold no text: empty ones and scans."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the file says of itself: author, created_at …"""


class Documents(Protocol):
    """Reading of documents; a hostile file costs its own call and nothing else."""

    async def read(self, data: bytes, *, filename: str) -> ReadDocument:
        """Blocks of a PDF, Office, HTML, Markdown, CSV, e-mail or text file; the name decides between text formats.

        Raises EmptyMedia, UnsupportedMedia (sound, too), UnreadableMedia, TooLarge, Overloaded.
        """
        ...

    async def picture(self, data: bytes, *, page: int) -> bytes:
        """A page, from 1, of a PDF drawn as PNG at 200 dpi. Raises UnreadableMedia naming the page, TooLarge."""
        ...


class NoDocuments:
    """The Documents of a context that has none."""

    async def read(self, data: bytes, *, filename: str) -> ReadDocument:
        """Refuse."""
        raise Unavailable("documents cannot be read here", hint="give the context `documents`")

    async def picture(self, data: bytes, *, page: int) -> bytes:
        """Refuse."""
        raise Unavailable("documents cannot be read here", hint="give the context `documents`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A decoded picture, its first frame, upright as its EXIF data say, and what its file told."""

    pixels: Pixels
    """[height, width, 3]: red, green, blue; what is transparent is white; reduced to the size asked for."""
    width_px: int
    """Of the whole picture, upright."""
    height_px: int
    format: str
    """PNG, JPEG, TIFF, WEBP, GIF or BMP."""
    mode: str
    """Pillow's name of how colours are kept: L, RGB, RGBA, CMYK, P, I;16 …"""
    frames: int
    transparent: bool
    """Whether it has a channel or colour of transparency."""
    orientation: int
    """EXIF's 1 to 8, as it was in the file; 1 where none stands."""
    taken_at: datetime | None = None
    """By the camera's own clock, without zone."""
    location: tuple[float, float] | None = None
    """Latitude and longitude in degrees (WGS 84): personal data, not to be told unasked."""


class Pictures(Protocol):
    """Decoding of pictures, within limits that the header alone is judged by."""

    async def decoded(self, data: bytes, *, max_pixels: int) -> Picture:
        """Decode, reduced to `max_pixels` where larger.

        Raises EmptyMedia, UnsupportedMedia, UnreadableMedia, TooLarge (50 megapixels, 65000 pixels a side).
        """
        ...

    async def jpeg(self, pixels: Pixels) -> bytes:
        """A JPEG file of these pixels and nothing else: no place, no camera, no thumbnail."""
        ...


class NoPictures:
    """The Pictures of a context that has none."""

    async def decoded(self, data: bytes, *, max_pixels: int) -> Picture:
        """Refuse."""
        raise Unavailable("pictures cannot be decoded here", hint="give the context `pictures`")

    async def jpeg(self, pixels: Pixels) -> bytes:
        """Refuse."""
        raise Unavailable("pictures cannot be decoded here", hint="give the context `pictures`")
