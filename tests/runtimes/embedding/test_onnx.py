"""ONNX encoders: what different exports ask for and answer, on graphs with known answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.runtimes.embedding.backend import Backend, open_backend
from tests.runtimes.embedding.tiny_models import DIM, WORDS, save, table, unit, write_lookup, write_tokenizer

IDS = {word: i for i, word in enumerate(WORDS)}


def opened(folder: Path, **options: Any) -> Backend:
    """The encoder in `folder`."""
    return open_backend("m", folder, threads=1, options={"backend": "onnxruntime", **options})


def test_cls_pooling_takes_the_first_token(tmp_path: Path) -> None:
    """As BGE-M3 wants it: the state of [CLS], whatever follows, alone and in a batch."""
    write_tokenizer(tmp_path)
    write_lookup(tmp_path, table())
    encoder = opened(tmp_path, pooling="cls")
    vectors = encoder.forward(encoder.tokenise(["w1", "w2 w3 w4"]))
    assert encoder.dim == DIM
    assert vectors == pytest.approx(np.stack([unit(table()[IDS["[CLS]"]])] * 2), abs=1e-6)


def test_a_qwen_export_gets_positions_and_an_empty_cache(tmp_path: Path) -> None:
    """Last-token pooling over right-padded texts; position_ids count from 0; past_key_values hold no token yet.

    The graph answers table[token] + position, so a wrong position or a state of padding shows in the vector.
    """
    write_tokenizer(tmp_path, special=False)
    cache = ["batch", 2, "past", 4]
    write_lookup(
        tmp_path,
        table().astype(np.float16),
        inputs={
            "attention_mask": ["batch", "total"],
            "position_ids": ["batch", "tokens"],
            "past_key_values.0.key": cache,
            "past_key_values.0.value": cache,
        },
    )
    encoder = opened(tmp_path, pooling="last", append_token="<end>")
    short, long = encoder.forward(encoder.tokenise(["w1", "w2 w3 w4"]))
    end = table().astype(np.float16)[IDS["<end>"]].astype(np.float32)
    assert short == pytest.approx(unit(end + 1), abs=2e-3)
    assert long == pytest.approx(unit(end + 3), abs=2e-3)
    assert short.dtype == np.float32


def test_weights_in_a_file_beside_the_graph_are_found(tmp_path: Path) -> None:
    """Exports over 2 GB keep them in model.onnx_data."""
    write_tokenizer(tmp_path)
    write_lookup(tmp_path, table(), external=True)
    assert (tmp_path / "model.onnx_data").stat().st_size >= table().nbytes
    encoder = opened(tmp_path, pooling="cls")
    assert encoder.forward([[7]])[0] == pytest.approx(unit(table()[7]), abs=1e-6)


def test_fewer_dimensions_are_asked_for(tmp_path: Path) -> None:
    """Matryoshka models allow it; the vector stays of length one."""
    write_tokenizer(tmp_path)
    write_lookup(tmp_path, table())
    encoder = opened(tmp_path, pooling="cls", dims=3)
    assert encoder.dim == 3
    assert encoder.forward([[7]])[0] == pytest.approx(unit(table()[7, :3]), abs=1e-6)


def test_a_graph_that_pools_itself_is_taken_at_its_word(tmp_path: Path) -> None:
    """An output [batch, dim] is the vector; `output` picks one of several."""
    write_tokenizer(tmp_path)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["token_embeddings"]),
        helper.make_node("ReduceMax", ["token_embeddings"], ["sentence_embedding"], axes=[1], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])]
    outputs = [
        helper.make_tensor_value_info("token_embeddings", TensorProto.FLOAT, ["batch", "tokens", DIM]),
        helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", DIM]),
    ]
    save(tmp_path, nodes, inputs, outputs, {"table": table()})
    states = opened(tmp_path, pooling="last").forward([[7, 8]])
    pooled = opened(tmp_path, output="sentence_embedding").forward([[7, 8]])
    assert states[0] == pytest.approx(unit(table()[8]), abs=1e-6)
    assert pooled[0] == pytest.approx(unit(table()[[7, 8]].max(axis=0)), abs=1e-6)


def test_an_output_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With those that are."""
    write_tokenizer(tmp_path)
    write_lookup(tmp_path, table())
    with pytest.raises(ModelUnavailable, match=r"dense_vecs.*last_hidden_state"):
        opened(tmp_path, output="dense_vecs")


def test_a_graph_of_another_kind_is_refused(tmp_path: Path) -> None:
    """An image model has no token ids."""
    write_tokenizer(tmp_path)
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    save(tmp_path, [helper.make_node("Identity", ["pixel_values"], ["logits"])], [pixels], [out], {})
    with pytest.raises(ModelUnavailable, match="pixel_values"):
        opened(tmp_path)


@pytest.mark.parametrize("precision", ["auto", "float32", "int8"])
def test_a_truncated_graph_is_reported_with_the_remedy(tmp_path: Path, precision: str) -> None:
    """Whichever of the libraries reads it first."""
    write_tokenizer(tmp_path)
    write_lookup(tmp_path, table())
    whole = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelUnavailable) as caught:
        opened(tmp_path, precision=precision)
    assert "models verify m" in str(caught.value.hint)


def test_missing_external_weights_are_reported(tmp_path: Path) -> None:
    """Half of a model that was copied by hand."""
    write_tokenizer(tmp_path)
    write_lookup(tmp_path, table(), external=True)
    (tmp_path / "model.onnx_data").unlink()
    with pytest.raises(ModelUnavailable, match="does not load"):
        opened(tmp_path)
