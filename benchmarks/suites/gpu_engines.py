"""TensorRT engines on a GPU, where TensorRT is: agreement with ONNX Runtime, and speed.

Fourth part of `make gpu`. From views to scores, without a server. Building takes minutes a
precision: engines stay in `dist/engines`, and a run goes on where one before had no more time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

from benchmarks import images
from benchmarks.gpus import device_of, name_of
from benchmarks.options import Options
from benchmarks.record import Series
from benchmarks.rounds import interleave
from benchmarks.suites.gpu import BATCHES, _seconds, _views
from benchmarks.suites.gpu_graphs import _agreed, _decoded, _stacked
from build.parity import Runtime, compare
from build.runtimes import onnx_runtime
from giqa.bundle import load_bundle
from giqa.errors import MissingExtraError


def run(options: Options) -> Iterator[Series]:
    """Measure on this machine's first GPU.

    Raises:
        EngineMismatchError: there is no usable GPU.
        MissingExtraError: there is no TensorRT.
    """
    device = device_of("gpu_engines")
    if find_spec("tensorrt") is None:
        raise MissingExtraError(
            "TensorRT is not installed", item="gpu_engines",
            remedy="run it in NVIDIA's TensorRT or Triton container",
        )  # fmt: skip
    from benchmarks.tensorrt import engines

    bundle = load_bundle(options.bundle)
    views = _decoded(bundle, images.mixed(options, 4 if options.quick else 64), options)
    facts: dict[str, Any] = {"device": name_of(device), "images": len(views)}
    ways = {}
    reference = onnx_runtime(bundle, threads=options.threads)
    for name, way in engines(bundle, max(BATCHES)):
        ways[name] = way

        def whole(part: Any, way: Any = way) -> list[float]:
            found = way(_stacked(part, device))
            return [float(s) for s in found[:, 0].float().cpu()]

        runtime = Runtime(name, way.precision, whole=whole)
        (row,) = compare(bundle.manifest.id, views, reference, [runtime]).rows
        yield from _agreed(row, reference, facts)
    timed = {
        f"{name}, batch {batch}": partial(_seconds, way, _views(bundle, batch, device), batch)
        for name, way in ways.items()
        for batch in BATCHES
    }
    for name, seconds in interleave(timed, rounds=options.rounds, seed=options.seed).items():
        yield Series(
            name=f"{name}/throughput", unit="images/s", better="higher",
            values=tuple(1 / s for s in seconds), facts=facts,
        )  # fmt: skip
