"""The int8 rewriting of graphs: near the original, the same alone and in any batch, exact at its extremes."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from neuroedge.runtimes.embedding.onnx_int8 import rewrite, stores_int8

Array = NDArray[Any]
RNG = np.random.default_rng(0)


def model(nodes: list[Any], stored: dict[str, Array], *, opset: int = 17) -> Any:
    """A graph from x [n, 64] to y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializer=[numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def run(made: Any, x: Array) -> Array:
    """What ONNX Runtime answers."""
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": x})[0])


@pytest.mark.parametrize("opset", [17, 20])
def test_the_product_stays_near(opset: int) -> None:
    """Within three per cent of the exact one, also when tokens differ a thousandfold in size."""
    weight = RNG.normal(size=(64, 32)).astype(np.float32)
    x = (RNG.normal(size=(50, 64)) * np.geomspace(0.01, 10, 50)[:, None]).astype(np.float32)
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, opset=opset)
    assert rewrite(made) == 1
    error = np.linalg.norm(run(made, x) - x @ weight, axis=1) / np.linalg.norm(x @ weight, axis=1)
    assert error.max() < 0.03


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    """Equal to the last bit, beside a row a thousand times as large."""
    weight = RNG.normal(size=(64, 32)).astype(np.float32)
    x = RNG.normal(size=(9, 64)).astype(np.float32)
    x[4] *= 1000
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight})
    rewrite(made)
    alone = np.concatenate([run(made, row[None]) for row in x])
    assert np.array_equal(run(made, x), alone)


@pytest.mark.parametrize("odd", [False, True])
def test_the_largest_values_do_not_overflow(odd: bool) -> None:
    """All activations and weights at their extremes: sums of two products must still fit the kernel's 16 bits."""
    weight = np.ones((64, 4), np.float32)
    weight[1::2] = -1 if odd else 1
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight})
    rewrite(made)
    (values,) = [numpy_helper.to_array(t) for t in made.graph.initializer if t.name == "w:int8"]
    (scale,) = [numpy_helper.to_array(t) for t in made.graph.initializer if t.name == "w:scale"]
    x = np.stack([np.ones(64), -np.ones(64), np.zeros(64), weight[:, 0]]).astype(np.float32)
    assert run(made, x) == pytest.approx(x @ (values * scale), rel=1e-5, abs=1e-5)
    assert abs(int(values[0, 0])) == (88 if odd else 64)


def test_weights_that_fit_keep_their_value() -> None:
    """Only neighbours of one sign that are large together are made smaller, each by half of what is too much."""
    weight = np.zeros((6, 2), np.float32)
    weight[:, 0] = [88, 88, 88, -88, 88, 10]
    weight[:, 1] = [-88, -45, 0, 88, -60, -68]
    made = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"w": np.vstack([weight, np.zeros((58, 2))]).astype(np.float32)},
    )
    rewrite(made)
    (values,) = [numpy_helper.to_array(t) for t in made.graph.initializer if t.name == "w:int8"]
    assert values[:6].T.tolist() == [[64, 64, 88, -88, 88, 10], [-85, -43, 0, 88, -60, -68]]


@pytest.mark.parametrize("form", ["cast-and-scale", "dequantize", "transposed"])
def test_weights_stored_as_int8_are_found(form: str) -> None:
    """Exports widen them before they multiply; afterwards nothing of the widening is left."""
    stored = RNG.integers(-127, 128, size=(64, 32)).astype(np.int8)
    scale = RNG.uniform(0.001, 0.01, size=32).astype(np.float32)
    values: dict[str, Array] = {"q": stored, "s": scale}
    if form == "cast-and-scale":
        nodes = [
            helper.make_node("Cast", ["q"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["f", "s"], ["w"]),
        ]
    elif form == "dequantize":
        nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=1)]
    else:
        values["q"] = np.ascontiguousarray(stored.T)
        nodes = [
            helper.make_node("DequantizeLinear", ["q", "s"], ["t"], axis=0),
            helper.make_node("Transpose", ["t"], ["w"], perm=[1, 0]),
        ]
    made = model([*nodes, helper.make_node("MatMul", ["x", "w"], ["y"])], values)
    assert stores_int8(made)
    x = RNG.normal(size=(5, 64)).astype(np.float32)
    exact = x @ (stored * scale)
    assert rewrite(made) == 1
    assert np.linalg.norm(run(made, x) - exact) < 0.03 * np.linalg.norm(exact)
    assert not {n.op_type for n in made.graph.node} & {"Cast", "DequantizeLinear", "Transpose", "MatMul"}
    assert "q" not in {tensor.name for tensor in made.graph.initializer}


def test_products_of_two_activations_are_left_alone() -> None:
    """Attention multiplies what was computed; only weights are known beforehand."""
    nodes = [helper.make_node("Transpose", ["x"], ["t"]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    made = model(nodes, {})
    before = onnx.ModelProto()
    before.CopyFrom(made)
    assert rewrite(made) == 0
    assert made == before
    assert not stores_int8(made)
