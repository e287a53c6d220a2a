"""Floating-point operations and bytes of an ONNX graph, counted from its shapes.

Only products count (convolutions and matrix products, two operations per multiply-add): they are
nearly all of the work, and what a processor's peak is stated in. All else should be free, and
what it costs is a loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from build.graphs import engine_graph
from giqa.bundle import Bundle
from giqa.contract import GLOBAL_BRANCH, GRAPHS, LOCAL_BRANCH
from giqa.tensors import inputs_of, tensor_shapes

BATCH = 8
END_TO_END = "JPEG to score"
BRANCHES = "both branches"
PARTS = (GLOBAL_BRANCH, LOCAL_BRANCH)

_LONGEST = 64
"""Most numbers of a constant that counts as a shape, or a part of one."""


@dataclass(frozen=True)
class Count:
    """Work of one inference.

    Attributes:
        flops: operations of all products.
        values: numbers that have to move at the least: weights and the graph's inputs and
            outputs once each, everything between them staying in the caches.
        streamed: numbers that move if nothing stays there: the operands and results of every
            product.
    """

    flops: int
    values: int
    streamed: int


def count(model: onnx.ModelProto, sizes: Mapping[str, int]) -> Count:
    """Count a graph.

    Args:
        model: with weights that are stored as they are used; see `build.graphs.unpack`.
        sizes: of the symbolic dimensions, such as `batch`.

    Returns:
        What one inference takes.

    Raises:
        ValueError: the shape of a product's operand cannot be found.
    """
    shapes = _shapes(_fixed(model, sizes))
    weights = sum(prod(t.dims) for t in model.graph.initializer)
    ends = [v.name for v in (*model.graph.input, *model.graph.output)]
    flops = streamed = 0
    for node in model.graph.node:
        if node.op_type not in ("Conv", "MatMul", "Gemm"):
            continue
        names = [*node.input, node.output[0]]
        missing = [name for name in names if name not in shapes]
        if missing:
            raise ValueError(f"{node.op_type} {node.name}: no shape of {', '.join(missing)}")
        flops += 2 * prod(shapes[node.output[0]]) * _depth(node, shapes)
        streamed += sum(prod(shapes[name]) for name in names)
    values = weights + sum(prod(shapes[name]) for name in ends)
    return Count(flops, values, streamed)


def _depth(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-adds behind one number of the output."""
    if node.op_type == "Conv":
        return prod(shapes[node.input[1]][1:])  # (out, in / groups, *kernel)
    given = shapes[node.input[0]]
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return given[0] if transposed else given[1]
    return given[-1]


def _fixed(model: onnx.ModelProto, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """A copy whose inputs have these sizes, and whose other shapes are to be inferred anew."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in copy.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = sizes[dim.dim_param]
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    return copy


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Every shape that is known in full; the model's own shape arithmetic is folded on the way."""
    graph = model.graph
    while True:
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph
        found = {t.name: tuple(t.dims) for t in graph.initializer}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            kind = value.type.tensor_type
            if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
                found[value.name] = tuple(d.dim_value for d in kind.shape.dim)
        # Inference does not carry every computed shape on; constants it understands.
        if not _fold(graph, found):
            return found


def _fold(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Make constants of what is computed from known shapes; whether there was any."""
    numbers = {
        t.name: numpy_helper.to_array(t)
        for t in graph.initializer
        if t.data_type == TensorProto.INT64 and prod(t.dims) <= _LONGEST
    }
    folded = []
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in shapes:
            ends = {a.name: a.i for a in node.attribute}
            shape = shapes[node.input[0]][ends.get("start", 0) : ends.get("end")]
            values: Any = [np.array(shape, np.int64)]
        elif node.input and all(name in numbers for name in node.input):
            given = {name: numbers[name] for name in node.input}
            values = ReferenceEvaluator(node).run(None, given)
        else:
            continue
        numbers |= dict(zip(node.output, values, strict=True))
        folded.append(node)
    for node in folded:
        graph.node.remove(node)
        graph.initializer.extend(numpy_helper.from_array(numbers[n], n) for n in node.output)
    return bool(folded)


def work(bundle: Bundle) -> dict[str, Count]:
    """Count the work of one image, by graph, `BRANCHES` and `END_TO_END`."""
    counts = {name: _count(bundle, name) for name in GRAPHS}
    sums = {BRANCHES: PARTS, END_TO_END: GRAPHS}
    return counts | {what: _sum([counts[name] for name in names]) for what, names in sums.items()}


def _sum(counts: Sequence[Count]) -> Count:
    return Count(*(sum(getattr(c, field) for c in counts) for field in Count.__annotations__))


def _count(bundle: Bundle, name: str) -> Count:
    """Of one image, in a batch that shares the weights."""
    found = count(engine_graph(bundle, name, "f32"), {"batch": BATCH, "views": 1, "details": 1})
    return Count(found.flops // BATCH, found.values // BATCH, found.streamed // BATCH)


def example(bundle: Bundle, name: str, batch: int) -> dict[str, npt.NDArray[Any]]:
    """Made-up inputs of a graph: (batch, 1, ...) each, uint8 or float32."""
    rng = np.random.default_rng(0)
    shapes = tensor_shapes(bundle.manifest.tensors)
    found: dict[str, npt.NDArray[Any]] = {}
    for tensor in inputs_of(name):
        kind, (_views, *rest) = shapes[tensor]
        if kind == "UINT8":
            found[tensor] = rng.integers(0, 256, (batch, 1, *rest), np.uint8)
        else:
            found[tensor] = rng.standard_normal((batch, 1, *rest), np.float32)
    return found
