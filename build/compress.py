"""Lossless weight compression of ONNX graphs: stored small, computed in float32.

Weights that were rounded to int8 levels per output channel are stored as int8 behind a
DequantizeLinear node, those that are exact in float16 behind a Cast; all others stay float32.
Activations are not touched. Nothing is lost: training sees the rounded values. Whoever runs a graph
unpacks it once, when it is loaded (`giqa.openvino`); OpenVINO left alone would unpack at every
inference, and quantize activations unasked.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from build.numerics import SMALL
from giqa.openvino import INT8_LEVELS

FloatArray = npt.NDArray[np.float32]
_OFF_LEVEL = 1e-3


def compress(model: onnx.ModelProto) -> dict[str, int]:
    """Compress a graph's initializers in place.

    Args:
        model: the graph, weights inside it (no external data).

    Returns:
        Bytes stored by type: `int8`, `float16`, `float32`.
    """
    graph = model.graph
    axes = _output_axes(graph)
    unpack: list[onnx.NodeProto] = []
    stored = {"int8": 0, "float16": 0, "float32": 0}
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values: FloatArray = numpy_helper.to_array(tensor)
        name = tensor.name
        if values.size < SMALL:
            stored["float32"] += values.nbytes
        elif name in axes and (found := _int8(values, axes[name])) is not None:
            levels, scale = found
            graph.initializer.remove(tensor)
            graph.initializer.append(numpy_helper.from_array(levels, f"{name}.int8"))
            graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
            inputs = [f"{name}.int8", f"{name}.scale"]
            unpack.append(
                helper.make_node(
                    "DequantizeLinear", inputs, [name], name=f"{name}.unpack", axis=axes[name]
                )
            )
            stored["int8"] += levels.nbytes + scale.nbytes
        elif np.array_equal(half := values.astype(np.float16), values):
            graph.initializer.remove(tensor)
            graph.initializer.append(numpy_helper.from_array(half, f"{name}.float16"))
            unpack.append(
                helper.make_node(
                    "Cast", [f"{name}.float16"], [name], name=f"{name}.unpack", to=TensorProto.FLOAT
                )
            )
            stored["float16"] += half.nbytes
        else:
            stored["float32"] += values.nbytes
    for node in reversed(unpack):
        graph.node.insert(0, node)
    onnx.checker.check_model(model)
    return stored


def _int8(values: FloatArray, axis: int) -> tuple[npt.NDArray[np.int8], FloatArray] | None:
    """Levels and scales of values that lie on int8 levels; None if they do not."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    peak = np.maximum(np.abs(values).max(others), np.float32(1e-12))
    scale = (peak / np.float32(INT8_LEVELS)).astype(np.float32)
    ratio = values / scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    levels = np.rint(ratio)
    if np.abs(ratio - levels).max() > _OFF_LEVEL:
        return None
    return levels.astype(np.int8), scale


def _output_axes(graph: onnx.GraphProto) -> dict[str, int]:
    """Axis of the output channels of every weight: Conv (O, I, ...), MatMul (I, O), Gemm."""
    axes: dict[str, int] = {}
    for node in graph.node:
        if node.op_type == "Conv":
            axes[node.input[1]] = 0
        elif node.op_type == "MatMul":
            axes[node.input[1]] = 1
        elif node.op_type == "Gemm":
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            axes[node.input[1]] = 0 if transposed else 1
    return axes
