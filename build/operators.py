"""ONNX's operators as PyTorch computes them, each in the types that it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor

from giqa.errors import EngineMismatchError

DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}
HOST = (torch.int32, torch.int64)
"""Shapes are computed on the host, wherever the rest is."""

Operator = Callable[..., Tensor]
OPERATORS: dict[str, Operator] = {}
"""By their names in ONNX."""


def _operator(function: Operator) -> Operator:
    """Register an ONNX operator, called like the function but for the underscore."""
    OPERATORS[function.__name__.removeprefix("_")] = function
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
OPERATORS |= _PLAIN


@_operator
def _Div(a: Tensor, b: Tensor) -> Tensor:  # noqa: N802
    return torch.div(a, b, rounding_mode="trunc") if a.dtype in HOST else a / b


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
    return x.to(DTYPES[to])


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
