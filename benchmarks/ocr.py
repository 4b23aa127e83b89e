"""Character error rate of the ocr engine on drawn pages with known text, beside Tesseract where it is installed.

    python -m benchmarks.ocr --models DIR [--show]

DIR is the model store. Pages of A4 at 150 dpi are drawn with Pillow's own font and with the DejaVu and Liberation
fonts of the machine, 11 pt, from the sentences of benchmarks/data/knowledge_sample.jsonl (books in the public domain);
then they are spoilt as scanners and cameras do. The noise is the same in every run. scikit-image's page.png, a photo of
a printed page with uneven light, is added where that package is installed; its text was typed off by hand. Case,
punctuation and accents count; white space is one space. Drawn pages are easier than paper: the figures compare, they
promise nothing. Time is that of the processor, of both libraries on one thread, without loading the model. Interval:
bootstrap over pages; the three texts come back under each spoiling, so that pages are not quite independent.
"""

import argparse
import asyncio
import io
import json
import os
import resource
import shutil
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jiwer
import numpy as np

from benchmarks.report import Figure, figure, save
from benchmarks.resampling import interval
from neuroedge.contract.models import ReadPage
from neuroedge.kit.reading_order import reading_order
from neuroedge.runtimes import ocr

MODEL: Final = "pp-ocrv6-small"
SAMPLE: Final = Path(__file__).parent / "data" / "knowledge_sample.jsonl"
A4_150_DPI: Final = (1240, 1754)
SIZE_PX: Final = 23
"""11 pt at 150 dpi."""
SENTENCES: Final = 6
FONTS: Final = (None, "DejaVuSerif.ttf", "LiberationSans-Regular.ttf")
"""None: the one that comes with Pillow."""
PHOTO: Final = """Region-based segmentation
Let us first determine markers of the coins and the background. These markers are pixels that we can label
unambiguously as either object or background. Here, the markers are found at the two extreme parts of the histogram of
grey values: >>> markers = np.zeros_like(coins)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A picture and what it says."""

    kind: str
    picture: bytes
    text: str


def _noisy(image: Any) -> Any:
    from PIL import Image

    noise = np.random.default_rng(4).normal(0, 40, (image.height, image.width))
    return Image.fromarray(np.clip(np.asarray(image, np.float64) + noise, 0, 255).astype(np.uint8))


def _pale(image: Any) -> Any:
    return image.point(lambda value: 170 + value * 30 // 255)


def _jpeg(image: Any) -> Any:
    from PIL import Image

    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=15)
    return Image.open(buffer)


def _blurred(image: Any) -> Any:
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(1.6))


SPOILT: Final[dict[str, Callable[[Any], Any]]] = {
    "clean": lambda image: image,
    "noise": _noisy,
    "pale": _pale,
    "JPEG quality 15": _jpeg,
    "blurred": _blurred,
    "skewed by 3°": lambda image: image.rotate(3, fillcolor=255, expand=True),
    "upside down": lambda image: image.rotate(180),
    "on its side": lambda image: image.rotate(90, expand=True),
    "two columns": lambda image: image,
}


def pages() -> Iterator[Page]:
    """Every kind of spoiling with every font of this machine, then the photo."""
    from PIL import ImageFont

    rows = [json.loads(line)["text"] for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    for number, name in enumerate(FONTS):
        try:
            font = ImageFont.truetype(name, SIZE_PX) if name else ImageFont.load_default(SIZE_PX)
        except OSError:
            print(f"no font {name} on this machine")
            continue
        text = " ".join(rows[SENTENCES * number : SENTENCES * (number + 1)])
        text = text.encode("ascii", "ignore").decode()  # Pillow's own font has no more
        for kind, spoil in SPOILT.items():
            image = _drawn(text, font, columns=2 if kind == "two columns" else 1)
            yield Page(kind=kind, picture=_png(spoil(image)), text=text)
    try:
        import skimage.data
    except ImportError:
        print("scikit-image is not installed: no photo")
        return
    from PIL import Image

    yield Page(kind="photo, scikit-image's page.png", picture=_png(Image.fromarray(skimage.data.page())), text=PHOTO)


def _drawn(text: str, font: Any, *, columns: int) -> Any:
    from PIL import Image, ImageDraw

    image = Image.new("L", A4_150_DPI, 255)
    draw = ImageDraw.Draw(image)
    lines = textwrap.wrap(text, 84 if columns == 1 else 38)
    height = -(-len(lines) // columns)
    for index, line in enumerate(lines):
        column, row = divmod(index, height)
        draw.text((90 + 560 * column, 120 + 34 * row), line, font=font, fill=0)
    return image


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", dpi=(150, 150))
    return buffer.getvalue()


def _said(page: ReadPage) -> str:
    """As the engine gives it, white space aside."""
    lines = [line for line in page.lines if line.p >= 0.5]
    order = reading_order([line.corners_px for line in lines])
    return " ".join(lines[i].text for rows in order for row in rows for i in row)


def _tesseract(picture: bytes) -> str:
    command = ["tesseract", "-", "-", "--psm", "1"]  # with its own detection of orientation and script
    env = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    return subprocess.run(command, input=picture, capture_output=True, check=True, env=env).stdout.decode()


def _cer(text: str, read: str) -> float:
    return float(jiwer.cer(" ".join(text.split()), " ".join(read.split())))


async def measure(models: Path, *, show: bool) -> list[Figure]:
    """Error rates by kind of page, and seconds a page."""
    peer = shutil.which("tesseract")
    if not peer:
        print("Tesseract is not installed: no peer")
    errors: dict[str, dict[str, list[float]]] = {"ocr": {}, "Tesseract": {}}
    seconds: dict[str, list[float]] = {"ocr": [], "Tesseract": []}
    reader = ocr.load(MODEL, models / MODEL, threads=1, options={})
    try:
        for page in pages():
            began = time.process_time()
            read = _said(await reader.read(page.picture))
            seconds["ocr"].append(time.process_time() - began)
            errors["ocr"].setdefault(page.kind, []).append(_cer(page.text, read))
            if show:
                print(f"{page.kind}: {errors['ocr'][page.kind][-1]:.4f}\n{read}\n")
            if peer:
                before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
                other = _tesseract(page.picture)
                seconds["Tesseract"].append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
                errors["Tesseract"].setdefault(page.kind, []).append(_cer(page.text, other))
    finally:
        reader.close()
    return _figures(errors, seconds)


def _figures(errors: dict[str, dict[str, list[float]]], seconds: dict[str, list[float]]) -> list[Figure]:
    figures = []
    for kind, values in errors["ocr"].items():
        peer = errors["Tesseract"].get(kind)
        note = f"Tesseract {np.median(peer):.4f}" if peer else ""
        figures.append(figure(f"character error rate, {kind}", "", values, note=note))
    every = {name: [value for values in kinds.values() for value in values] for name, kinds in errors.items()}
    figures.append(mean_rate(every["ocr"], every["Tesseract"]))
    figures += [figure(f"processor time a page, {name}", "s", taken) for name, taken in seconds.items() if taken]
    return figures


def mean_rate(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """Of all pages, with its interval; judged where the peer read them, too."""
    rates = np.array(ours)
    low, high = interval(len(rates), lambda rows: rates[rows].mean())
    return figure(
        "character error rate, mean of all pages",
        "",
        [float(rates.mean())],
        at_most=float(np.mean(theirs)) if theirs else None,
        note=f"95 % {low:.4f} to {high:.4f}, bootstrap over n = {len(rates)} pages",
    )


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--show", action="store_true", help="print what was read")
    given = parser.parse_args()
    figures = asyncio.run(measure(given.models, show=given.show))
    command = "python -m benchmarks.ocr --models DIR"
    save("ocr", figures, title="Text recognition on drawn pages", command=command)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
