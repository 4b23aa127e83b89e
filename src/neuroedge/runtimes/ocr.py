"""Text of pictures by PaddleOCR's networks on ONNX Runtime, through RapidOCR (Apache-2.0).

Lines are found by differentiable binarization (Liao et al. 2020) and read by a CTC recogniser (PP-OCRv6 small). Pages
are reduced to 3 megapixels: an A4 page to about 175 dpi. A page that lies on its side or upside down is turned: the
longest lines are read both ways up, and the better one decides.
"""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import ReadPage, TextLine
from neuroedge.runtimes.image_file import Picture, decode
from neuroedge.runtimes.threaded import Threaded

Pixels = NDArray[np.uint8]
Box = NDArray[np.float32]
Read = tuple[str, float]

_MAX_PIXELS: Final = 3_000_000
_LEAST_SIDE_PX: Final = 736
"""Shorter sides are enlarged, as PaddleOCR does."""
_BYTES_A_PAGE: Final = 4 * 1024**2
"""So many bytes wait at the cost of one more page."""
_MAX_LINES: Final = 3000
_MAX_RATIO: Final = 400
"""Longest line, in times its height; what is longer is a rule or a border."""
_LINE_HEIGHT_PX: Final = 48
_BATCH: Final = 6
_BATCH_COLUMNS: Final = 20_000
"""Pixels of width a batch of lines may take: bounds its memory."""
_SAMPLE: Final = 6
_SURE: Final = 0.85
"""Mean probability above which upright lines need no second look; upside down they give about 0.7."""
_TALL: Final = 1.5
"""Height over width from which the library turns a line by 90 degrees before it is read."""


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "PaddleReader":
    """Open folder/det.onnx and folder/rec.onnx, whose metadata hold its characters; knows no options.

    Raises ModelUnavailable.
    """
    import cv2
    import rapidocr
    from rapidocr.ch_ppocr_det import TextDetector
    from rapidocr.ch_ppocr_rec import TextRecognizer
    from rapidocr.utils.parse_parameters import ParseParams

    logging.getLogger("RapidOCR").setLevel(
        logging.CRITICAL
    )  # it tells each file it opens, through a handler of its own
    cv2.setNumThreads(threads)
    settings = ParseParams.load(Path(rapidocr.__file__).with_name("config.yaml"))
    chosen = {
        "EngineConfig.onnxruntime.intra_op_num_threads": threads,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        "Det.model_path": str(folder / "det.onnx"),
        "Det.limit_type": "max",
        "Det.limit_side_len": 10**6,  # the picture has its size already
        "Det.max_candidates": _MAX_LINES,
        "Rec.model_path": str(folder / "rec.onnx"),
        "Rec.font_path": None,
    }
    settings = ParseParams.update_batch(settings, chosen)
    settings.Det.engine_cfg = settings.Rec.engine_cfg = settings.EngineConfig.onnxruntime
    try:
        return PaddleReader(model_id, TextDetector(settings.Det), TextRecognizer(settings.Rec))
    except Exception as error:  # ONNX Runtime's own exceptions share no public base
        raise ModelUnavailable(
            f"{model_id} does not load: {error}", hint=f"run `neuroedge models verify {model_id}`"
        ) from error


class PaddleReader(Threaded):
    """TextReader over RapidOCR's detector and recogniser."""

    def __init__(self, model_id: str, detector: Any, recogniser: Any) -> None:
        super().__init__(model_id)
        self._detector = detector
        self._recogniser = recogniser

    async def read(self, image: bytes, *, page: int = 1) -> ReadPage:
        """The lines of one page; a cancelled call stops after the batch of lines it is at."""
        stop = threading.Event()
        try:
            cost = 1 + len(image) / _BYTES_A_PAGE
            return await self._in_thread(lambda: self._read(image, page, stop), cost=cost)
        except asyncio.CancelledError:
            stop.set()
            raise

    def close(self) -> None:
        """Wait for the running page and free the networks."""
        super().close()
        self._detector = self._recogniser = None

    def _read(self, image: bytes, page: int, stop: threading.Event) -> ReadPage:
        picture = decode(image, page=page, max_pixels=_MAX_PIXELS, least_side_px=_LEAST_SIDE_PX)
        self._alive()
        pixels = picture.pixels
        boxes = self._find(pixels)
        known = self._sample(pixels, boxes, stop)
        if turns := self._turns(pixels, boxes, known, stop):
            pixels = np.ascontiguousarray(np.rot90(pixels, turns))
            boxes, known = self._find(pixels), {}
        rest = [i for i in range(len(boxes)) if i not in known]
        known |= zip(rest, self._recognise([_crop(pixels, boxes[i]) for i in rest], stop), strict=True)
        return _page(picture, turns, boxes, [known[i] for i in range(len(boxes))])

    def _find(self, pixels: Pixels) -> list[Box]:
        """Corners [4, 2] (x, y) of each line, clockwise from the upper left."""
        boxes = self._detector(pixels).boxes
        self._alive()
        found = [] if boxes is None else [np.asarray(box, np.float32) for box in boxes]
        return [box for box in found if max(_sides(box)) <= _MAX_RATIO * min(_sides(box))]

    def _sample(self, pixels: Pixels, boxes: Sequence[Box], stop: threading.Event) -> dict[int, Read]:
        """What the longest lines say, by index, if the page stands upright or lies on its left side."""
        longest = sorted(range(len(boxes)), key=lambda i: max(_sides(boxes[i])), reverse=True)[:_SAMPLE]
        return dict(zip(longest, self._recognise([_crop(pixels, boxes[i]) for i in longest], stop), strict=True))

    def _turns(self, pixels: Pixels, boxes: Sequence[Box], sample: Mapping[int, Read], stop: threading.Event) -> int:
        """By how many quarters, counterclockwise, the page must be turned to stand upright."""
        tall = [i for i in sample if _is_tall(boxes[i])]
        sideways = 2 * len(tall) > len(sample)
        chosen = tall if sideways else [i for i in sample if i not in tall]
        upright = _certainty([sample[i] for i in chosen])
        if upright < _SURE:
            flipped = [np.ascontiguousarray(_crop(pixels, boxes[i])[::-1, ::-1]) for i in chosen]
            if _certainty(self._recognise(flipped, stop)) > upright:
                return 3 if sideways else 2
        return 1 if sideways else 0

    def _recognise(self, crops: Sequence[Pixels], stop: threading.Event) -> list[Read]:
        """Text and mean probability of each line, in order; lines of like length go together."""
        found: list[Read] = [("", 0.0)] * len(crops)
        waiting = sorted(range(len(crops)), key=lambda i: _columns(crops[i]))
        while waiting and not stop.is_set():
            size = min(_BATCH, max(1, _BATCH_COLUMNS // _columns(crops[waiting[min(_BATCH, len(waiting)) - 1]])))
            batch, waiting = waiting[:size], waiting[size:]
            for index, read in zip(batch, self._batch([crops[i] for i in batch]), strict=True):
                found[index] = read
            self._alive()
        return found

    def _batch(self, crops: Sequence[Pixels]) -> list[Read]:
        from rapidocr.ch_ppocr_rec import TextRecInput

        answer = self._recogniser(TextRecInput(img=list(crops), return_word_box=False))
        return [(text.strip(), float(p)) for text, p in zip(answer.txts, answer.scores, strict=True)]


def _crop(pixels: Pixels, box: Box) -> Pixels:
    """A line cut out and straightened; a tall one also turned by 90 degrees, counterclockwise."""
    from rapidocr.utils.process_img import get_rotate_crop_image

    crop: Pixels = get_rotate_crop_image(pixels, box)
    return crop


def _sides(box: Box) -> tuple[float, float]:
    """Width and height of a line."""
    return float(np.linalg.norm(box[1] - box[0])), float(np.linalg.norm(box[3] - box[0]))


def _is_tall(box: Box) -> bool:
    width, height = _sides(box)
    return height >= _TALL * width


def _columns(crop: Pixels) -> int:
    """Width of a line when it is as high as the recogniser wants it."""
    height, width = crop.shape[:2]
    return int(_LINE_HEIGHT_PX * width // height + 1)


def _certainty(found: Sequence[Read]) -> float:
    """Mean probability of a character."""
    characters = sum(len(text) for text, _ in found)
    return sum(p * len(text) for text, p in found) / characters if characters else 0.0


def _page(picture: Picture, turns: int, boxes: Sequence[Box], found: Sequence[Read]) -> ReadPage:
    lines = [
        TextLine(text=text, p=p, corners_px=picture.original(_turned_back(box, turns, picture.pixels.shape)))
        for box, (text, p) in zip(boxes, found, strict=True)
        if text
    ]
    return ReadPage(
        lines=lines,
        width_px=picture.width_px,
        height_px=picture.height_px,
        turned_degrees=(360 - 90 * turns) % 360,
        pages=picture.pages,
    )


def _turned_back(box: Box, turns: int, shape: Sequence[int]) -> NDArray[np.float64]:
    """Points of a picture turned by `numpy.rot90(…, turns)`, in the picture of `shape` (height, width, …) before."""
    x, y = box[:, 0].astype(np.float64), box[:, 1].astype(np.float64)
    height, width = shape[0], shape[1]
    before = ((x, y), (width - y, x), (width - x, height - y), (y, height - x))[turns]
    return np.stack(before, axis=1)
