"""Half-precision graphs: products in f16 or bf16, what they would spoil in float32.

TensorRT 11 has no precision flags: a network computes in the types that its graph says.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from build.numerics import FLOAT32_OPS
from giqa.precision import BOUNDS, Precision

_BF16_OPSET: Final = 22
"""First opset whose convolutions take bfloat16."""
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")
_PRODUCTS = ("Conv", "Gemm", "MatMul")


def to_half(model: onnx.ModelProto, half: Precision, *, emulate: bool = False) -> None:
    """Turn a float32 graph into a half-precision one, in place.

    Products (`Conv`, `Gemm`, `MatMul`) take and give halves; `build.numerics.FLOAT32_OPS` take and
    give float32; what was quantized comes back in halves; every other operator stays in half
    precision if all that it is given is, and else in float32. Inputs and outputs of the graph keep
    their types.

    Args:
        model: float32, weights unpacked, in topological order.
        half: `f16` or `bf16`.
        emulate: stay in float32 and round to halves where the half-precision graph would. ONNX
            Runtime's CPU kernels compute an f16 graph in float32, unrounded, so running that
            says nothing of a GPU; this does.

    Raises:
        ValueError: the graph has subgraphs.
    """
    _Halving(model, half, emulate).run()
    if half == "bf16" and not emulate:
        for opset in model.opset_import:
            if opset.domain == "":
                opset.version = max(opset.version, _BF16_OPSET)
    onnx.checker.check_model(model)


class _Halving:
    def __init__(self, model: onnx.ModelProto, half: Precision, emulate: bool) -> None:
        self._graph, self._emulate = model.graph, emulate
        self._half, self._type = half, int(TensorProto.DataType.Value(BOUNDS[half].dtype.upper()))
        self._floats = _float_values(model)
        self._constants = {
            t.name: t for t in self._graph.initializer if t.data_type == TensorProto.FLOAT
        }
        self._halves: set[str] = set()
        self._made: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        for node in list(self._graph.node):
            if any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute):
                raise ValueError(f"{node.name}: {node.op_type} has a subgraph")
            if node.op_type == "Constant" and node.output[0] in self._floats:
                self._keep(node)
            else:
                self._node(node)
        outputs = [o for o in self._graph.output if o.name in self._halves]
        for value in [] if self._emulate else outputs:
            self._rename(value.name, f"{value.name}.{self._half}")
            self._cast(f"{value.name}.{self._half}", TensorProto.FLOAT, value.name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        for tensor in list(self._graph.initializer):
            if tensor.name not in used:
                self._graph.initializer.remove(tensor)
        # They say what the types were.
        del self._graph.value_info[:]

    def _keep(self, node: onnx.NodeProto) -> None:
        """A constant node becomes an initializer."""
        tensor = onnx.TensorProto()
        (attribute,) = node.attribute
        if attribute.name == "value":
            tensor.CopyFrom(attribute.t)
        else:  # value_float, value_floats
            value = np.array(helper.get_attribute_value(attribute), np.float32)
            tensor = numpy_helper.from_array(value)
        tensor.name = node.output[0]
        self._graph.initializer.append(tensor)
        self._constants[tensor.name] = tensor

    def _node(self, node: onnx.NodeProto) -> None:
        floats = [i for i, name in enumerate(node.input) if name in self._floats]
        gives = [name for name in node.output if name in self._floats]
        if node.op_type == "Cast" or not (floats and (gives or node.op_type in _ROUNDING)):
            # A cast to float32 stays one, whatever it is given; shapes have no precision.
            self._nodes.append(node)
            return
        if node.op_type in _ROUNDING:
            self._rounding(node)
            return
        varying = [node.input[i] for i in floats if node.input[i] not in self._constants]
        if node.op_type in _PRODUCTS:
            wanted = self._type
        elif node.op_type in FLOAT32_OPS or not set(varying) <= self._halves:
            wanted = TensorProto.FLOAT
        else:
            wanted = self._type
        for i in floats:
            node.input[i] = self._as(node.input[i], wanted)
        self._nodes.append(node)
        if wanted == self._type:
            self._halves.update(gives)
            for i, name in enumerate(node.output) if self._emulate else ():
                if name in gives:
                    node.output[i] = f"{name}.exact"
                    self._cast(f"{name}.exact", wanted, name)

    def _rounding(self, node: onnx.NodeProto) -> None:
        """Steps are of the type that is rounded, or that the product takes."""
        wanted = self._type
        if node.op_type == "QuantizeLinear" and node.input[0] not in self._halves:
            wanted = TensorProto.FLOAT
        scale = node.input[1]
        node.input[1] = self._as(scale, wanted)
        self._nodes.append(node)
        if node.op_type == "DequantizeLinear":
            self._halves.update(node.output)

    def _as(self, name: str, wanted: int) -> str:
        """The name under which a value is to be had in a type."""
        if wanted == (self._type if name in self._halves else TensorProto.FLOAT):
            return name
        if self._emulate and name in self._halves:
            return name  # float32 already, if rounded
        if (name, wanted) not in self._made:
            suffix = "float" if wanted == TensorProto.FLOAT else self._half
            self._made[name, wanted] = f"{name}.{suffix}"
            if name in self._constants:
                self._graph.initializer.append(self._converted(self._constants[name]))
            else:
                self._cast(name, wanted, f"{name}.{suffix}")
        return self._made[name, wanted]

    def _converted(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        name, values = f"{tensor.name}.{self._half}", numpy_helper.to_array(tensor)
        if self._half == "f16":
            limit = np.finfo(np.float16).max
            halves = np.clip(values, -limit, limit).astype(np.float16)
            stored = halves.astype(np.float32) if self._emulate else halves
            return numpy_helper.from_array(stored, name)
        bits = _bfloat16_bits(values)
        if self._emulate:
            stored = (bits.astype(np.uint32) << 16).view(np.float32)
            return numpy_helper.from_array(stored, name)
        return helper.make_tensor(name, self._type, values.shape, bits.tobytes(), True)

    def _cast(self, name: str, to: int, output: str) -> None:
        if self._emulate:
            between = f"{output}.rounded"
            self._nodes.append(helper.make_node("Cast", [name], [between], name=between, to=to))
            name, to = between, TensorProto.FLOAT
        self._nodes.append(helper.make_node("Cast", [name], [output], name=output, to=to))

    def _rename(self, old: str, new: str) -> None:
        for node in self._nodes:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]


def _bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """The upper halves of float32 values, rounded to nearest, ties to even: uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _float_values(model: onnx.ModelProto) -> set[str]:
    """Names of all float32 values, by ONNX's own inference."""
    graph = onnx.shape_inference.infer_shapes(model, check_type=True).graph
    found = {
        v.name
        for v in (*graph.input, *graph.output, *graph.value_info)
        if v.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    return found | {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}
