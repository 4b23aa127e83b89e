"""OCR: the text of a scanned or photographed page, in the order it is read.

Method: lines by differentiable binarization (Liao et al. 2020, "Real-time scene text detection with differentiable
binarization"), characters by a CTC recogniser, order by cuts along white space (`kit/reading_order.py`). Default model:
PP-OCRv6 small (PaddleOCR, Apache-2.0).

Limits: printed text in Chinese, Japanese, English and other languages of Latin script; Greek letters only as in
formulas; no Cyrillic, Arabic, Hebrew, Indic scripts or Korean. Handwriting and formulas are read badly. At most 50
megapixels and 32 MB a file; pages are reduced to 3 megapixels, so that type under 5 pt on a full A4 page is lost. A
page on its side or upside down is turned, skew up to some 10 degrees is borne. Tables come as rows of text, without
their cells. White text on a transparent ground is not seen. Figures are in benchmarks/results.
"""

import asyncio
import base64
import binascii

from pydantic import BaseModel, Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, TooLarge, Unavailable
from neuroedge.contract.models import OCR, Corners, ReadPage
from neuroedge.contract.ports import ImageSource
from neuroedge.kit.reading_order import reading_order

MAX_BYTES = 32 * 1000**2
_EXAMPLE_TEXT = "NeuroEdge 27"
_EXAMPLE_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAANwAAAAwAQAAAABSpynVAAABSklEQVR42u2UMU7DQBBF3yYrEiQTDFUKBC44QMoUCKyciBvECRfI"
    "cagi07nkCBaxBBVyDIVXWnsosg5RItyDmGpWb2bn78xqlPCjrTu02D/8DbDYgy8SusNTE1r5s84GyuE99vPw2p51jkmnhYPRgZJi"
    "QL6BHZhX0dX1OgQTVMfSR0PmMmOmQJo/Q5nbsrY7EhRyE4H3+ggfsUntO0NIXGZaT2LwkwvIgsI3PQC/EWRnQLAAEj/rFxoKIgdz"
    "V8I3uqmWETgYolKAGg1Q6YhEmiaU2yZsvQUhoIEAqR6+O9AVJKibTHswoTq0jSAfCWVHmMFG2+haRwD3wDi/KAdgMA3ss5wsYZyB"
    "TetczHbkIqvyllpd3qWnsUpVTtmVWK1EJO8AWs3UHPwRDEfe8Ei7V6D2d8LbWa9lJ6iWr2nLFnhy3gI9b6fC31lSX9C8fYiko5zz"
    "AAAAAElFTkSuQmCC"
)


class Input(EngineInput):
    """A page."""

    image: ImageSource = Field(description="PNG, JPEG, TIFF, WebP, GIF or BMP: at most 32 MB and 50 megapixels.")
    page: int = Field(default=1, ge=1, le=100_000, description="Which page of a TIFF file of several.")
    min_conf: float = Field(default=0.5, ge=0, le=1, description="Lines read with less confidence are left out.")


class Line(BaseModel):
    """A line of text, or the part of one that stands in a column."""

    text: str = Field(description="What it says.")
    bbox_px: tuple[int, int, int, int] = Field(
        description="Left, top, right, bottom in pixels of the page as its EXIF data turn it, from the upper left."
    )
    conf: float = Field(description="Mean probability of its characters, 0 to 1; not calibrated.")
    paragraph: int = Field(description="Which paragraph it belongs to, from 0.")


class Output(EngineOutput):
    """What the page says."""

    text: str = Field(description="All of it in reading order: rows on lines, a blank line between paragraphs.")
    lines: list[Line] = Field(description="In reading order; none when the page holds no text.")
    size_px: tuple[int, int] = Field(description="Width and height of the page.")
    turned_degrees: int = Field(description="How far clockwise it had to be turned to be read: 0, 90, 180 or 270.")
    pages: int = Field(description="Pages of the file.")


class OcrEngine(Engine[Input, Output]):
    """A picture of a page to its text."""

    name = "ocr"
    title = "Text recognition (OCR)"
    method = "db+ctc+xy-cut"
    example = Input(image=ImageSource(base64=_EXAMPLE_PNG))
    needs = (OCR,)
    timeout_s = 300.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Read one page. Raises UnsupportedMedia, UnreadableMedia, EmptyMedia, TooLarge, InvalidInput, NotFound."""
        data = await bytes_of(payload.image, ctx)
        async with ctx.models.lease(OCR) as model:
            page = await model.read(data, page=payload.page)
            answered_by = model.model_id
        # In a thread: a dense page takes a tenth of a second.
        return await asyncio.to_thread(self._ordered, page, payload.min_conf, answered_by)

    async def post_swap_test(self) -> None:
        """Prove that the example is read."""
        answer = await self.run(self.example, self.probe)
        if answer.text != _EXAMPLE_TEXT:
            raise Unavailable("the ocr engine does not read its own example")

    def _ordered(self, page: ReadPage, min_conf: float, model_id: str) -> Output:
        found = [line for line in page.lines if line.p >= min_conf]
        order = reading_order([line.corners_px for line in found])
        return Output(
            method=self.method,
            models=[model_id],
            text="\n\n".join("\n".join(" ".join(found[i].text for i in row) for row in rows) for rows in order),
            lines=[
                Line(
                    text=found[i].text, bbox_px=_bbox(found[i].corners_px), conf=round(found[i].p, 4), paragraph=number
                )
                for number, rows in enumerate(order)
                for row in rows
                for i in row
            ],
            size_px=(page.width_px, page.height_px),
            turned_degrees=page.turned_degrees,
            pages=page.pages,
        )


async def bytes_of(source: ImageSource, ctx: EngineContext) -> bytes:
    """The file's bytes. Raises InvalidInput, TooLarge, NotFound."""
    if source.blob is None:
        return await asyncio.to_thread(_decoded, source.base64 or "")
    data = await ctx.blobs.get(source.blob)
    _check_size(len(data))
    return data


def _decoded(text: str) -> bytes:
    _check_size(len(text) * 3 // 4 - 2)
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("the image is not valid base64", hint="send the file's bytes in base64") from error


def _check_size(n_bytes: int) -> None:
    if n_bytes > MAX_BYTES:
        raise TooLarge(f"the image is larger than {MAX_BYTES // 1000**2} MB", hint="compress it or scan at 300 dpi")


def _bbox(corners: Corners) -> tuple[int, int, int, int]:
    left, top = corners.min(axis=0).round().astype(int).tolist()
    right, bottom = corners.max(axis=0).round().astype(int).tolist()
    return left, top, right, bottom
