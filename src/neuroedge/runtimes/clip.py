"""Pictures and texts in one space: CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023) as pairs of ONNX graphs.

A folder as `optimum` and Transformers.js export it: vision_model.onnx (`pixel_values` to `image_embeds` or
`pooler_output`), text_model.onnx (`input_ids`, perhaps `attention_mask`, to `text_embeds` or `pooler_output`),
tokenizer.json and preprocessor_config.json (size, crop, mean, deviation). No such model comes with NeuroEdge: an
operator names one in models.toml of the data directory.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import Floats
from neuroedge.runtimes.image_file import decoding, rgb
from neuroedge.runtimes.threaded import Threaded

VISION, TEXT, TOKENIZER, PREPROCESSOR = (
    "vision_model.onnx",
    "text_model.onnx",
    "tokenizer.json",
    "preprocessor_config.json",
)
_OUTPUTS: Final = ("image_embeds", "text_embeds", "pooler_output")
"""Names of a graph's vector, the projected one first."""
_BATCH: Final = 8


class Options(BaseModel):
    """Options of a catalogue entry."""

    model_config = ConfigDict(extra="ignore")

    kind: Literal["clip", "siglip"] = "clip"
    logit_scale: float = Field(default=100.0, gt=0)
    """Learnt temperature, as a factor of the cosine."""
    logit_bias: float = 0.0
    max_tokens: int = Field(default=77, ge=2, le=512)
    pad_to_max: bool | None = None
    """Whether texts are padded to `max_tokens`; None: for siglip, which was trained so."""


class Preparation(BaseModel):
    """What preprocessor_config.json says of pictures."""

    model_config = ConfigDict(extra="ignore")

    size: dict[str, int] | int
    crop_size: dict[str, int] | int | None = None
    do_center_crop: bool = False
    resample: int = 3
    rescale_factor: float = 1 / 255
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]

    def prepared(self, image: bytes) -> Floats:
        """Float32 [3, height, width] of a picture file. Raises what image_file.decoding raises."""
        from PIL import Image, ImageOps

        with decoding(image) as opened:
            opened.load()
            ImageOps.exif_transpose(opened, in_place=True)
            seen = rgb(opened).resize(self._sides(opened.size), Image.Resampling(self.resample))
        if self.do_center_crop:
            height, width = _height_width(self.crop_size or self.size)
            left, top = (seen.width - width) // 2, (seen.height - height) // 2
            seen = seen.crop((left, top, left + width, top + height))
        scaled = np.asarray(seen, np.float32) * np.float32(self.rescale_factor)
        normal = (scaled - np.array(self.image_mean, np.float32)) / np.array(self.image_std, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1), np.float32)

    def _sides(self, before: tuple[int, int]) -> tuple[int, int]:
        """Width and height a picture is brought to before it is cropped."""
        shortest = self.size if isinstance(self.size, int) else self.size.get("shortest_edge")
        if shortest is None or not self.do_center_crop:
            height, width = _height_width(self.size)
            return width, height
        # A picture a thousand times as long as high would become a huge strip, of which the middle is kept.
        scale = shortest / min(before)
        longest = int(shortest * 100)
        return min(longest, max(shortest, int(before[0] * scale))), min(longest, max(shortest, int(before[1] * scale)))


def _height_width(size: dict[str, int] | int) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if "shortest_edge" in size:
        return size["shortest_edge"], size["shortest_edge"]
    return size["height"], size["width"]


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "ClipEncoder":
    """Open both graphs, the tokenizer and the preparation of pictures; `options`: see Options. Raises
    ModelUnavailable naming the file."""
    hint = f"run `neuroedge models verify {model_id}`"
    missing = [name for name in (VISION, TEXT, TOKENIZER, PREPROCESSOR) if not (folder / name).is_file()]
    if missing:
        raise ModelUnavailable(f"{model_id}: {', '.join(missing)} is missing", hint=hint)
    try:
        chosen = Options.model_validate(dict(options))
        preparation = Preparation.model_validate(json.loads((folder / PREPROCESSOR).read_text()))
    except (ValidationError, ValueError) as error:
        raise ModelUnavailable(f"{model_id}: its options or {PREPROCESSOR} are wrong: {error}", hint=hint) from error
    try:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        vision, text = (_Graph(folder / name, threads=threads) for name in (VISION, TEXT))
        return ClipEncoder(model_id, vision, text, tokenizer, preparation, chosen)
    except Exception as error:  # both libraries raise exceptions of their own without a public base
        raise ModelUnavailable(f"{model_id} does not load: {error}", hint=hint) from error


class _Graph:
    """One of the two networks."""

    def __init__(self, path: Path, *, threads: int) -> None:
        import onnxruntime as ort

        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        self._session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        self.inputs = [found.name for found in self._session.get_inputs()]
        outputs = [found.name for found in self._session.get_outputs()]
        named = [name for name in _OUTPUTS if name in outputs]
        if not named:
            raise ValueError(f"{path.name} gives {outputs}, none of {list(_OUTPUTS)}")
        self._output = named[0]

    def vectors(self, **given: Any) -> Floats:
        """L2-normalised rows."""
        (rows,) = self._session.run([self._output], {name: given[name] for name in self.inputs})
        unit: Floats = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)
        return unit


class ClipEncoder(Threaded):
    """ImageTextEncoder over two ONNX graphs."""

    def __init__(
        self, model_id: str, vision: _Graph, text: _Graph, tokenizer: Any, preparation: Preparation, options: Options
    ) -> None:
        super().__init__(model_id)
        self.method = options.kind
        self.max_tokens = options.max_tokens
        self._vision, self._text = vision, text
        self._preparation = preparation
        self._options = options
        self._pad = int((tokenizer.padding or {}).get("pad_id", 0))
        tokenizer.no_padding()
        tokenizer.enable_truncation(options.max_tokens)
        self._tokenizer = tokenizer
        self.dim = self._texts(["a"]).shape[1]

    async def encode_images(self, images: Sequence[bytes]) -> Floats:
        """L2-normalised vectors [len(images), dim] of picture files. Raises what image_file.decoding raises."""
        return await self._in_thread(lambda: self._images(images), cost=len(images))

    async def encode_texts(self, texts: Sequence[str]) -> Floats:
        """L2-normalised vectors [len(texts), dim]."""
        return await self._in_thread(lambda: self._texts(texts), cost=max(1.0, len(texts) / _BATCH))

    def probabilities(self, cosines: Floats) -> Floats:
        """Softmax of the scaled cosines for clip, a sigmoid of each for siglip."""
        logits = self._options.logit_scale * cosines.astype(np.float64) + self._options.logit_bias
        if self.method == "siglip":
            return np.asarray(1 / (1 + np.exp(-np.clip(logits, -500, 500))), np.float32)
        shifted = np.exp(logits - logits.max())
        return np.asarray(shifted / shifted.sum(), np.float32)

    def close(self) -> None:
        """Wait for the running batch and free the networks."""
        super().close()
        del self._vision, self._text

    def _images(self, images: Sequence[bytes]) -> Floats:
        found = []
        for image in images:  # one by one: a decoded picture may be large
            found.append(self._vision.vectors(pixel_values=self._preparation.prepared(image)[None]))
            self._alive()
        return np.concatenate(found)

    def _texts(self, texts: Sequence[str]) -> Floats:
        found = []
        for start in range(0, len(texts), _BATCH):
            ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts[start : start + _BATCH]))]
            padded = self._options.pad_to_max if self._options.pad_to_max is not None else self.method == "siglip"
            width = self.max_tokens if padded else max(1, *(len(row) for row in ids))
            input_ids = np.full((len(ids), width), self._pad, np.int64)
            mask = np.zeros((len(ids), width), np.int64)
            for row, tokens in enumerate(ids):
                input_ids[row, : len(tokens)] = tokens
                mask[row, : len(tokens)] = 1
            found.append(self._text.vectors(input_ids=input_ids, attention_mask=mask))
        return np.concatenate(found)
