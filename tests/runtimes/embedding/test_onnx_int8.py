"""The int8 rewriting of graphs: near the original, the same alone and in any batch, exact at its extremes."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from neuroedge.runtimes.embedding import onnx_simplify
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


def test_behind_gelu_no_sizes_are_computed() -> None:
    """It has no large negative values, so the largest value does; rows of negative values only stay near too."""
    weight = RNG.normal(size=(64, 32)).astype(np.float32)
    x = (RNG.normal(size=(50, 64)) * np.geomspace(0.01, 10, 50)[:, None]).astype(np.float32)
    x[20:30] = -np.abs(x[20:30])
    nodes = [
        helper.make_node("Gelu", ["x"], ["a"], domain="com.microsoft"),
        helper.make_node("MatMul", ["a", "w"], ["y"]),
    ]
    made = model(nodes, {"w": weight})
    onnx_simplify.import_contrib(made)
    exact = run(made, x)
    assert rewrite(made) == 1
    assert "Abs" not in {node.op_type for node in made.graph.node}
    assert np.abs(run(made, x) - exact).max() < 0.02 * np.abs(exact).max()
    small = slice(20, 30)
    assert np.abs(run(made, x)[small] - exact[small]).max() < 0.05 * np.abs(exact[small]).max()


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    """Equal to the last bit, beside a row a thousand times as large."""
    weight = RNG.normal(size=(64, 32)).astype(np.float32)
    x = RNG.normal(size=(9, 64)).astype(np.float32)
    x[4] *= 1000
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight})
    rewrite(made)
    alone = np.concatenate([run(made, row[None]) for row in x])
    assert np.array_equal(run(made, x), alone)


@pytest.mark.parametrize("kind", ["equal", "alternating", "random"])
def test_the_largest_values_do_not_overflow(kind: str) -> None:
    """Activations at their extremes, in the weights' own directions: sums of two products must fit 16 bits."""
    weight = {
        "equal": np.ones((64, 8)),
        "alternating": np.tile([[1.0], [-1.0]], (32, 8)),
        "random": RNG.uniform(-1, 1, size=(64, 8)),
    }[kind].astype(np.float32)
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight})
    rewrite(made)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    x = np.concatenate([np.sign(weight.T), -np.sign(weight.T), np.ones((1, 64)), np.zeros((1, 64))]).astype(np.float32)
    assert run(made, x) == pytest.approx(x @ (stored["w:int8"] * stored["w:scale"]), rel=1e-4, abs=1e-4)


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
