"""Removes from an exported ONNX graph what costs time on a CPU and changes nothing: patterns ONNX Runtime misses."""

import math
from collections import defaultdict
from typing import Any, Final

_CONTRIB: Final = "com.microsoft"


def simplify(model: Any) -> int:
    """Change `model` (onnx.ModelProto) in place; how many patterns were replaced.

    GELU written out as 0.5 x (1 + erf(x / sqrt 2)) becomes one operator. A guard against softmax of a row that is
    masked throughout (NaN, where there is nothing to attend to) goes: every text has a token.
    """
    graph = model.graph
    patterns = _Patterns(graph)
    found = [pair for node in graph.node if (pair := patterns.gelu(node) or patterns.guard(node))]
    if not found:
        return 0
    # The pattern's last node is replaced; the others fall with what nothing reads any more.
    instead = {last.output[0]: new for last, new in found}
    nodes = [instead.get(node.output[0], node) for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(graph)
    import_contrib(model)
    return len(found)


class _Patterns:
    """Finds (last node of a pattern, node to stand for it)."""

    def __init__(self, graph: Any) -> None:
        self._readers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._readers[name].append(node)
        self._makers = {name: node for node in graph.node for name in node.output}
        self._stored = {tensor.name: tensor for tensor in graph.initializer}

    def gelu(self, erf: Any) -> tuple[Any, Any] | None:
        """When `erf` is the heart of x / sqrt 2, erf, + 1, * 0.5, * x."""
        from onnx import helper

        divided = self._makers.get(erf.input[0]) if erf.op_type == "Erf" else None
        if divided is None or divided.op_type != "Div" or not self._has(divided, math.sqrt(2)):
            return None
        added = self._only_reader(erf, "Add")
        halved = self._only_reader(added, "Mul")
        last = self._only_reader(halved, "Mul")
        if last is None or divided.input[0] not in last.input or not self._has(added, 1) or not self._has(halved, 0.5):
            return None
        return last, helper.make_node("Gelu", [divided.input[0]], list(last.output), domain=_CONTRIB)

    def guard(self, isnan: Any) -> tuple[Any, Any] | None:
        """When `isnan` guards a softmax."""
        from onnx import helper

        made_by = self._makers.get(isnan.input[0]) if isnan.op_type == "IsNaN" else None
        where = self._only_reader(isnan, "Where")
        if made_by is None or made_by.op_type != "Softmax" or where is None or where.input[2] != isnan.input[0]:
            return None
        return where, helper.make_node("Identity", [isnan.input[0]], list(where.output))

    def _only_reader(self, node: Any, op: str) -> Any:
        """The node that reads `node`'s result, if there is just one and it is an `op`; None for None."""
        readers = [] if node is None else self._readers[node.output[0]]
        return readers[0] if len(readers) == 1 and readers[0].op_type == op else None

    def _has(self, node: Any, value: float) -> bool:
        """Whether one of a node's inputs is the constant `value`."""
        from onnx import numpy_helper

        tensors = [self._stored[name] for name in node.input if name in self._stored]
        makers = [self._makers[name] for name in node.input if name in self._makers]
        tensors += [
            maker.attribute[0].t
            for maker in makers
            if maker.op_type == "Constant" and maker.attribute[0].name == "value"
        ]
        arrays = [numpy_helper.to_array(tensor) for tensor in tensors]
        return any(array.size == 1 and math.isclose(array.item(), value, rel_tol=1e-3) for array in arrays)


def drop_unused(graph: Any) -> None:
    """Remove nodes and stored values that nothing reads."""
    nodes = list(graph.node)
    while True:
        read = {name for node in nodes for name in node.input} | {out.name for out in graph.output}
        live = [node for node in nodes if read.intersection(node.output)]
        if len(live) == len(nodes):
            break
        nodes = live
    del graph.node[:]
    graph.node.extend(nodes)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def import_contrib(model: Any) -> None:
    """Declare ONNX Runtime's own operators."""
    from onnx import helper

    if not any(opset.domain == _CONTRIB for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
