"""The Pictures port over Pillow: decoding within limits, facts of the file, JPEG files without metadata."""

import asyncio
import io
import math
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from neuroedge.contract.content import Picture, Pixels
from neuroedge.runtimes.image_file import decoding, rgb

if TYPE_CHECKING:
    from PIL.Image import Exif

_ORIENTATION: Final = 0x0112
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_TAKEN_AT: Final = 0x9003
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE = 1, 2, 3, 4
_JPEG_QUALITY: Final = 90
_AT_ONCE: Final = 2
"""A decoded picture may take 200 MB."""


class PillowPictures:
    """Pictures decoded in threads, few at the same time."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def decoded(self, data: bytes, *, max_pixels: int) -> Picture:
        """Decode, reduced to `max_pixels` where larger. Raises what image_file.decoding raises."""
        async with self._slots:
            return await asyncio.to_thread(_decoded, data, max_pixels)

    async def jpeg(self, pixels: Pixels) -> bytes:
        """A JPEG file of these pixels and nothing else."""
        return await asyncio.to_thread(_jpeg, pixels)


def _decoded(data: bytes, max_pixels: int) -> Picture:
    from PIL import Image, ImageOps

    with decoding(data) as image:
        facts: dict[str, Any] = {
            "format": image.format or "",
            "mode": image.mode,
            "frames": int(getattr(image, "n_frames", 1)),
            "transparent": bool(image.has_transparency_data),
            **_exif(image.getexif()),
        }
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        size = image.size
        scale = min(1.0, math.sqrt(max_pixels / math.prod(size)))
        whole = image
        if scale < 1 and image.mode in ("L", "RGB", "RGBA", "CMYK"):
            # Halved first: colours and transparency then cost less memory.
            factor = max(1, int(0.5 / scale))
            whole = image.reduce(factor) if factor > 1 else image
        seen = rgb(whole)
        if scale < 1:
            seen = seen.resize(_sides(size, scale), Image.Resampling.LANCZOS)
        return Picture(pixels=np.asarray(seen), width_px=size[0], height_px=size[1], **facts)


def _sides(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, math.floor(size[0] * scale)), max(1, math.floor(size[1] * scale))


def _exif(exif: "Exif") -> dict[str, Any]:
    """What is told of EXIF data; anything odd in them is passed over, as cameras and editors write all sorts."""
    told: dict[str, Any] = {"orientation": 1, "taken_at": None, "location": None}
    with suppress(Exception):
        found = int(exif.get(_ORIENTATION, 1))
        told["orientation"] = found if 1 <= found <= 8 else 1
    with suppress(Exception):
        text = exif.get_ifd(_EXIF_IFD).get(_TAKEN_AT)
        told["taken_at"] = datetime.strptime(str(text).strip("\x00 "), "%Y:%m:%d %H:%M:%S") if text else None
    with suppress(Exception):
        told["location"] = _location(exif.get_ifd(_GPS_IFD))
    return told


def _location(gps: Any) -> tuple[float, float] | None:
    if _LATITUDE not in gps or _LONGITUDE not in gps:
        return None
    latitude = _degrees(gps[_LATITUDE], negative=str(gps.get(_LATITUDE_REF, "N")).upper().startswith("S"))
    longitude = _degrees(gps[_LONGITUDE], negative=str(gps.get(_LONGITUDE_REF, "E")).upper().startswith("W"))
    if abs(latitude) <= 90 and abs(longitude) <= 180:  # False for NaN, too
        return round(latitude, 6), round(longitude, 6)
    return None


def _degrees(parts: Any, *, negative: bool) -> float:
    degrees, minutes, seconds = (float(part) for part in parts)
    value = degrees + minutes / 60 + seconds / 3600
    return -value if negative else value


def _jpeg(pixels: Pixels) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
