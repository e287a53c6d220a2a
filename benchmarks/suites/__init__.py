"""The suites: each a module with `run(options)` that yields series."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from benchmarks.options import Options
from benchmarks.record import Series

SUITES = {
    "micro": "single steps: probe, decode, views, branches, fusion, client's messages",
    "engine": "JPEG bytes to score in process, next to PyTorch and ONNX Runtime",
    "limit": "operations counted, next to the machine's peak",
    "scale": "cost against number of images, image size and views; memory against length",
    "triton": "a server on this CPU: next to scoring in process, under perf_analyzer, overloaded",
    "video": "videos and batch runs, next to decoding alone and inference alone",
    "peers": "other scorers of image quality: speed, memory, agreement with people",
    "gpu": "the model on an NVIDIA GPU, next to its peak; only when named (`make gpu`)",
    "gpu_graphs": "engines' graphs in PyTorch on a GPU: agreement, CUDA graphs; only when named",
    "gpu_decoding": "DALI's pipelines on a GPU: pixels, errors, memory, speed; only when named",
    "gpu_engines": "TensorRT engines on a GPU: agreement and speed; only when named",
    "gpu_server": "Triton with everything on a GPU, under perf_analyzer; only when named",
}
"""Name to what it measures, in the order in which they run."""

EVERYWHERE = tuple(name for name in SUITES if not name.startswith("gpu"))
"""Those that need no GPU: what runs unless suites are named."""


def run(name: str, options: Options) -> Iterator[Series]:
    """Run a suite.

    Args:
        name: one of `SUITES`.
        options: of the run.

    Yields:
        What was measured, as soon as it is.
    """
    # Imported when it runs: suites need different extras.
    suite: Callable[[Options], Iterator[Series]] = import_module(f"{__name__}.{name}").run
    yield from suite(options)
