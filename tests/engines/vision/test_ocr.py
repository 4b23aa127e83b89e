"""The OCR engine: order and limits with a reader that answers by hand, characters with the shipped model."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.engine import EngineContext
from neuroedge.contract.errors import InvalidInput, ModelUnavailable, TooLarge, Unavailable, UnreadableMedia
from neuroedge.contract.models import ReadPage, TextLine
from neuroedge.contract.ports import ImageSource
from neuroedge.engines.vision import ocr as engine_module
from neuroedge.engines.vision.ocr import Input, OcrEngine, Output
from neuroedge.runtimes import ocr
from tests.engines.vision.pages import LINES, TEXT, drawn, encoded, page, source
from tests.fakes import FakeBlobs, make_context

pytestmark = pytest.mark.anyio
MODEL = "pp-ocrv6-small"


class ByHand:
    """A reader that gives lines at places, and keeps what it was asked for."""

    model_id = "by-hand"

    def __init__(self, *lines: tuple[str, float, float, float], p: float = 0.9) -> None:
        self.asked: list[tuple[bytes, int]] = []
        self._lines = [
            TextLine(text=t, p=p, corners_px=np.array([[x, y], [x + w, y], [x + w, y + 20], [x, y + 20]]))
            for t, x, y, w in lines
        ]

    async def read(self, image: bytes, *, page: int = 1) -> ReadPage:
        """Those lines."""
        self.asked.append((image, page))
        return ReadPage(lines=self._lines, width_px=800, height_px=600, turned_degrees=0, pages=3)


async def _run(reader: Any, payload: Input, **ports: Any) -> Output:
    ctx = make_context(models={"ocr": reader}, **ports)
    return await OcrEngine(probe=ctx).run(payload, ctx)


async def test_lines_are_given_in_reading_order_with_their_places() -> None:
    """Rows on lines, a blank line between paragraphs; what the reader found last may stand first."""
    reader = ByHand(("below", 10, 200, 60), ("right", 200, 12, 60), ("left", 10, 10, 60), ("next", 10, 35, 60))
    answer = await _run(reader, Input(image=source(b"bytes"), page=2))
    assert answer.text == "left right\nnext\n\nbelow"
    assert [(line.text, line.paragraph) for line in answer.lines] == [
        ("left", 0),
        ("right", 0),
        ("next", 0),
        ("below", 1),
    ]
    assert answer.lines[1].bbox_px == (200, 12, 260, 32)
    assert (answer.size_px, answer.pages, answer.models) == ((800, 600), 3, ["by-hand"])
    assert reader.asked == [(b"bytes", 2)]


async def test_doubtful_lines_are_left_out() -> None:
    """Unless the caller wants them."""
    reader = ByHand(("maybe", 10, 10, 60), p=0.4)
    assert (await _run(reader, Input(image=source(b"x")))).text == ""
    assert (await _run(reader, Input(image=source(b"x"), min_conf=0.3))).text == "maybe"


async def test_an_image_may_lie_in_the_callers_blobs() -> None:
    """By its key."""
    blobs = FakeBlobs()
    await blobs.put("scan.png", b"stored")
    reader = ByHand()
    await _run(reader, Input(image=ImageSource(blob="scan.png")), blobs=blobs)
    assert reader.asked == [(b"stored", 1)]


async def test_files_over_the_limit_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """In base64 by its length, in the blobs by theirs."""
    monkeypatch.setattr(engine_module, "MAX_BYTES", 100)
    blobs, reader = FakeBlobs(), ByHand()
    await blobs.put("large", bytes(101))
    for image in (source(bytes(104)), ImageSource(blob="large")):
        with pytest.raises(TooLarge):
            await _run(reader, Input(image=image), blobs=blobs)
    assert reader.asked == []


@pytest.mark.parametrize("text", ["not base64!", "ä", "A"])
async def test_broken_base64_is_said(text: str) -> None:
    """As wrong input, not as a wrong image."""
    with pytest.raises(InvalidInput, match="base64"):
        await _run(ByHand(), Input(image=ImageSource(base64=text)))


@pytest.mark.parametrize(
    "fields",
    [
        {"image": {}},
        {"image": {"base64": "", "blob": "x"}},
        {"image": {"blob": "x"}, "page": 0},
        {"image": {"blob": "x"}, "min_conf": 2},
        {"image": {"blob": "x"}, "language": "en"},
    ],
)
def test_wrong_input_is_refused(fields: dict[str, Any]) -> None:
    """One image, pages from 1, no unknown field."""
    with pytest.raises(ValidationError):
        Input.model_validate(fields)


async def test_without_its_model_it_says_so() -> None:
    """No canned answer, and the self-test fails on a reader that reads nothing."""
    ctx = make_context()
    with pytest.raises(ModelUnavailable):
        await OcrEngine(probe=ctx).run(OcrEngine.example, ctx)
    with pytest.raises(Unavailable):
        await OcrEngine(probe=make_context(models={"ocr": ByHand()})).post_swap_test()


@pytest.fixture
async def ctx(models_dir: Path) -> AsyncIterator[EngineContext]:
    """A context with the shipped model."""
    model = await asyncio.to_thread(ocr.load, MODEL, models_dir / MODEL, threads=2, options={})
    yield make_context(models={"ocr": model})
    model.close()


async def _read(ctx: EngineContext, image: Any) -> Output:
    return await OcrEngine(probe=ctx).run(Input(image=source(encoded(image))), ctx)


@pytest.mark.models
async def test_its_own_example_is_read(ctx: EngineContext) -> None:
    """As after a reload."""
    await OcrEngine(probe=ctx).post_swap_test()


@pytest.mark.models
@pytest.mark.parametrize("degrees", [0, 90, 180, 270, 4])
async def test_a_turned_page_is_read(ctx: EngineContext, degrees: int) -> None:
    """To the letter, in order, and each line is where it stands on the page as it was sent."""
    image = page().rotate(-degrees, expand=True, fillcolor=255)
    answer = await _read(ctx, image)
    assert jiwer.cer(TEXT, answer.text) <= 0.02
    assert answer.size_px == image.size
    assert answer.turned_degrees == (-degrees % 360 if degrees % 90 == 0 else 0)
    ink = np.asarray(image) < 128
    for line in answer.lines:
        left, top, right, bottom = line.bbox_px
        assert ink[top:bottom, left:right].any()
    first = np.asarray(drawn([(60, 60, LINES[0])]).rotate(-degrees, expand=True, fillcolor=255)) < 128
    left, top, right, bottom = answer.lines[0].bbox_px
    assert first[top:bottom, left:right].sum() >= 0.98 * first.sum()


@pytest.mark.models
@pytest.mark.parametrize(("ink", "paper"), [(150, 180), (255, 0)], ids=["pale", "white on black"])
async def test_a_pale_or_inverted_page_is_read(ctx: EngineContext, ink: int, paper: int) -> None:
    """Contrast of 12 % suffices."""
    assert jiwer.cer(TEXT, (await _read(ctx, page(ink=ink, paper=paper))).text) <= 0.02


@pytest.mark.models
async def test_columns_are_read_one_after_the_other(ctx: EngineContext) -> None:
    """A heading over both of them comes first."""
    left = [(40, 100 + 45 * n, text) for n, text in enumerate(["Ships came in at dawn", "and left before noon."])]
    right = [(480, 106 + 45 * n, text) for n, text in enumerate(["Ropes were counted by", "the man on the quay."])]
    answer = await _read(ctx, drawn([(120, 30, "The harbour in the morning, every day of the year"), *left, *right]))
    assert " ".join(answer.text.split()) == (
        "The harbour in the morning, every day of the year "
        "Ships came in at dawn and left before noon. Ropes were counted by the man on the quay."
    )


@pytest.mark.models
async def test_an_empty_page_has_no_text(ctx: EngineContext) -> None:
    """Nor is anything made up."""
    answer = await _read(ctx, drawn([]))
    assert (answer.text, answer.lines, answer.turned_degrees) == ("", [], 0)


@pytest.mark.models
async def test_a_damaged_file_is_refused(ctx: EngineContext) -> None:
    """By name, and the next page is read."""
    whole = encoded(page())
    engine = OcrEngine(probe=ctx)
    with pytest.raises(UnreadableMedia):
        await engine.run(Input(image=source(whole[: len(whole) // 2])), ctx)
    assert LINES[0] in (await engine.run(Input(image=source(whole)), ctx)).text
