"""Patterns of exported graphs that are replaced, and near misses that are not."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from neuroedge.runtimes.embedding.onnx_simplify import simplify


def model(nodes: list[Any], **stored: float) -> Any:
    """A graph from x [n, 8] to y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
        initializer=[numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(made: Any) -> NDArray[Any]:
    """The answer to a fixed input."""
    x = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": x})[0])


def gelu() -> Any:
    """GELU as exporters write it out."""
    return model(
        [
            helper.make_node("Div", ["x", "root"], ["a"]),
            helper.make_node("Erf", ["a"], ["b"]),
            helper.make_node("Add", ["b", "one"], ["c"]),
            helper.make_node("Mul", ["half", "c"], ["d"]),
            helper.make_node("Mul", ["x", "d"], ["y"]),
        ],
        root=2**0.5,
        one=1.0,
        half=0.5,
    )


def test_gelu_becomes_one_operator() -> None:
    """With the same answer."""
    made = gelu()
    before = run(made)
    assert simplify(made) == 1
    assert [n.op_type for n in made.graph.node] == ["Gelu"]
    assert run(made) == pytest.approx(before, abs=1e-6)


def test_another_use_of_the_error_function_stays() -> None:
    """x * erf is no GELU."""
    made = model([helper.make_node("Erf", ["x"], ["a"]), helper.make_node("Mul", ["x", "a"], ["y"])])
    assert simplify(made) == 0
    assert [n.op_type for n in made.graph.node] == ["Erf", "Mul"]


@pytest.mark.parametrize(("name", "value"), [("root", 2.0), ("one", 2.0), ("half", 0.25)])
def test_the_same_shape_with_other_constants_stays(name: str, value: float) -> None:
    """The constants make it GELU."""
    made = gelu()
    for tensor in made.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, np.float32), name))
    assert simplify(made) == 0


def test_a_guard_against_rows_masked_throughout_goes() -> None:
    """Every text has a token, so softmax never divides by nothing."""
    made = model(
        [
            helper.make_node("Softmax", ["x"], ["s"]),
            helper.make_node("IsNaN", ["s"], ["n"]),
            helper.make_node("Where", ["n", "zero", "s"], ["y"]),
        ],
        zero=0.0,
    )
    before = run(made)
    assert simplify(made) == 1
    assert "IsNaN" not in {n.op_type for n in made.graph.node}
    assert np.array_equal(run(made), before)
