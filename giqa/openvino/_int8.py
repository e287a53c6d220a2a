"""int8 computed from float graphs: what quantization adds to a bundle, put in when a graph loads.

Weights are stored once, in float: their levels follow from them by `weight_levels`. What does not,
found on calibration images, is small and stands in one file: an array per entry, named
`GRAPH/NODE/PART`, where NODE is a product with constant weights and PART one of

- `int8` or `uint8`: step of the quantized activation, of this type: one, or one per channel;
- `smooth` (where there is one): factors of the activation's channels; the weights are divided by
  them (SmoothQuant);
- `shift` (where there is one): is added to the output's channels, against the bias that rounding
  brings.

It is 0.2 MB for `giqa-s`. OpenVINO computes the same as from NNCF's own graphs, to the bit where
these have the same levels. Behind many products, one level of one weight, or another order of
sums, moves all that follows: the global branch's tokens then differ by two thirds of what int8
costs them, as they do between two ways to run NNCF's graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from giqa.errors import BundleInvalidError, EngineMismatchError
from giqa.files import replacing
from giqa.openvino._cpu import int8_is_fast
from giqa.types import FloatArray

Kind = Literal["int8", "uint8"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

INT8_LEVELS: Final = 127
"""Levels a side of symmetric int8 weights, one scale per output channel."""

_NARROW_LEVELS: Final = 63
"""Levels a side where the CPU has no products of int8: it adds two of them, of 255 and a weight
each, in 16 bits, which hold 64.25. 48 photographs: SROCC with float32 .9965, with 64 .9946."""

_LEAST_RANGE: Final = np.float32(0.01)
"""Channels of weights count as at least this part of the largest: NNCF's floor, for which it
found the shifts."""

_VECTORS: Final = ("smooth", "shift")


@dataclass(frozen=True)
class Product:
    """How a product with constant weights is quantized.

    Attributes:
        node: its node in the graph.
        kind: type of the quantized activation.
        step: of the activation, () or (C,), float32, over 0.
        smooth: factors of the activation's channels, (C,), float32; None: none.
        shift: of the output's channels, (O,), float32; None: none.
    """

    node: str
    kind: Kind
    step: FloatArray
    smooth: FloatArray | None = None
    shift: FloatArray | None = None


def write_products(path: Path, products: Mapping[str, Iterable[Product]]) -> None:
    """Write the file.

    Args:
        path: the file, `.npz`; replaced if it exists.
        products: by graph.

    Raises:
        StorageFullError: no space is left.
    """
    arrays: dict[str, FloatArray] = {}
    for graph, found in products.items():
        for product in found:
            arrays[f"{graph}/{product.node}/{product.kind}"] = product.step
            for part in _VECTORS:
                if (vector := getattr(product, part)) is not None:
                    arrays[f"{graph}/{product.node}/{part}"] = vector
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)


def read_products(path: Path, graph: str) -> list[Product]:
    """Read a graph's part of the file.

    Args:
        path: the file.
        graph: `global_branch`, `local_branch` or `fusion`.

    Returns:
        Its quantized products; none if it has none.

    Raises:
        BundleInvalidError: the file is not such a file.
    """
    nodes: dict[str, dict[str, FloatArray]] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for name in arrays.files:
                owner, _, rest = name.partition("/")
                node, _, part = rest.rpartition("/")
                if owner == graph:
                    nodes.setdefault(node, {})[part] = arrays[name]
    except (OSError, ValueError, EOFError, BadZipFile) as e:
        raise BundleInvalidError(f"cannot be read: {e}", item=str(path)) from e
    return [_product(path, node, parts) for node, parts in nodes.items()]


def _product(path: Path, node: str, parts: dict[str, FloatArray]) -> Product:
    kinds = [kind for kind in KINDS if kind in parts]
    right = len(kinds) == 1 and set(parts) <= {*kinds, *_VECTORS}
    for part, values in parts.items():
        right &= values.dtype == np.float32 and bool(np.isfinite(values).all())
        right &= values.ndim <= 1 if part in KINDS else values.ndim == 1
        right &= part == "shift" or bool((values > 0).all())
    if not right:
        raise BundleInvalidError(f"{node} is not a quantized product", item=str(path))
    return Product(node, kinds[0], parts[kinds[0]], parts.get("smooth"), parts.get("shift"))


def levels_here() -> int:
    """Levels a side of int8 weights on this CPU: so many that no sum of products saturates.

    With VNNI or AMX, 127: 48 photographs were .64 points off float32 in the mean, 3.2 at most, and
    1.1 and 3.7 with 63; without, 127 saturates, and they were 1.3 and 4.8 off.
    """
    return INT8_LEVELS if int8_is_fast() else _NARROW_LEVELS


def weight_levels(
    weights: FloatArray,
    axis: int,
    smooth: FloatArray | None = None,
    most: int = INT8_LEVELS,
) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """Quantize the weights of a product.

    Args:
        weights: (I, O) of a matrix product, (O, I, ...) of a convolution, float32.
        axis: of their output channels: 1 or 0.
        smooth: what the activation's channels are multiplied by, (I,).
        most: levels a side.

    Returns:
        Levels of the same shape, in -most..most, and the value of a level in each output channel,
        of a shape that broadcasts.
    """
    if smooth is not None:
        weights = weights / along(smooth, 1 - axis, weights.ndim)
    others = tuple(i for i in range(weights.ndim) if i != axis)
    # Without copies of its size: a process that scores one image waits for this.
    peak = np.maximum(weights.max(others, keepdims=True), -weights.min(others, keepdims=True))
    scale = np.maximum(peak, peak.max() * _LEAST_RANGE) / np.float32(most)
    # A product of zeros alone has no scale of its own.
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    levels = weights / scale
    return np.rint(levels, out=levels).astype(np.int8), scale


def along(vector: npt.NDArray[Any], axis: int, rank: int) -> npt.NDArray[Any]:
    """Shape a vector (or scalar) such that it broadcasts along an axis of a tensor."""
    return vector.reshape([-1 if i == axis else 1 for i in range(rank)]) if vector.ndim else vector


def quantize(model: Any, products: Iterable[Product]) -> None:
    """Quantize products of an OpenVINO model in place.

    Args:
        model: from a bundle's float graph, its weights unpacked.
        products: what is quantized.

    Raises:
        EngineMismatchError: the model has no such product.
    """
    found = {
        op.get_friendly_name().removesuffix("/WithoutBiases"): op
        for op in model.get_ops()
        if op.get_type_name() in ("MatMul", "Convolution", "GroupConvolution")
        and op.input_value(1).get_node().get_type_name() == "Constant"
    }
    for product in products:
        if product.node not in found:
            raise EngineMismatchError(f"has no product {product.node}", item="int8")
        _quantize(found[product.node], product)


def _quantize(op: Any, product: Product) -> None:
    from openvino import opset13 as ops

    rank, matrix = len(op.get_output_partial_shape(0)), op.get_type_name() == "MatMul"
    channels = rank - 1 if matrix else 1
    readers = op.output(0).get_target_inputs()

    activation = op.input_value(0)
    if product.smooth is not None:
        activation = ops.multiply(activation, along(product.smooth, channels, rank))
    low, high = (-128, 127) if product.kind == "int8" else (0, 255)
    step = along(product.step, channels, rank)
    ends = [np.asarray(level * step, np.float32) for level in (low, high)]
    activation = ops.fake_quantize(activation, *ends, *ends, levels=256)

    values = op.input_value(1).get_node().data
    # Groups come as an axis of their own before the output channels.
    grouped = values.shape[:2] if op.get_type_name() == "GroupConvolution" else ()
    flat = values.reshape(-1, *values.shape[2:]) if grouped else values
    levels, scale = weight_levels(flat, 1 if matrix else 0, product.smooth, levels_here())
    if grouped:
        scale = scale.reshape(*grouped, *scale.shape[1:])
    weights = ops.multiply(
        ops.convert(ops.constant(levels.reshape(values.shape)), "f32"), ops.constant(scale)
    )
    op.input(0).replace_source_output(activation.output(0))
    op.input(1).replace_source_output(weights.output(0))
    if product.shift is not None:
        shifted = ops.add(op.output(0), along(product.shift, channels, rank))
        for reader in readers:
            reader.replace_source_output(shifted.output(0))
