"""Patterns of exported graphs that are replaced, and near misses that are not."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from neuroedge.runtimes.embedding.onnx_simplify import drop_unused, simplify


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


def swapped(order: tuple[int, ...] = (0, 2, 1), *, last: tuple[str, str] = ("c3", "c2")) -> Any:
    """The keys of attention, [n, 2, 2, 2] from x [n, 8], with their last two dimensions swapped as torch exports it."""
    ints = {
        "rows": [0, 2, 2, 2],
        "all": [0, 8],
        "left": [-1],
        "lo": [-(2**63)],
        "m2": [-2],
        "m1": [-1],
        "hi": [2**63 - 1],
    }
    made = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "rows"], ["four"]),
            helper.make_node("Transpose", ["four"], ["k"], perm=[0, 2, 1, 3]),
            helper.make_node("Shape", ["k"], ["s"]),
            helper.make_node("Slice", ["s", "lo", "m2"], ["first"]),
            helper.make_node("Slice", ["s", "m2", "m1"], ["c2"]),
            helper.make_node("Slice", ["s", "m1", "hi"], ["c3"]),
            helper.make_node("Concat", ["left", "c2", "c3"], ["flat"], axis=0),
            helper.make_node("Concat", ["first", *last], ["back"], axis=0),
            helper.make_node("Reshape", ["k", "flat"], ["a"]),
            helper.make_node("Transpose", ["a"], ["b"], perm=list(order)),
            helper.make_node("Reshape", ["b", "back"], ["c"]),
            helper.make_node("Reshape", ["c", "all"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
        initializer=[numpy_helper.from_array(np.asarray(value, np.int64), name) for name, value in ints.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_dimensions_swapped_by_way_of_three_are_swapped_at_once() -> None:
    """With the same answer, and without the arithmetic of shapes."""
    made = swapped()
    before = run(made)
    assert simplify(made) == 1
    assert [n.op_type for n in made.graph.node] == ["Reshape", "Transpose", "Transpose", "Reshape"]
    assert np.array_equal(run(made), before)


@pytest.mark.parametrize(
    "made", [swapped((1, 0, 2)), swapped((1, 2, 0)), swapped(last=("c2", "c3")), swapped(last=("c3", "c3"))]
)
def test_other_turns_of_the_dimensions_stay(made: Any) -> None:
    """Another order in between, or another shape afterwards."""
    before = run(made)
    assert simplify(made) == 0
    assert np.array_equal(run(made), before)


def test_what_only_a_branch_reads_stays() -> None:
    """Nodes within an If read names from outside."""
    branch = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["b"])],
        "then",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", 8])],
    )
    made = model(
        [
            helper.make_node("Neg", ["x"], ["a"]),
            helper.make_node("Abs", ["x"], ["unread"]),
            helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.asarray(True))),
            helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
        ]
    )
    drop_unused(made.graph)
    assert [n.op_type for n in made.graph.node] == ["Neg", "Constant", "If"]
