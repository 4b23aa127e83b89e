"""The reader of pages over the shipped networks."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.runtimes import ocr
from neuroedge.runtimes.ocr import PaddleReader
from tests.engines.vision.pages import LINES, drawn, encoded, page

pytestmark = pytest.mark.anyio
MODEL = "pp-ocrv6-small"


@pytest.fixture
async def reader(models_dir: Path) -> AsyncIterator[PaddleReader]:
    """The networks, closed afterwards."""
    opened = await asyncio.to_thread(ocr.load, MODEL, models_dir / MODEL, threads=2, options={})
    yield opened
    opened.close()


@pytest.mark.models
async def test_every_line_comes_with_its_corners(reader: PaddleReader) -> None:
    """In pixels of the page, clockwise from where the line begins."""
    answer = await reader.read(encoded(page()))
    assert sorted(line.text for line in answer.lines) == sorted(LINES)
    assert all(line.p > 0.9 for line in answer.lines)
    [first] = [line for line in answer.lines if line.text == LINES[0]]
    assert np.allclose(first.corners_px[0], (60, 60), atol=12)
    assert first.corners_px[1, 0] > first.corners_px[0, 0]
    assert first.corners_px[3, 1] > first.corners_px[0, 1]


@pytest.mark.models
async def test_a_page_of_several_in_a_tiff_file(reader: PaddleReader) -> None:
    """The one asked for."""
    sheets = [drawn([(40, 40, f"Sheet number {n}")], size=(400, 120)) for n in (1, 2)]
    data = encoded(sheets[0], "TIFF", save_all=True, append_images=sheets[1:])
    answer = await reader.read(data, page=2)
    assert ([line.text for line in answer.lines], answer.pages) == (["Sheet number 2"], 2)


@pytest.mark.models
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (60_000, 1), (7, 5)])
async def test_odd_shapes_are_survived(reader: PaddleReader, size: tuple[int, int]) -> None:
    """A dot, a thread, a ribbon: no text, no crash, no gigabyte."""
    answer = await reader.read(encoded(drawn([], size=size)))
    assert (answer.lines, (answer.width_px, answer.height_px)) == ([], size)


@pytest.mark.models
async def test_noise_is_no_text(reader: PaddleReader) -> None:
    """Every pixel at random."""
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (600, 600), np.uint8)
    assert (await reader.read(encoded(Image.fromarray(noise)))).lines == []


@pytest.mark.models
async def test_a_cancelled_page_frees_the_reader(reader: PaddleReader) -> None:
    """The next one is read."""
    task = asyncio.create_task(reader.read(encoded(page(size=(2000, 2000)))))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await reader.read(encoded(page()))).lines


@pytest.mark.models
async def test_the_library_keeps_still(reader: PaddleReader, capfd: pytest.CaptureFixture[str]) -> None:
    """It would log each file it opens and each page without text, past the server's own log."""
    await reader.read(encoded(drawn([])))
    assert capfd.readouterr().err == ""
    assert not logging.getLogger("RapidOCR").isEnabledFor(logging.ERROR)


@pytest.mark.parametrize("content", [None, b"no network"])
def test_a_model_that_does_not_load_is_named(tmp_path: Path, content: bytes | None) -> None:
    """With what mends it."""
    for name in ("det.onnx", "rec.onnx"):
        if content is not None:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelUnavailable) as caught:
        ocr.load(MODEL, tmp_path, threads=1, options={})
    assert "models verify" in str(caught.value.hint)


def test_points_of_a_turned_picture_go_back_to_their_place() -> None:
    """For each quarter: a mark is found where it was."""
    marked: Any = np.zeros((30, 50, 3), np.uint8)
    marked[5, 40] = 1
    for turns in range(4):
        y, x = np.argwhere(np.rot90(marked, turns)[:, :, 0])[0]
        corners = np.array([[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]], np.float32)
        back = ocr._turned_back(corners, turns, marked.shape)
        assert (back.min(axis=0).tolist(), back.max(axis=0).tolist()) == ([40, 5], [41, 6])
