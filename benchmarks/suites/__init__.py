"""The suites: each a module with `run(options)` that yields series."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from benchmarks.options import Options
from benchmarks.record import Series

SUITES = {
    "engine": "JPEG bytes to score in process, next to PyTorch and ONNX Runtime",
    "triton": "a server on this CPU: next to scoring in process, under perf_analyzer, overloaded",
    "video": "videos and batch runs, next to decoding alone and inference alone",
    "peers": "other scorers of image quality: speed, memory, agreement with people",
}
"""Name to what it measures, in the order in which they run."""


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
