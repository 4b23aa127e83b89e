"""Removes from an exported ONNX graph what costs time on a CPU and changes nothing: patterns ONNX Runtime misses."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_CONTRIB: Final = "com.microsoft"
_RANK: Final = 4
"""Of what attention multiplies: texts, heads, tokens, numbers."""


def simplify(model: Any) -> int:
    """Change `model` (onnx.ModelProto) in place; how many patterns were replaced.

    GELU written out as 0.5 x (1 + erf(x / sqrt 2)) becomes one operator. A guard against softmax of a row that is
    masked throughout (NaN, where there is nothing to attend to) goes: every text has a token. The keys of attention,
    whose last two dimensions torch's exporter swaps by way of three, are transposed at once, and ONNX Runtime then does
    it within the product that follows.
    """
    graph = model.graph
    patterns = _Patterns(graph)
    found = [pair for node in graph.node for find in patterns.all() if (pair := find(node))]
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

    def all(self) -> tuple[Callable[[Any], tuple[Any, Any] | None], ...]:
        """What to look for at each node."""
        return self.gelu, self.guard, self.swap

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

    def swap(self, last: Any) -> tuple[Any, Any] | None:
        """When `last` ends x[a, b, c, d] as [-1, c, d], as [-1, d, c], as [a, b, d, c], the shapes read off x."""
        from onnx import helper

        turned = self._maker(last.input[0], "Transpose") if last.op_type == "Reshape" else None
        flat = self._maker(turned.input[0], "Reshape") if turned is not None and _perm(turned) == [0, 2, 1] else None
        if turned is None or flat is None:
            return None
        x = flat.input[0]
        if len(_perm(self._maker(x, "Transpose"))) != _RANK:
            return None
        if self._shape(flat.input[1], of=x) != [-1, 2, 3] or self._shape(last.input[1], of=x) != [0, 1, 3, 2]:
            return None
        return last, helper.make_node("Transpose", [x], list(last.output), perm=[0, 1, 3, 2])

    def _shape(self, name: str, *, of: str) -> list[int]:
        """Which dimensions of the tensor `of` (rank 4) make up the shape `name`, -1 for what is left; [] for others."""
        joined, dimensions = self._maker(name, "Concat"), list[int]()
        for part in joined.input if joined is not None else ():
            cut = self._maker(part, "Slice")
            if cut is None:
                if self._stored_integers(part) != [-1]:
                    return []
                dimensions.append(-1)
                continue
            shape = self._maker(cut.input[0], "Shape")
            bounds = [self._stored_integers(bound) for bound in cut.input[1:]]
            if shape is None or shape.attribute or shape.input[0] != of or [len(b) for b in bounds] != [1, 1]:
                return []
            dimensions += range(_RANK)[bounds[0][0] : bounds[1][0]]
        return dimensions

    def _maker(self, name: str, op: str) -> Any:
        """The node that makes `name`, if it is an `op`; None for others."""
        maker = self._makers.get(name)
        return maker if maker is not None and maker.op_type == op else None

    def _stored_integers(self, name: str) -> list[int]:
        """A constant vector; [] for what is none."""
        value = self._value(name)
        return [] if value is None or value.ndim != 1 else [int(each) for each in value]

    def _only_reader(self, node: Any, op: str) -> Any:
        """The node that reads `node`'s result, if there is just one and it is an `op`; None for None."""
        readers = [] if node is None else self._readers[node.output[0]]
        return readers[0] if len(readers) == 1 and readers[0].op_type == op else None

    def _has(self, node: Any, value: float) -> bool:
        """Whether one of a node's inputs is the constant `value`."""
        arrays = [self._value(name) for name in node.input]
        return any(a is not None and a.size == 1 and math.isclose(a.item(), value, rel_tol=1e-3) for a in arrays)

    def _value(self, name: str) -> NDArray[Any] | None:
        """The constant `name`, stored with the graph or made by a node; None for others."""
        from onnx import numpy_helper

        maker, tensor = self._maker(name, "Constant"), self._stored.get(name)
        if maker is not None and maker.attribute[0].name == "value":
            tensor = maker.attribute[0].t
        return None if tensor is None else np.asarray(numpy_helper.to_array(tensor))


def _perm(transpose: Any) -> list[int]:
    """The order a Transpose gives the dimensions; [] for None and for its default."""
    attributes = () if transpose is None else transpose.attribute
    return next((list(each.ints) for each in attributes if each.name == "perm"), [])


def drop_unused(graph: Any) -> None:
    """Remove nodes and stored values that nothing reads."""
    nodes = list(graph.node)
    while True:
        read = {name for node in nodes for name in _reads(node)} | {out.name for out in graph.output}
        live = [node for node in nodes if read.intersection(node.output)]
        if len(live) == len(nodes):
            break
        nodes = live
    del graph.node[:]
    graph.node.extend(nodes)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _reads(node: Any) -> Iterator[str]:
    """The names a node reads, in the branches and bodies within it too."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)


def import_contrib(model: Any) -> None:
    """Declare ONNX Runtime's own operators."""
    from onnx import helper

    if not any(opset.domain == _CONTRIB for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
