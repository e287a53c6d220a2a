"""What this machine can do at best: matrix products by several libraries, and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from giqa.openvino import core, cpu_capabilities, import_openvino
from giqa.precision import Precision

SHAPES = ((196, 768, 3072), (1568, 768, 3072), (2048, 2048, 2048))
"""Rows, depth and columns: a ViT's MLP for one and for eight images, and a large square."""
QUICK_SHAPES = ((196, 768, 768),)

_SECONDS = 0.2
"""Least time of one measurement."""
_FLOATS = 1 << 24
"""Numbers in each array of the bandwidth's: 64 MB, larger than caches."""


@dataclass(frozen=True)
class Product:
    """One way to multiply matrices.

    Attributes:
        name: library and shape.
        precision: `f32`, `bf16` or `int8`.
        run: measures it once: operations a second.
    """

    name: str
    precision: Precision
    run: Callable[[], float]


def products(threads: int, shapes: tuple[tuple[int, int, int], ...] = SHAPES) -> Iterator[Product]:
    """Every library with every shape, in every precision that it has here.

    Args:
        threads: of each product.
        shapes: rows, depth and columns.

    Yields:
        What is to be measured.
    """
    rng = np.random.default_rng(0)
    for rows, depth, columns in shapes:
        shape = f"{rows}x{depth}x{columns}"
        flops = 2 * rows * depth * columns
        a = rng.standard_normal((rows, depth), np.float32)
        b = rng.standard_normal((depth, columns), np.float32)
        makers: list[tuple[str, Precision, Callable[[], object]]] = [
            ("numpy", "f32", _numpy(a, b, threads)),
            ("PyTorch", "f32", _torch(a, b, "float32", threads)),
            ("PyTorch", "bf16", _torch(a, b, "bfloat16", threads)),
            ("OpenVINO", "f32", _openvino(a, b, "f32", threads)),
            ("OpenVINO", "int8", _openvino(a, b, "int8", threads)),
        ]
        if "BF16" in cpu_capabilities():
            makers.append(("OpenVINO", "bf16", _openvino(a, b, "bf16", threads)))
        for library, precision, call in makers:
            yield Product(f"{library} {precision} {shape}", precision, _rate(call, flops))


def bandwidth(threads: int) -> dict[str, Callable[[], float]]:
    """Copy (a = b) and triad (a = b + s c) of arrays that no cache holds.

    Args:
        threads: of each.

    Returns:
        Name to what measures bytes a second once; reads and writes are counted, the reading of
        what is about to be overwritten is not.
    """
    import torch

    a, b, c = (torch.zeros(_FLOATS) for _ in range(3))

    def copy() -> None:
        torch.set_num_threads(threads)
        a.copy_(b)

    def triad() -> None:
        torch.set_num_threads(threads)
        torch.add(b, c, alpha=3.0, out=a)

    size = a.element_size() * _FLOATS
    return {"copy": _rate(copy, 2 * size), "triad": _rate(triad, 3 * size)}


def _rate(call: Callable[[], object], work: int) -> Callable[[], float]:
    def run() -> float:
        call()
        times: list[float] = []
        start = time.perf_counter()
        while not times or time.perf_counter() - start < _SECONDS:
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        return work / min(times)  # a peak is what was reached at all

    return run


def _numpy(a: Any, b: Any, threads: int) -> Callable[[], object]:
    out = np.empty((len(a), b.shape[1]), np.float32)

    def call() -> None:
        with threadpool_limits(threads, "blas"):
            np.matmul(a, b, out=out)

    return call


def _torch(a: Any, b: Any, dtype: str, threads: int) -> Callable[[], object]:
    import torch

    x, y = (torch.from_numpy(m).to(getattr(torch, dtype)) for m in (a, b))

    def call() -> None:
        torch.set_num_threads(threads)
        torch.mm(x, y)

    return call


def _openvino(a: Any, b: Any, precision: Precision, threads: int) -> Callable[[], object]:
    """The second matrix is constant, as weights are; int8 also quantizes what comes in."""
    ov = import_openvino()
    from openvino import opset13 as ops

    given = ops.parameter(a.shape, np.float32)
    left, right = given, ops.constant(b)
    if precision == "int8":
        # Signed and symmetric, with 255 levels, as in the bundle's int8 graphs.
        left, right = (
            ops.fake_quantize(m, *(np.float32(v) for v in (-4, 4, -4, 4)), 255)
            for m in (left, right)
        )
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    model = ov.Model([ops.matmul(left, right, False, False)], [given])
    request = core().compile_model(model, "CPU", options).create_infer_request()
    request.set_tensor(given.output(0), ov.Tensor(a))
    return request.infer
