"""Decoding of pictures through Pillow into what a network reads; the header is judged before a pixel is unpacked."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from neuroedge.contract.errors import (
    EmptyMedia,
    InvalidInput,
    NeuroEdgeError,
    TooLarge,
    UnreadableMedia,
    UnsupportedMedia,
)

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS: Final = 50_000_000
MAX_SIDE_PX: Final = 65_000
FORMATS: Final = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP")
_DEEP: Final = ("I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's modes of more than 8 bits a channel, which its own conversion would clip."""
_MARGIN_PX: Final = 16
"""Added on each side: detectors miss text that touches the edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A page ready for a network, with what its file said of it."""

    pixels: NDArray[np.uint8]
    """[height, width, 3] in the order blue, green, red, scaled, with a margin."""
    scale: float
    width_px: int
    """Of the page as it is to be seen: turned as its EXIF data say."""
    height_px: int
    pages: int
    """In the file: more than 1 only for TIFF; the frames of an animation are no pages."""

    def original(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points [..., 2] (x, y) of `pixels` in pixels of the page, none outside of it."""
        unscaled = (points - _MARGIN_PX) / self.scale
        return np.clip(unscaled, 0, (self.width_px, self.height_px))


def decode(data: bytes, *, page: int = 1, max_pixels: int, least_side_px: int) -> Picture:
    """A page (from 1) of a picture file, blocking.

    Larger pages are reduced to `max_pixels`, those with a side under `least_side_px` enlarged up to twice. What is
    transparent becomes white, more than 8 bits are stretched to the range used. Raises EmptyMedia, UnsupportedMedia,
    TooLarge (by the header alone: 50 megapixels, 65000 pixels a side), UnreadableMedia, InvalidInput for another page.
    """
    from PIL import Image, ImageOps

    with decoding(data) as image:
        pages = int(getattr(image, "n_frames", 1)) if image.format == "TIFF" else 1
        if page > pages:
            raise InvalidInput(f"page {page} was asked for, the file has {pages}", hint=f"ask for 1 to {pages}")
        image.seek(page - 1)
        _check_size(image)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        size = image.size
        scale = _scale(size, max_pixels=max_pixels, least_side_px=least_side_px)
        width, height = (max(1, round(side * scale)) for side in size)
        scaled = rgb(_thinned(image, scale)).resize((width, height), Image.Resampling.LANCZOS)
        pixels = np.asarray(scaled)[:, :, ::-1]
        margins = ((_MARGIN_PX, _MARGIN_PX), (_MARGIN_PX, _MARGIN_PX), (0, 0))
        return Picture(
            pixels=np.pad(pixels, margins, mode="edge"),
            scale=scale,
            width_px=size[0],
            height_px=size[1],
            pages=pages,
        )


@contextmanager
def decoding(data: bytes) -> Iterator["Image"]:
    """An opened picture within the limits; whatever reading it raises becomes one of our errors."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise EmptyMedia("the image has no bytes", hint="send the file's bytes")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image)
            yield image
    except NeuroEdgeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large() from error
    except UnidentifiedImageError as error:
        raise UnsupportedMedia("the bytes are of no image that is read", hint=f"send {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's formats raise OSError, SyntaxError, ValueError, EOFError, struct.error …
        raise UnreadableMedia(f"the image is damaged or cut off: {error}", hint="send the whole file again") from error


def _check_size(image: "Image") -> None:
    if math.prod(image.size) > MAX_PIXELS or max(image.size) > MAX_SIDE_PX:
        raise _too_large()


def _too_large() -> TooLarge:
    return TooLarge(
        f"the image has more than {MAX_PIXELS // 10**6} megapixels or {MAX_SIDE_PX} pixels a side",
        hint="scan at 300 dpi or cut it",
    )


def _scale(size: tuple[int, int], *, max_pixels: int, least_side_px: int) -> float:
    wanted = min(2.0, max(1.0, least_side_px / min(size)))
    return min(wanted, math.sqrt(max_pixels / math.prod(size)))


def _thinned(image: "Image", scale: float) -> "Image":
    """At least twice as large as it will be, so that colours and transparency cost less memory."""
    factor = int(0.5 / scale)
    return image.reduce(factor) if factor > 1 and image.mode in ("L", "RGB", "RGBA", "CMYK") else image


def rgb(image: "Image") -> "Image":
    """In 8 bits a channel: what is transparent becomes white, deeper channels are stretched to the range used."""
    from PIL import Image

    if image.mode in _DEEP:
        values: Any = np.array(image, np.float32)
        values -= values.min()
        values *= 255 / max(float(values.max()), 1e-6)
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    seen_through = image.convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(seen_through, mask=seen_through.getchannel("A"))
    return page
