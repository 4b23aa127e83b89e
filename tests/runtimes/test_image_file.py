"""Decoding of pictures: what is refused by its header, what is turned, flattened and scaled."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neuroedge.contract.errors import EmptyMedia, InvalidInput, TooLarge, UnreadableMedia, UnsupportedMedia
from neuroedge.runtimes.image_file import Picture, decode
from tests.engines.vision.pages import encoded


def _decode(data: bytes, **options: Any) -> Picture:
    return decode(data, **{"max_pixels": 1_000_000, "least_side_px": 1, **options})


def _png_header(width: int, height: int) -> bytes:
    """A PNG file that says its size and holds one byte of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(7100, 7100), (100_000, 1), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    """No pixel is unpacked: there are none, and a smaller file like it is called damaged."""
    with pytest.raises(TooLarge):
        _decode(_png_header(*size))
    with pytest.raises(UnreadableMedia):
        _decode(_png_header(70, 70))


def test_each_page_of_a_file_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small first page hides no large second one."""
    monkeypatch.setattr("neuroedge.runtimes.image_file.MAX_PIXELS", 200)
    first, second = Image.new("L", (10, 10)), Image.new("L", (20, 20))
    data = encoded(first, "TIFF", save_all=True, append_images=[second])
    assert (_decode(data).pages, _decode(data).width_px) == (2, 10)
    with pytest.raises(TooLarge):
        _decode(data, page=2)
    with pytest.raises(InvalidInput, match="has 2"):
        _decode(data, page=3)


@pytest.mark.parametrize("data", [b"%PDF-1.7", b"<svg/>", b"\0" * 100], ids=["pdf", "svg", "zeros"])
def test_other_files_are_refused(data: bytes) -> None:
    """As of no known kind."""
    with pytest.raises(UnsupportedMedia):
        _decode(data)


def test_nothing_is_said_to_be_nothing() -> None:
    """No bytes."""
    with pytest.raises(EmptyMedia):
        _decode(b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"])
def test_every_kind_is_read_and_its_half_is_not(kind: str) -> None:
    """A file cut off is damaged."""
    noise = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    picture = _decode(data)
    assert (picture.width_px, picture.height_px, picture.pages) == (90, 80, 1)
    with pytest.raises((UnreadableMedia, UnsupportedMedia)):
        _decode(data[: len(data) // 2])


def test_a_photo_is_turned_as_its_camera_says() -> None:
    """EXIF orientation 6: the left column of what is stored is the top row of what is seen."""
    image = Image.new("RGB", (60, 40), "white")
    image.paste("black", (0, 0, 20, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = _decode(encoded(image, "PNG", exif=exif))
    assert (picture.width_px, picture.height_px) == (40, 60)
    assert picture.pixels[20, 30].tolist() == [0, 0, 0]
    assert picture.pixels[70, 30].tolist() == [255, 255, 255]


def test_a_transparent_ground_is_white_and_deep_pixels_are_stretched() -> None:
    """Black on nothing is no black page, and 12 bits in 16 are no white one."""
    see_through = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    see_through.paste((10, 10, 10, 255), (0, 0, 40, 20))
    pixels = _decode(encoded(see_through)).pixels
    assert (int(pixels[25, 30, 0]), int(pixels[50, 30, 0])) == (10, 255)
    deep = np.full((40, 40), 4095, np.uint16)
    deep[:20] = 100
    pixels = _decode(encoded(Image.fromarray(deep))).pixels
    assert (int(pixels[25, 30, 0]), int(pixels[50, 30, 0])) == (0, 255)


@pytest.mark.parametrize(
    ("size", "scale"), [((2000, 2000), 0.5), ((100, 800), 2.0), ((400, 400), 1.5), ((900, 700), 1.0)]
)
def test_the_size_is_brought_between_its_limits(size: tuple[int, int], scale: float) -> None:
    """Down to the pixels allowed, up to the least side but twice at most; points go back to the page."""
    picture = _decode(encoded(Image.new("L", size)), least_side_px=600)
    assert picture.scale == pytest.approx(scale)
    height, width = picture.pixels.shape[:2]
    assert (width, height) == (round(size[0] * scale) + 32, round(size[1] * scale) + 32)
    corners = picture.original(np.array([[16, 16], [width - 16, height - 16], [width, height]], np.float64))
    assert np.allclose(corners, [(0, 0), size, size], atol=0.6)
