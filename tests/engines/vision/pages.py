"""Pages drawn for tests of OCR: the text is known to the letter."""

import base64
import io
from collections.abc import Sequence
from typing import Any

from neuroedge.contract.ports import ImageSource

LINES = (
    "The harbour master counted ropes and lanterns.",
    "Invoice 2024-118: total 1,249.50 due on 3 March.",
    "When the fog lay thick he rang the bell slowly.",
    "Write to desk@example.org before the ships sail.",
)
TEXT = "\n".join(LINES)


def drawn(
    pieces: Sequence[tuple[int, int, str]], *, size: tuple[int, int] = (900, 320), ink: int = 0, paper: int = 255
) -> Any:
    """A grey Pillow image with texts at places (x, y), by Pillow's own font at 28 pixels."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("L", size, paper)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(28)
    for x, y, text in pieces:
        draw.text((x, y), text, font=font, fill=ink)
    return image


def page(**options: Any) -> Any:
    """The known lines one below the other."""
    return drawn([(60, 60 + 50 * n, line) for n, line in enumerate(LINES)], **options)


def encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def source(data: bytes) -> ImageSource:
    """A file in base64."""
    return ImageSource(base64=base64.b64encode(data).decode())
