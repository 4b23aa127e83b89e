"""Rewrites an encoder's ONNX graph so that its weight matrices multiply in int8, each token with its own scale.

Weights are symmetric integers with a scale a column; activations are quantised while they are computed, with one scale
a token (LLM.int8(), Dettmers et al. 2022; ZeroQuant, Yao et al. 2022). ONNX Runtime's own dynamic quantisation takes
one scale for the whole batch, so that a text's vector depends on its neighbours (by up to 0.04 where measured); with
a scale a token and exact integer sums a text gets the same vector alone and in any batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from neuroedge.runtimes.embedding.onnx_simplify import drop_unused, import_contrib

Array = NDArray[Any]
_CONTRIB: Final = "com.microsoft"
_ZERO: Final = 128
"""Zero of the activations: they are uint8, symmetric around it, because that is what the fast kernels take."""
_LARGEST: Final = 127
"""Of an activation, from its zero."""
_GELU_DEPTH: Final = 0.17
"""GELU is nowhere below -0.16998, so that its largest value tells its largest size. Where no value of a token is above
it, numbers are rounded to 0.17 / 127, however small they are."""
_LARGEST_WEIGHTS: Final = (64, 80, 96)
"""Of a column, whichever loses least: large ones round finely, but more pairs of neighbours must be made smaller."""
_LARGEST_PAIR: Final = 128
"""What two neighbouring weights of one sign may sum to: AVX2 adds the products of neighbours in 16 bits, and 255 * 128
is the most that fits. Held on processors with wider sums too, so that vectors made on one machine can be searched on
another."""


def stores_int8(model: Any) -> bool:
    """Whether the model's weight matrices are stored as integers of eight bits."""
    from onnx import TensorProto

    kinds = (TensorProto.INT8, TensorProto.UINT8)
    return any(tensor.data_type in kinds and len(tensor.dims) == 2 for tensor in model.graph.initializer)


def rewrite(model: Any) -> int:
    """Change `model` (onnx.ModelProto) in place; how many multiplications were made int8."""
    return _Rewriter(model).run()


@dataclass
class _Rewriter:
    model: Any
    changed: int = 0
    _weights: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Per weight: the names of its int8 values and scales."""
    _activations: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Per activation: the names of its uint8 values and scales. Query, key and value share one."""

    def run(self) -> int:
        graph = self.model.graph
        self._initial = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        self._opset = next(o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx"))
        nodes = [new for node in graph.node for new in self._replace(node)]
        if self.changed:
            del graph.node[:]
            graph.node.extend(nodes)
            drop_unused(graph)
            import_contrib(self.model)
        return self.changed

    def _replace(self, node: Any) -> Iterator[Any]:
        if node.op_type != "MatMul" or node.domain not in ("", "ai.onnx"):
            yield node
            return
        x, weight_name = node.input
        weight = self._constant(weight_name)
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
            yield node
            return
        from onnx import helper

        if x not in self._activations:
            yield from self._quantise(x)
        values, scales = self._activations[x]
        weights, weight_scales = self._weight(weight_name, weight)
        raw = f"{node.output[0]}:raw"
        yield helper.make_node(
            "MatMulIntegerToFloat",
            [
                values,
                weights,
                self._add("int8:one", np.float32(1)),
                weight_scales,
                self._add("int8:zero", np.uint8(_ZERO)),
            ],
            [raw],
            domain=_CONTRIB,
        )
        yield helper.make_node("Mul", [raw, scales], list(node.output), name=node.name)
        self.changed += 1

    def _quantise(self, x: str) -> Iterator[Any]:
        """Nodes from `x` [..., k] to uint8 values [..., k] and one scale a token [..., 1]."""
        from onnx import helper

        def node(op: str, inputs: list[str], result: str, **attributes: Any) -> Any:
            return helper.make_node(op, inputs, [f"{x}:{result}"], **attributes)

        one, zero = self._add("int8:one", np.float32(1)), self._add("int8:zero", np.uint8(_ZERO))
        step = self._add("int8:step", np.float32(1 / _LARGEST))
        maker = self._makers.get(x)
        if maker is not None and maker.op_type == "Gelu":
            size, least = x, self._add("int8:least-gelu", np.float32(_GELU_DEPTH))
        else:
            size, least = f"{x}:abs", self._add("int8:least", np.float32(1e-12))
            yield node("Abs", [x], "abs")
        if self._opset >= 18:
            axes = self._add("int8:axes", np.array([-1], np.int64))
            yield node("ReduceMax", [size, axes], "max", keepdims=1)
        else:
            yield node("ReduceMax", [size], "max", axes=[-1], keepdims=1)
        yield node("Max", [f"{x}:max", least], "peak")
        yield node("Mul", [f"{x}:peak", step], "scale")
        # Two passes (reciprocal of the few, product of the many) are faster than one of divisions.
        yield node("Reciprocal", [f"{x}:scale"], "inverse")
        yield node("Mul", [x, f"{x}:inverse"], "scaled")
        yield node("QuantizeLinear", [f"{x}:scaled", one, zero], "int8")
        self._activations[x] = f"{x}:int8", f"{x}:scale"

    def _weight(self, name: str, weight: Array) -> tuple[str, str]:
        if name not in self._weights:
            values, scale = _quantised(weight)
            self._weights[name] = self._add(f"{name}:int8", values), self._add(f"{name}:scale", scale)
        return self._weights[name]

    def _add(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if name not in self._initial:
            tensor = numpy_helper.from_array(np.asarray(value), name)
            self._initial[name] = tensor
            self.model.graph.initializer.append(tensor)
        return name

    def _constant(self, name: str) -> Array | None:
        """The value of `name` where it is stored, or made from stored values by widening or transposing; else None."""
        from onnx import helper, numpy_helper

        if name in self._initial:
            return np.asarray(numpy_helper.to_array(self._initial[name]))
        node = self._makers.get(name)
        if node is None or node.op_type not in ("Cast", "Mul", "Transpose", "DequantizeLinear"):
            return None
        inputs = [self._constant(i) for i in node.input]
        if any(i is None for i in inputs):
            return None
        values: list[Array] = [i for i in inputs if i is not None]
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Cast":
            return values[0].astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))
        if node.op_type == "Mul":
            return np.asarray(values[0] * values[1])
        if node.op_type == "Transpose":
            return np.transpose(values[0], attributes.get("perm"))
        return _dequantised(values, axis=int(attributes.get("axis", 1)))


def _quantised(weight: Array) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights [k, n] as whole numbers with a scale a column [n]."""
    values = np.zeros(weight.shape, np.int8)
    scale = np.ones(weight.shape[1], np.float32)
    least = np.full(weight.shape[1], np.inf)
    peak = np.abs(weight).max(axis=0)
    for largest in _LARGEST_WEIGHTS:
        tried = np.where(peak > 0, peak / largest, 1.0).astype(np.float32)
        fitting = _fitting(np.rint(weight / tried).astype(np.int16))
        error = np.square(fitting * tried - weight).sum(axis=0)
        better = error < least
        values[:, better], scale[better], least[better] = fitting[:, better], tried[better], error[better]
    return values, scale


def _fitting(values: NDArray[np.int16]) -> NDArray[np.int8]:
    """Whole-numbered weights [k, n], those pairs made smaller that could overflow (rows 0 and 1, 2 and 3 …)."""
    fitting = values.copy()
    even, odd = fitting[0 : len(values) - 1 : 2], fitting[1::2]
    excess = np.where(even * odd > 0, np.abs(even + odd) - _LARGEST_PAIR, 0).clip(min=0)
    sign = np.sign(even)
    even -= sign * (excess - excess // 2)
    odd -= sign * (excess // 2)
    return fitting.astype(np.int8)


def _dequantised(values: list[Array], *, axis: int) -> Array:
    """DequantizeLinear of stored weights, with one scale or one a column or row."""
    stored, scale = values[0].astype(np.float32), values[1]
    zero = values[2].astype(np.float32) if len(values) > 2 else np.zeros_like(scale)
    if scale.ndim == 1:
        shape = [1] * stored.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return np.asarray((stored - zero) * scale, scale.dtype)
