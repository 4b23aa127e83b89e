"""The Pictures port: facts of files, pictures upright, places only in facts, nothing of the file in what is sent on."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neuroedge.contract.errors import EmptyMedia, TooLarge, UnreadableMedia, UnsupportedMedia
from neuroedge.runtimes.pictures import PillowPictures
from tests.engines.vision import pages

pytestmark = pytest.mark.anyio


def half(size: tuple[int, int] = (40, 20)) -> Any:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, (220, 20, 20))
    image.paste((20, 20, 220), (size[0] // 2, 0, size[0], size[1]))
    return image


def exif(*, orientation: int = 1, located: bool = False, taken: str = "") -> Any:
    """EXIF data as a camera writes them."""
    data = Image.Exif()
    data[0x0112] = orientation
    if located:
        data.get_ifd(0x8825).update({1: "S", 2: (33.0, 51.0, 30.0), 3: "E", 4: (151.0, 12.0, 36.0)})
    if taken:
        data.get_ifd(0x8769)[0x9003] = taken
    return data


async def test_a_turned_picture_is_seen_upright() -> None:
    """Orientation 6: a quarter clockwise; red, on the left in the file, comes to lie above."""
    data = pages.encoded(half(), "JPEG", exif=exif(orientation=6), quality=95)
    picture = await PillowPictures().decoded(data, max_pixels=10_000)
    assert (picture.width_px, picture.height_px, picture.orientation) == (20, 40, 6)
    assert picture.pixels.shape == (40, 20, 3)
    assert picture.pixels[5, 10, 0] > 180
    assert picture.pixels[35, 10, 2] > 180


async def test_place_and_time_are_read() -> None:
    """Degrees, minutes and seconds, south and west negative; the camera's own clock."""
    data = pages.encoded(half(), "JPEG", exif=exif(located=True, taken="2026:03:04 05:06:07"))
    picture = await PillowPictures().decoded(data, max_pixels=10_000)
    assert picture.location == pytest.approx((-33.858333, 151.21), abs=1e-5)
    assert picture.taken_at is not None
    assert picture.taken_at.isoformat() == "2026-03-04T05:06:07"


@pytest.mark.parametrize("taken", ["yesterday", "0000:00:00 00:00:00"])
async def test_odd_metadata_are_passed_over(taken: str) -> None:
    """They cost no error: cameras and editors write all sorts."""
    data = pages.encoded(half(), "JPEG", exif=exif(orientation=77, taken=taken))
    picture = await PillowPictures().decoded(data, max_pixels=10_000)
    assert (picture.orientation, picture.taken_at, picture.location) == (1, None, None)


async def test_what_is_sent_on_holds_pixels_only() -> None:
    """No EXIF data, no place."""
    port = PillowPictures()
    data = pages.encoded(half(), "JPEG", exif=exif(orientation=6, located=True))
    sent = await port.jpeg((await port.decoded(data, max_pixels=10_000)).pixels)
    with Image.open(io.BytesIO(sent)) as image:
        assert (image.format, image.size, dict(image.getexif())) == ("JPEG", (20, 40), {})
    assert b"Exif" not in sent


async def test_large_pictures_are_reduced_and_small_ones_are_not() -> None:
    """At most the pixels asked for; the size told is the whole picture's."""
    port = PillowPictures()
    large = await port.decoded(pages.encoded(half((1000, 300))), max_pixels=10_000)
    assert (large.width_px, large.height_px) == (1000, 300)
    assert 9_000 <= large.pixels.shape[0] * large.pixels.shape[1] <= 10_000
    small = await port.decoded(pages.encoded(Image.new("1", (1, 1))), max_pixels=10_000)
    assert small.pixels.tolist() == [[[0, 0, 0]]]
    thin = await port.decoded(pages.encoded(Image.new("L", (20_000, 1), 9)), max_pixels=10_000)
    assert thin.pixels.shape[0] == 1


async def test_cmyk_alpha_palette_and_deep_pictures_come_as_rgb() -> None:
    """Transparent is white, 16 bits are stretched."""
    port = PillowPictures()
    cmyk = await port.decoded(pages.encoded(half().convert("CMYK"), "JPEG", quality=95), max_pixels=10_000)
    assert (cmyk.mode, cmyk.format) == ("CMYK", "JPEG")
    assert cmyk.pixels[10, 5, 0] > 150 > cmyk.pixels[10, 5, 2]
    clear = await port.decoded(pages.encoded(Image.new("RGBA", (5, 5), (0, 0, 0, 0))), max_pixels=10_000)
    assert (clear.transparent, clear.pixels.min()) == (True, 255)
    deep = Image.fromarray(np.array([[0, 300], [600, 65_535]], np.uint16))
    assert (await port.decoded(pages.encoded(deep), max_pixels=100)).pixels.max() == 255


async def test_an_animations_frames_are_counted() -> None:
    """The first one is what is seen."""
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "green", "blue")]
    data = pages.encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    picture = await PillowPictures().decoded(data, max_pixels=10_000)
    assert (picture.frames, picture.format, picture.pixels[0, 0].tolist()) == (3, "GIF", [255, 0, 0])


def _bomb() -> bytes:
    """A PNG of a few kilobytes with 100 megapixels."""
    return pages.encoded(Image.new("1", (10_000, 10_000)))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", EmptyMedia),
        (pages.encoded(half())[:60], UnreadableMedia),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnsupportedMedia),
        (b"%PDF-1.4", UnsupportedMedia),
        (_bomb(), TooLarge),
    ],
    ids=["empty", "cut off", "SVG", "PDF", "bomb"],
)
async def test_bad_files_are_named_errors(data: bytes, error: type[Exception]) -> None:
    """And the bomb is judged by its header."""
    with pytest.raises(error):
        await PillowPictures().decoded(data, max_pixels=10_000)
