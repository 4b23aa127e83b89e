"""CLIP and SigLIP by ONNX: tiny graphs of the format that exporters write, whose vectors are known by hand."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neuroedge.contract.errors import ModelUnavailable, UnreadableMedia
from neuroedge.runtimes import clip
from tests.engines.vision import pages

pytestmark = pytest.mark.anyio
WORDS = ("<pad>", "<unk>", "red", "green", "blue", "a", "thing")
SIDE = 4


def write_model(
    folder: Path, *, outputs: tuple[str, str] = ("image_embeds", "text_embeds"), **preparation: Any
) -> Path:
    """A model that sees the mean colour, and reads the words red, green and blue."""
    from onnx import TensorProto, helper, numpy_helper, save_model
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir(exist_ok=True)
    image, text = outputs
    mean = helper.make_node("ReduceMean", ["pixel_values"], [image], axes=[2, 3], keepdims=0)
    shape: list[Any] = ["n", 3, SIDE, SIDE]
    vision = helper.make_graph(
        [mean],
        "vision",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(image, TensorProto.FLOAT, ["n", 3])],
    )
    table = np.zeros((len(WORDS), 3), np.float32)
    table[2:5] = np.eye(3)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["states", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "second"], [text], keepdims=0),
    ]
    words = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info(n, TensorProto.INT64, ["n", "t"]) for n in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info(text, TensorProto.FLOAT, ["n", 3])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([2], np.int64), "last"),
            numpy_helper.from_array(np.array([1], np.int64), "second"),
        ],
    )
    for name, graph in ((clip.VISION, vision), (clip.TEXT, words)):
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        save_model(model, folder / name)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / clip.TOKENIZER))
    said = {"size": {"height": SIDE, "width": SIDE}, "image_mean": [0, 0, 0], "image_std": [1, 1, 1], **preparation}
    (folder / clip.PREPROCESSOR).write_text(json.dumps(said))
    return folder


def opened(folder: Path, **options: Any) -> clip.ClipEncoder:
    """The encoder of a folder."""
    chosen: Mapping[str, Any] = {"logit_scale": 10.0, **options}
    return clip.load("tiny-clip", folder, threads=1, options=chosen)


def plain(colour: str, size: tuple[int, int] = (30, 20)) -> bytes:
    """A picture of one colour."""
    return pages.encoded(Image.new("RGB", size, colour))


@pytest.mark.parametrize("outputs", [("image_embeds", "text_embeds"), ("pooler_output", "pooler_output")])
async def test_a_picture_is_near_the_word_for_it(tmp_path: Path, outputs: tuple[str, str]) -> None:
    """Vectors of both graphs lie in one space, L2-normalised; CLIP's chances sum to 1."""
    encoder = opened(write_model(tmp_path / "m", outputs=outputs))
    try:
        pictures = await encoder.encode_images([plain("red"), plain("#000080")])
        texts = await encoder.encode_texts(["a red thing", "green", "a blue thing"])
        assert (encoder.dim, encoder.method) == (3, "clip")
        assert np.allclose(np.linalg.norm(pictures, axis=1), 1)
        assert np.allclose(pictures @ texts.T, [[1, 0, 0], [0, 0, 1]], atol=1e-5)
        chances = encoder.probabilities(texts @ pictures[0])
        assert chances.sum() == pytest.approx(1)
        assert chances[0] == pytest.approx(np.e**10 / (np.e**10 + 2), abs=1e-5)
    finally:
        encoder.close()


async def test_siglips_chances_stand_each_for_itself(tmp_path: Path) -> None:
    """A sigmoid with the learnt scale and bias; texts padded to one length give the same vectors."""
    encoder = opened(write_model(tmp_path / "m"), kind="siglip", logit_bias=-5.0, max_tokens=16)
    try:
        assert encoder.probabilities(np.array([1.0, 0.0])) == pytest.approx([1 / (1 + np.e**-5), 1 / (1 + np.e**5)])
        assert np.allclose(await encoder.encode_texts(["red thing"]), [[1, 0, 0]])
    finally:
        encoder.close()


async def test_long_texts_are_cut_and_many_are_answered_in_order(tmp_path: Path) -> None:
    """What lies beyond max_tokens is not read; batches keep the order."""
    encoder = opened(write_model(tmp_path / "m"), max_tokens=3)
    try:
        cut, red = await encoder.encode_texts(["red red red blue", "red"])
        assert np.allclose(cut, red)
        many = await encoder.encode_texts(["red", "green", "blue"] * 7)
        assert np.allclose(many, np.tile(np.eye(3), (7, 1)))
    finally:
        encoder.close()


@pytest.mark.parametrize("size", [(400, 40), (40, 400), (1, 1), (3000, 1)])
async def test_the_middle_of_a_picture_is_seen(tmp_path: Path, size: tuple[int, int]) -> None:
    """Brought to size by its shorter side and cropped, whatever its shape: the middle's colour decides."""
    preparation: dict[str, Any] = {
        "size": {"shortest_edge": SIDE},
        "crop_size": SIDE,
        "do_center_crop": True,
        "resample": 2,
    }
    encoder = opened(write_model(tmp_path / "m", **preparation))
    image = Image.new("RGB", size, "red")
    width, height = (side // 4 if side == 400 else side for side in size)  # a band across the longer side
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    image.paste((0, 0, 255), (left, top, left + width, top + height))
    try:
        (vector,) = await encoder.encode_images([pages.encoded(image)])
        assert vector == pytest.approx([0, 0, 1], abs=0.01)
    finally:
        encoder.close()


async def test_a_broken_picture_is_the_callers_fault(tmp_path: Path) -> None:
    """UnreadableMedia, not ModelFailed."""
    encoder = opened(write_model(tmp_path / "m"))
    try:
        with pytest.raises(UnreadableMedia):
            await encoder.encode_images([plain("red")[:50]])
    finally:
        encoder.close()


@pytest.mark.parametrize("name", [clip.VISION, clip.TEXT, clip.TOKENIZER, clip.PREPROCESSOR])
@pytest.mark.parametrize("content", [None, b"{"])
def test_a_missing_or_broken_file_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    """With the command that mends it."""
    folder = write_model(tmp_path / "m")
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(ModelUnavailable) as refused:
        opened(folder)
    assert "neuroedge models verify tiny-clip" in str(refused.value.hint)


def test_a_graph_without_a_known_vector_is_refused(tmp_path: Path) -> None:
    """It says which outputs it found."""
    with pytest.raises(ModelUnavailable, match="last_hidden_state"):
        opened(write_model(tmp_path / "m", outputs=("last_hidden_state", "text_embeds")))
