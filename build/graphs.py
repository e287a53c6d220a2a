"""ONNX graphs as TensorRT takes them: weights unpacked, floats from the first operation on."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from build.int8 import quantize
from build.precision import to_half
from giqa.bundle import Bundle
from giqa.contract import GLOBAL_TOKENS, LOCAL_TOKENS
from giqa.openvino import read_products
from giqa.precision import BOUNDS, HALVES, PRECISIONS, Precision
from giqa.tensors import engine_tensors

_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
"""Operators that only move values: a cast may pass them."""


def precisions_of(bundle: Bundle) -> tuple[Precision, ...]:
    """What engines of a bundle may compute in."""
    return tuple(p for p in PRECISIONS if p != "int8" or bundle.manifest.int8)


def engine_graph(
    bundle: Bundle, name: str, precision: Precision, *, emulate: bool = False
) -> onnx.ModelProto:
    """Make the graph that an engine of a bundle is built from.

    Args:
        bundle: a verified bundle.
        name: `global_branch`, `local_branch` or `fusion`.
        precision: what it computes in; tokens are in halves where it does (see
            `giqa.tensors.engine_tensors`), other inputs and outputs in the contract's types.
        emulate: for ONNX Runtime on a CPU: halves as `build.precision.to_half` does it, tokens in
            the contract's types, and int8 with the rest in float32.

    Returns:
        The graph.

    Raises:
        EngineMismatchError: int8, and the bundle has no ranges of activations (int8).
    """
    products = read_products(bundle.int8, name) if precision == "int8" else []
    model = onnx.load(bundle.graph(name))
    unpack(model)
    floats_first(model)
    rest = "f32" if emulate and precision == "int8" else BOUNDS[precision].rest
    if products:
        quantize(model, products, half=rest == "f16")
    if rest in HALVES:
        to_half(model, rest, emulate=emulate)
    if not emulate and engine_tensors(bundle.manifest.tensors, precision).token_dtype == "FP16":
        _halve_tokens(model)
    return model


def _halve_tokens(model: onnx.ModelProto) -> None:
    """Give and take tokens in halves, in place: what stands between two models is half as large."""
    graph = model.graph
    made_by = {output: node for node in graph.node for output in node.output}
    for value in graph.output:
        if value.name not in (GLOBAL_TOKENS, LOCAL_TOKENS):
            continue
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
        last = made_by[value.name]
        if last.op_type == "Cast":
            last.attribute[0].i = TensorProto.FLOAT16
        else:
            last.output[:] = [f"{value.name}.float" if o == value.name else o for o in last.output]
            graph.node.append(_cast(f"{value.name}.float", TensorProto.FLOAT16, value.name))
    for value in graph.input:
        if value.name not in (GLOBAL_TOKENS, LOCAL_TOKENS):
            continue
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            continue
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
        name = f"{value.name}.float"
        for node in graph.node:
            if node.op_type != "Shape":
                node.input[:] = [name if n == value.name else n for n in node.input]
        graph.node.insert(0, _cast(value.name, TensorProto.FLOAT, name))


def _cast(name: str, to: int, output: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [output], name=f"{output}.cast", to=int(to))


def unpack(model: onnx.ModelProto) -> None:
    """Undo `build.compress.compress` in place: all weights float32, exactly as they were."""
    graph = model.graph
    stored = {t.name: t for t in graph.initializer}
    for node in list(graph.node):
        if node.op_type not in ("DequantizeLinear", "Cast") or node.input[0] not in stored:
            continue
        values = numpy_helper.to_array(stored[node.input[0]])
        if node.op_type == "DequantizeLinear":
            if len(node.input) != 2 or node.input[1] not in stored:
                continue
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            scale = numpy_helper.to_array(stored[node.input[1]])
            shape = [-1 if i == axis else 1 for i in range(values.ndim)]
            values = values.astype(np.float32) * (scale.reshape(shape) if scale.ndim else scale)
        elif node.attribute[0].i != TensorProto.FLOAT:
            continue
        graph.node.remove(node)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    used = {name for node in graph.node for name in node.input}
    for tensor in list(graph.initializer):
        if tensor.name not in used:
            graph.initializer.remove(tensor)


def floats_first(model: onnx.ModelProto) -> None:
    """Cast uint8 inputs before anything else, in place: TensorRT moves no uint8 tensor.

    Values are only moved before their cast, so the result is the same, bit by bit.
    """
    graph = model.graph
    for value in graph.input:
        if value.type.tensor_type.elem_type != TensorProto.UINT8:
            continue
        name = value.name
        movers, casts = _until_cast(graph, name)
        if not movers:
            continue
        for cast in casts:
            for node in graph.node:
                node.input[:] = [cast.input[0] if n == cast.output[0] else n for n in node.input]
            graph.node.remove(cast)
        first = f"{name}.float"
        for node in graph.node:
            # Its shape may be asked of the input itself.
            if node.op_type != "Shape":
                node.input[:] = [first if n == name else n for n in node.input]
        to = int(TensorProto.FLOAT)
        graph.node.insert(0, helper.make_node("Cast", [name], [first], name=first, to=to))
        moved = {output for node in movers for output in node.output}
        gone = {output for cast in casts for output in cast.output}
        for info in list(graph.value_info):
            if info.name in gone:
                graph.value_info.remove(info)
            elif info.name in moved:
                info.type.tensor_type.elem_type = TensorProto.FLOAT


def _until_cast(
    graph: onnx.GraphProto, name: str
) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """Nodes that move a tensor, and the casts to float32 behind them; none if it goes elsewhere."""
    movers: list[onnx.NodeProto] = []
    casts: list[onnx.NodeProto] = []
    todo = [name]
    while todo:
        current = todo.pop()
        for node in graph.node:
            if current not in node.input or node.op_type == "Shape":
                continue
            if node.op_type in _MOVES and node.input[0] == current:
                movers.append(node)
                todo += node.output
            elif node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT:
                casts.append(node)
            else:
                return [], []
    return (movers, casts) if all(cast.input[0] != name for cast in casts) else ([], [])
