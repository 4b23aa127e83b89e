"""Pictures that are not safe for work, by Yahoo's open_nsfw on ONNX Runtime.

Mahadeokar & Pesavento 2016, "Open sourcing a deep learning solution for detecting NSFW images": a thin ResNet-50,
BSD-2-Clause. A picture is prepared as the reference does, so that its scores are the reference's: 256 × 256 bilinear,
the middle 224 × 224, once through JPEG, blue green red less the mean of its training pictures.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import Floats
from neuroedge.runtimes.image_file import decoding
from neuroedge.runtimes.threaded import Threaded

FILE: Final = "model.onnx"
_RESIZED_PX: Final = 256
_SEEN_PX: Final = 224
_MEAN: Final = np.array([104, 117, 123], np.float32)
"""Blue, green, red."""
_BYTES_A_PICTURE: Final = 4 * 1024**2
"""So many bytes wait at the cost of one more picture."""


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "OpenNsfw":
    """Open folder/model.onnx; knows no options. Raises ModelUnavailable."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    try:
        session = ort.InferenceSession(str(folder / FILE), settings, providers=["CPUExecutionProvider"])
        shape = session.get_inputs()[0].shape
        if list(shape[1:]) != [_SEEN_PX, _SEEN_PX, 3]:
            raise ValueError(f"it reads {shape}, not pictures of {_SEEN_PX} × {_SEEN_PX} × 3")
    except Exception as error:  # ONNX Runtime's own exceptions share no public base
        raise ModelUnavailable(
            f"{model_id} does not load: {error}", hint=f"run `neuroedge models verify {model_id}`"
        ) from error
    return OpenNsfw(model_id, session)


class OpenNsfw(Threaded):
    """ImageSafety over an ONNX Runtime session."""

    def __init__(self, model_id: str, session: Any) -> None:
        super().__init__(model_id)
        self._session = session
        self._input = session.get_inputs()[0].name

    async def p_unsafe(self, image: bytes) -> float:
        """Probability that a picture file shows nudity. Raises what image_file.decoding raises."""
        return await self._in_thread(lambda: self._p_unsafe(image), cost=1 + len(image) / _BYTES_A_PICTURE)

    def close(self) -> None:
        """Wait for the running picture and free the network."""
        super().close()
        self._session = None

    def _p_unsafe(self, image: bytes) -> float:
        pixels = prepared(image)
        self._alive()
        (answer,) = self._session.run(None, {self._input: pixels[None]})
        return float(answer[0, 1])


def prepared(image: bytes) -> Floats:
    """What the network reads of a picture file: float32 [224, 224, 3], as the reference prepares it (no EXIF turn)."""
    from PIL import Image

    edge = (_RESIZED_PX - _SEEN_PX) // 2
    with decoding(image) as opened:
        colours = opened.convert("RGB").resize((_RESIZED_PX, _RESIZED_PX), Image.Resampling.BILINEAR)
    middle = colours.crop((edge, edge, edge + _SEEN_PX, edge + _SEEN_PX))
    with io.BytesIO() as buffer:
        middle.save(buffer, "JPEG")
        buffer.seek(0)
        pixels = np.asarray(Image.open(buffer), np.float32)
    return np.ascontiguousarray(pixels[:, :, ::-1] - _MEAN, np.float32)
