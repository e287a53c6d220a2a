"""Engine graphs computed by PyTorch: a third opinion, beside TensorRT's and ONNX Runtime's.

Operator by operator, in exactly the types that the graph says, as TensorRT computes a strongly
typed network: halves are halves, not float32 rounded now and then. Runs wherever PyTorch does, so a
machine with a GPU and PyTorch alone can tell what half precision and the graphs cost. Nothing is
fused: speed is PyTorch's, not TensorRT's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from giqa.errors import EngineMismatchError

_DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}
_HOST = (torch.int32, torch.int64)
"""Shapes are computed on the host, wherever the rest is."""
_TYPED = ("Add", "Sub", "Mul", "Div", "MatMul", "Gemm", "Conv", "Concat", "LayerNormalization")
"""What TensorRT gives one type alone."""

Attributes = Mapping[str, Any]
Operator = Callable[..., Tensor]
_OPERATORS: dict[str, Operator] = {}


class Interpreter:
    """A graph, ready to be computed.

    Args:
        model: from `build.graphs.engine_graph`.
        device: where.

    Raises:
        EngineMismatchError: it has an operator that is not known here.
    """

    def __init__(self, model: onnx.ModelProto, device: torch.device | str = "cpu") -> None:
        graph, self._device = model.graph, torch.device(device)
        self._constants = {t.name: self._constant(t) for t in graph.initializer}
        self._indices: dict[tuple[object, ...], Tensor] = {}
        self._nodes: list[tuple[onnx.NodeProto, Operator, Attributes]] = []
        last: dict[str, int] = {}
        for node in graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self._constants[node.output[0]] = self._constant(_value(attributes))
                continue
            if (operator := _OPERATORS.get(node.op_type)) is None:
                raise EngineMismatchError(
                    f"{node.op_type} is not known to the interpreter",
                    item=node.name,
                    remedy="add it to build/interpreter.py",
                )
            last |= dict.fromkeys(node.input, len(self._nodes))
            self._nodes.append((node, operator, attributes))
        self.inputs = [i.name for i in graph.input if i.name not in self._constants]
        self.types = {i.name: _DTYPES[i.type.tensor_type.elem_type] for i in graph.input}
        self.outputs = [o.name for o in graph.output]
        kept = {*self._constants, *self.outputs, ""}
        self._done: list[list[str]] = [[] for _ in self._nodes]
        for name, i in last.items():
            if name not in kept:
                self._done[i].append(name)

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the graph.

        Args:
            inputs: tensors by name, on the device, with the batch, in the graph's types.

        Returns:
            Its outputs by name, in the graph's types.

        Raises:
            EngineMismatchError: an input has another type, or values of several types meet in an
                operator that casts none.
        """
        values: dict[str, Tensor | None] = {"": None, **self._constants}
        for name in self.inputs:
            if inputs[name].dtype != self.types[name]:
                raise EngineMismatchError(
                    f"is {inputs[name].dtype} instead of {self.types[name]}", item=name
                )
            values[name] = inputs[name]
        for (node, operator, attributes), done in zip(self._nodes, self._done, strict=True):
            given = [values[name] for name in node.input]
            types = {t.dtype for t in given if t is not None}
            if node.op_type in _TYPED and len(types) > 1:
                raise EngineMismatchError(
                    f"{node.op_type} of {', '.join(sorted(map(str, types)))}", item=node.name
                )
            if node.op_type in ("Gather", "GatherND") and given[0].dtype not in _HOST:  # type: ignore[union-attr]
                assert given[1] is not None
                given[1] = self._index(node.input[1], given[1])
            values[node.output[0]] = operator(*given, **attributes)
            for name in done:
                del values[name]
        found = {name: values[name] for name in self.outputs}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def _constant(self, tensor: onnx.TensorProto) -> Tensor:
        if tensor.data_type == TensorProto.BFLOAT16:  # which NumPy has not: its bits are taken
            bits: np.ndarray[Any, Any] = numpy_helper.to_array(tensor).view(np.int16)
            value = torch.from_numpy(bits.copy()).view(torch.bfloat16)
        else:
            value = torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
        return value if value.dtype in _HOST else value.to(self._device)

    def _index(self, name: str, index: Tensor) -> Tensor:
        """An index on the device. It is carried there once: CUDA graphs capture no copies."""
        if index.device == self._device:
            return index
        key = (name, tuple(index.shape), *index.reshape(-1).tolist())
        if key not in self._indices:
            self._indices[key] = index.to(self._device)
        return self._indices[key]


def _value(attributes: Attributes) -> onnx.TensorProto:
    """The tensor of a `Constant`."""
    if "value" in attributes:
        tensor: onnx.TensorProto = attributes["value"]
        return tensor
    ((kind, value),) = attributes.items()
    return numpy_helper.from_array(np.array(value, np.int64 if "int" in kind else np.float32))


def _operator(function: Operator) -> Operator:
    """Register an ONNX operator, called like the function but for the underscore."""
    _OPERATORS[function.__name__.removeprefix("_")] = function
    return function


def _ints(values: Tensor | None) -> list[int]:
    return [] if values is None else [int(v) for v in values]


_PLAIN: dict[str, Operator] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "MatMul": torch.matmul,
    "Sqrt": torch.sqrt,
    "Sigmoid": torch.sigmoid,
    "Relu": torch.relu,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Exp": torch.exp,
    "Identity": torch.clone,
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Where": torch.where,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "Less": torch.lt,
}
_OPERATORS |= _PLAIN


@_operator
def _Div(a: Tensor, b: Tensor) -> Tensor:  # noqa: N802
    return torch.div(a, b, rounding_mode="trunc") if a.dtype in _HOST else a / b


@_operator
def _Pow(x: Tensor, exponent: Tensor) -> Tensor:  # noqa: N802
    return torch.pow(x, exponent.to(x.dtype))


@_operator
def _Shape(x: Tensor, start: int = 0, end: int | None = None) -> Tensor:  # noqa: N802
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


@_operator
def _Range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:  # noqa: N802
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


@_operator
def _Squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:  # noqa: N802
    return x.squeeze() if axes is None else x.squeeze(tuple(_ints(axes)))


@_operator
def _Unsqueeze(x: Tensor, axes: Tensor) -> Tensor:  # noqa: N802
    rank = x.dim() + len(axes)
    for axis in sorted(a % rank for a in _ints(axes)):
        x = x.unsqueeze(axis)
    return x


@_operator
def _Reshape(x: Tensor, shape: Tensor, allowzero: int = 0) -> Tensor:  # noqa: N802
    sides = _ints(shape)
    if not allowzero:
        sides = [x.shape[i] if n == 0 else n for i, n in enumerate(sides)]
    return x.reshape(sides)


@_operator
def _Flatten(x: Tensor, axis: int = 1) -> Tensor:  # noqa: N802
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


@_operator
def _Transpose(x: Tensor, perm: Sequence[int] | None = None) -> Tensor:  # noqa: N802
    return x.permute(tuple(perm or range(x.dim() - 1, -1, -1)))


@_operator
def _Concat(*parts: Tensor, axis: int) -> Tensor:  # noqa: N802
    return torch.cat(parts, axis)


@_operator
def _Expand(x: Tensor, shape: Tensor) -> Tensor:  # noqa: N802
    return x.expand(torch.broadcast_shapes(tuple(x.shape), tuple(_ints(shape))))


@_operator
def _Tile(x: Tensor, repeats: Tensor) -> Tensor:  # noqa: N802
    return x.tile(tuple(_ints(repeats)))


@_operator
def _Cast(x: Tensor, to: int, saturate: int = 1) -> Tensor:  # noqa: N802
    return x.to(_DTYPES[to])


@_operator
def _Gather(x: Tensor, index: Tensor, axis: int = 0) -> Tensor:  # noqa: N802
    axis %= x.dim()
    flat = torch.where(index < 0, index + x.shape[axis], index).reshape(-1)
    return x.index_select(axis, flat).reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


@_operator
def _GatherND(x: Tensor, indices: Tensor, batch_dims: int = 0) -> Tensor:  # noqa: N802
    if batch_dims:
        raise EngineMismatchError("GatherND with batch_dims is not known to the interpreter")
    return x[tuple(indices.unbind(-1))]


@_operator
def _Slice(  # noqa: N802
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    places = _ints(axes) or range(len(starts))
    parts = [slice(None)] * x.dim()
    for start, end, axis, step in zip(
        _ints(starts), _ints(ends), places, _ints(steps) or [1] * len(starts), strict=True
    ):
        if step < 1:
            raise EngineMismatchError("Slice backwards is not known to the interpreter")
        size = x.shape[axis]  # what means "to the end" is larger than torch takes
        parts[axis] = slice(max(start, -size), max(min(end, size), -size), step)
    return x[tuple(parts)]


@_operator
def _Gemm(  # noqa: N802
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Tensor:
    found = (a.t() if transA else a) @ (b.t() if transB else b)
    found = found if alpha == 1 else found * alpha
    return found if c is None else found + (c if beta == 1 else c * beta)


@_operator
def _Conv(  # noqa: N802
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    *,
    kernel_shape: Sequence[int] = (),
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
    auto_pad: bytes = b"NOTSET",
) -> Tensor:
    _no_auto_pad(auto_pad)
    top, left, bottom, right = pads
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    return F.conv2d(x, weights, bias, tuple(strides), (top, left), tuple(dilations), group)


@_operator
def _AveragePool(  # noqa: N802
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    auto_pad: bytes = b"NOTSET",
) -> Tensor:
    _no_auto_pad(auto_pad)
    if tuple(pads[:2]) != tuple(pads[2:]):
        raise EngineMismatchError("AveragePool with uneven pads is not known to the interpreter")
    sides = tuple(kernel_shape), tuple(strides), tuple(pads[:2])
    return F.avg_pool2d(x, *sides, bool(ceil_mode), bool(count_include_pad))


def _no_auto_pad(auto_pad: bytes) -> None:
    if auto_pad not in (b"NOTSET", b"VALID"):
        raise EngineMismatchError("auto_pad is not known to the interpreter")


@_operator
def _Resize(  # noqa: N802
    x: Tensor,
    _roi: Tensor | None,
    scales: Tensor | None,
    sizes: Tensor | None = None,
    *,
    mode: bytes = b"nearest",
    coordinate_transformation_mode: bytes = b"half_pixel",
    nearest_mode: bytes = b"round_prefer_floor",
    **_: Any,
) -> Tensor:
    """Nearest by whole factors, which is all that the graphs have."""
    if sizes is not None and len(sizes):
        target = _ints(sizes)[-2:]
    else:
        assert scales is not None
        factors = zip(scales[-2:], x.shape[-2:], strict=True)
        target = [round(float(f) * n) for f, n in factors]
    asked = (mode, coordinate_transformation_mode, nearest_mode)
    if asked != (b"nearest", b"asymmetric", b"floor"):
        raise EngineMismatchError(f"Resize {asked} is not known to the interpreter")
    return F.interpolate(x, target, mode="nearest")


@_operator
def _LayerNormalization(  # noqa: N802
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Tensor:
    return F.layer_norm(x, x.shape[axis % x.dim() :], scale, bias, epsilon)


@_operator
def _BatchNormalization(  # noqa: N802
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    **_: Any,
) -> Tensor:
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


@_operator
def _Softmax(x: Tensor, axis: int = -1) -> Tensor:  # noqa: N802
    return torch.softmax(x, axis)


@_operator
def _Gelu(x: Tensor, approximate: bytes = b"none") -> Tensor:  # noqa: N802
    return F.gelu(x, approximate=approximate.decode())


@_operator
def _Clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:  # noqa: N802
    return torch.clamp(x, low, high)


def _axes(x: Tensor, axes: Tensor | None) -> list[int]:
    return _ints(axes) or list(range(x.dim()))


@_operator
def _ReduceMean(x: Tensor, axes: Tensor | None = None, keepdims: int = 1, **_: Any) -> Tensor:  # noqa: N802
    return x.mean(_axes(x, axes), keepdim=bool(keepdims))


@_operator
def _ReduceSum(x: Tensor, axes: Tensor | None = None, keepdims: int = 1, **_: Any) -> Tensor:  # noqa: N802
    return x.sum(_axes(x, axes), keepdim=bool(keepdims))


@_operator
def _ReduceL2(x: Tensor, axes: Tensor | None = None, keepdims: int = 1, **_: Any) -> Tensor:  # noqa: N802
    return torch.linalg.vector_norm(x, dim=_axes(x, axes), keepdim=bool(keepdims))


@_operator
def _QuantizeLinear(  # noqa: N802
    x: Tensor, step: Tensor, zero: Tensor | None = None, *, axis: int = 1, **_: Any
) -> Tensor:
    """Rounded to even, saturating."""
    to = torch.uint8 if zero is None else zero.dtype
    levels = x.float() / _along(step, axis, x).float()
    shifted = levels.round() + (0 if zero is None else _along(zero, axis, x).float())
    return shifted.clamp(torch.iinfo(to).min, torch.iinfo(to).max).to(to)


@_operator
def _DequantizeLinear(  # noqa: N802
    x: Tensor, step: Tensor, zero: Tensor | None = None, *, axis: int = 1, **_: Any
) -> Tensor:
    values = x.float()
    if zero is not None:
        values = values - _along(zero, axis, x).float()
    return (values * _along(step, axis, x).float()).to(step.dtype)


def _along(vector: Tensor, axis: int, x: Tensor) -> Tensor:
    """Shape a scale, one or one a channel, such that it broadcasts."""
    if vector.dim() == 0:
        return vector
    return vector.reshape([-1 if i == axis % x.dim() else 1 for i in range(x.dim())])
