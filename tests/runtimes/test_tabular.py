"""Sessions of organisations' own models: bounded, told apart by their key, closed."""

from collections.abc import AsyncIterator

import numpy as np
import pytest

from neuroedge.contract.errors import ModelFailed
from neuroedge.runtimes.tabular import TabularSessions

pytestmark = pytest.mark.anyio
ROW = {"x": np.array([[1.0]], np.float32)}


def _graph(factor: float) -> bytes:
    """y = factor · x."""
    from onnx import TensorProto, checker, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 1], [factor])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


@pytest.fixture
async def sessions() -> AsyncIterator[TabularSessions]:
    """Two at most."""
    made = TabularSessions(max_sessions=2)
    yield made
    await made.aclose()


async def _run(sessions: TabularSessions, key: str, factor: float) -> tuple[float, bool]:
    """The answer, and whether the graph had to be asked for."""
    asked = False

    async def graph() -> bytes:
        nonlocal asked
        asked = True
        return _graph(factor)

    told = await sessions.run_kept(key, graph, ROW)
    return float(told["y"][0, 0]), asked


async def test_a_session_is_opened_once_and_the_oldest_is_closed(sessions: TabularSessions) -> None:
    """The two used last are kept."""
    assert await _run(sessions, "a/1", 2) == (2.0, True)
    assert await _run(sessions, "a/1", 2) == (2.0, False)
    await _run(sessions, "a/2", 3)
    await _run(sessions, "a/1", 2)
    assert await _run(sessions, "a/3", 4) == (4.0, True)
    assert sessions.kept() == ["a/1", "a/3"]
    assert await _run(sessions, "a/2", 3) == (3.0, True)


async def test_two_organisations_never_share_a_session(sessions: TabularSessions) -> None:
    """The same id of a model, another organisation: another graph."""
    assert await _run(sessions, "a/1", 2) == (2.0, True)
    assert await _run(sessions, "b/1", 5) == (5.0, True)


async def test_a_forgotten_session_is_asked_for_again(sessions: TabularSessions) -> None:
    """So that a deleted model does not answer."""
    await _run(sessions, "a/1", 2)
    sessions.forget("a/1")
    sessions.forget("never there")
    assert sessions.kept() == []


async def test_large_graphs_leave_one() -> None:
    """The bytes count too."""
    sessions = TabularSessions(max_bytes=1)
    await _run(sessions, "a/1", 2)
    await _run(sessions, "a/2", 2)
    assert sessions.kept() == ["a/2"]
    await sessions.aclose()
    assert sessions.kept() == []


async def test_what_is_no_graph_is_an_error_of_the_model(sessions: TabularSessions) -> None:
    """Not a crash."""
    with pytest.raises(ModelFailed, match="does not load"):
        await sessions.run(b"no graph", ROW)
    with pytest.raises(ModelFailed):
        await sessions.run(_graph(1), {"x": np.zeros((1, 3), np.float32)})
