"""Encoders of a few hundred weights, in the formats real ones come in, with answers that can be computed by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

Array = NDArray[Any]
WORDS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "<end>", *(f"w{i}" for i in range(27)))
DIM = 8


def write_tokenizer(folder: Path, *, special: bool = True) -> None:
    """Words w0 … w26; with `special`, [CLS] before and [SEP] after each text."""
    ids = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    tokenizer.save(str(folder / "tokenizer.json"))


def table(seed: int = 0, dim: int = DIM) -> Array:
    """A vector a token."""
    return np.random.default_rng(seed).normal(size=(len(WORDS), dim)).astype(np.float32)


def write_lookup(
    folder: Path,
    vectors: Array,
    *,
    inputs: Mapping[str, Sequence[Any]] | None = None,
    output: str = "last_hidden_state",
    external: bool = False,
) -> None:
    """folder/model.onnx whose token states are rows of `vectors`, plus `position_ids` where it is an input.

    `inputs` beside input_ids: name to dimensions; past_key_values take the type of `vectors`.
    """
    kind = helper.np_dtype_to_tensor_dtype(vectors.dtype)
    given = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["found"])]
    states = "found"
    for name, dims in (inputs or {"attention_mask": ["batch", "tokens"]}).items():
        past = name.startswith("past_key_values")
        given.append(helper.make_tensor_value_info(name, kind if past else TensorProto.INT64, dims))
        if name == "position_ids":
            nodes += [
                helper.make_node("Cast", [name], ["positions"], to=kind),
                helper.make_node("Unsqueeze", ["positions", "last"], ["column"]),
                helper.make_node("Add", [states, "column"], ["moved"]),
            ]
            states = "moved"
    nodes.append(helper.make_node("Identity", [states], [output]))
    save(
        folder,
        nodes,
        given,
        [helper.make_tensor_value_info(output, kind, ["batch", "tokens", vectors.shape[1]])],
        {"table": vectors, "last": np.array([-1], np.int64)},
        external=external,
    )


def save(
    folder: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    stored: Mapping[str, Array],
    *,
    opset: int = 17,
    external: bool = False,
) -> None:
    """Write folder/model.onnx, with `external` its weights beside it in model.onnx_data."""
    initial = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph(list(nodes), "tiny", list(inputs), list(outputs), initializer=initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model)
    if external:
        onnx.save(
            model, folder / "model.onnx", save_as_external_data=True, location="model.onnx_data", size_threshold=0
        )
    else:
        onnx.save(model, folder / "model.onnx")


def unit(vector: Array) -> Array:
    """`vector` of length one."""
    return np.asarray(vector / np.linalg.norm(vector))
