"""int8 in ONNX: what NNCF found is taken out of its graph, and put into a float one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from giqa.openvino import INT8_LEVELS, Product, along, weight_levels
from giqa.types import FloatArray

_LEAST_HALF = np.float32(2**-14)
"""Smallest f16 that has all its bits."""

_AXES = {"MatMul": 1, "Conv": 0}
"""Axis of the output channels in the weights of products that are quantized."""


def products_of(model: onnx.ModelProto, quantized: onnx.ModelProto) -> list[Product]:
    """Take out what quantization added.

    Args:
        model: the float graph that was quantized.
        quantized: NNCF's result, with QuantizeLinear and DequantizeLinear nodes.

    Returns:
        Its products with quantized weights, in the graph's order.
    """
    constants, old = _constants(quantized), _constants(model)
    made_by = {output: node for node in quantized.graph.node for output in node.output}
    found = []
    for node in quantized.graph.node:
        if node.op_type not in _AXES or _made(made_by, node.input[1]) != "DequantizeLinear":
            continue
        step = made_by[node.input[0]]
        while step.op_type != "QuantizeLinear":  # DequantizeLinear, and what only moves values
            step = made_by[step.input[0]]
        before = made_by.get(step.input[0])
        smooth = None
        if before is not None and before.name.endswith("/nncf_smooth_quant"):
            smooth = constants[before.input[1]].ravel()
        bias = _bias(quantized, node)
        moved = bias in old and not np.array_equal(constants[bias], old[bias])
        zero = constants[step.input[2]]
        if zero.any():
            raise ValueError(f"{node.name}: its activation is quantized asymmetrically")
        found.append(
            Product(
                node=node.name,
                kind=zero.dtype.name,  # type: ignore[arg-type]
                step=constants[step.input[1]],
                smooth=smooth,
                shift=(constants[bias] - old[bias]).ravel() if moved else None,
            )
        )
    return found


def _made(made_by: dict[str, onnx.NodeProto], name: str) -> str:
    return made_by[name].op_type if name in made_by else ""


def _constants(model: onnx.ModelProto) -> dict[str, FloatArray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def _bias(model: onnx.ModelProto, product: onnx.NodeProto) -> str:
    """Name of the constant that is added to a product; empty if there is none."""
    if product.op_type == "Conv":
        return product.input[2] if len(product.input) > 2 else ""
    readers = [node for node in model.graph.node if product.output[0] in node.input]
    if len(readers) != 1 or readers[0].op_type != "Add":
        return ""
    return next(name for name in readers[0].input if name != product.output[0])


def quantize(
    model: onnx.ModelProto,
    products: Iterable[Product],
    *,
    half: bool = False,
) -> None:
    """Quantize products of a float graph in place, as TensorRT and ONNX Runtime take them.

    Args:
        model: float32, weights unpacked.
        products: what is quantized, of this graph.
        half: steps are such that f16 has them, since the graph will be turned to halves: weights
            are rounded to what these give.
    """
    graph, constants = model.graph, _constants(model)
    wanted = {product.node: product for product in products}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in wanted:
            nodes += _quantized(graph, node, wanted[node.name], constants[node.input[1]], half)
        else:
            nodes.append(node)
    # Copies: what the list holds belongs to the graph.
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    used = {name for node in graph.node for name in node.input}
    for tensor in list(graph.initializer):
        if tensor.name not in used:
            graph.initializer.remove(tensor)


def _quantized(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    product: Product,
    weights: FloatArray,
    half: bool,
) -> list[onnx.NodeProto]:
    """A product's nodes in order; their constants go into the graph."""
    nodes: list[onnx.NodeProto] = []

    def constant(part: str, values: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(values, f"{node.name}.{part}"))
        return f"{node.name}.{part}"

    def add(operator: str, inputs: list[str], part: str, **attributes: Any) -> str:
        name = f"{node.name}.{part}"
        nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    axis = _AXES[node.op_type]
    levels: npt.NDArray[Any]
    levels, scale = weight_levels(weights, axis, product.smooth)
    given, kind, moved = product.step, np.dtype(product.kind), product.shift
    if half:
        given, scale = _of_half(given), _of_half(scale)
        exact = weights
        if product.smooth is not None:
            exact = weights / along(product.smooth, 1 - axis, weights.ndim)
        levels = np.rint(exact / scale).clip(-INT8_LEVELS, INT8_LEVELS).astype(np.int8)
    activation = node.input[0]
    if product.smooth is not None:
        activation = add("Mul", [activation, constant("smooth", product.smooth)], "smoothed")
    step = constant("step", given)
    zero = constant("zero", np.zeros(given.shape, kind))
    per: dict[str, int] = {"axis": 1} if given.ndim else {}
    rounded = add("QuantizeLinear", [activation, step, zero], "levels", **per)
    node.input[0] = add("DequantizeLinear", [rounded, step, zero], "rounded", **per)
    stored = [
        constant("weights.levels", levels),
        constant("weights.scale", scale.ravel()),
        constant("weights.zero", np.zeros(scale.size, levels.dtype)),
    ]
    node.input[1] = add("DequantizeLinear", stored, "weights", axis=axis)
    nodes.append(node)
    if moved is not None:
        rank = weights.ndim if node.op_type == "Conv" else 1
        shift = constant("shift", along(moved, 0 if rank == 1 else 1, rank))
        inputs, output = [f"{node.name}.unshifted", shift], node.output[0]
        node.output[0] = inputs[0]
        name = f"{node.name}.shifted"
        nodes.append(helper.make_node("Add", inputs, [output], name=name))
    return nodes


def _of_half(steps: FloatArray) -> FloatArray:
    """Steps that f16 has, none smaller than the given: no level leaves its range."""
    steps = np.asarray(steps, np.float32)
    halves = np.maximum(steps, _LEAST_HALF).astype(np.float16)
    up = np.nextafter(halves, np.float16(np.inf))
    return np.where(halves.astype(np.float32) < steps, up, halves).astype(np.float32)
