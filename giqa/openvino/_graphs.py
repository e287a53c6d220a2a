"""The bundle's graphs compiled for this CPU with OpenVINO."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from giqa import forks
from giqa.bundle import Bundle
from giqa.contract import (
    FUSION,
    GLOBAL_BRANCH,
    GLOBAL_VIEW,
    GRAPHS,
    LOCAL_BRANCH,
    LOCAL_VIEW,
    QUALITY_MAP,
    SCORE,
)
from giqa.forks import Origin
from giqa.openvino._cpu import cpu_capabilities, cpu_options
from giqa.openvino._model import prepare, told
from giqa.openvino._runtime import core
from giqa.precision import Precision
from giqa.types import FloatArray, UInt8Array

_HALVED = (LOCAL_BRANCH, FUSION)
"""Graphs of many small operations, which gain by halves; the global branch's are large."""


class CompiledGraph:
    """One graph of a bundle, compiled; one caller at a time.

    Args:
        bundle: a verified bundle.
        name: `global_branch`, `local_branch` or `fusion`.
        precision: `f32`, `bf16` or `int8` (see `choose_precision`).
        threads: threads of one inference.
        model: what `prepare` made of the same; made here unless given.
        halves: infer the halves of an even batch beside each other, each with half of the threads:
            they need not wait for one another after every operation. Numbers stay the same.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        EngineMismatchError: the graph does not compile here.
    """

    def __init__(
        self,
        bundle: Bundle,
        name: str,
        precision: Precision,
        threads: int,
        model: Any = None,
        *,
        halves: bool = False,
    ) -> None:
        self._bundle, self._name, self._precision = bundle, name, precision
        self._threads = threads
        forks.keep(self)
        (self._whole,) = self._compile(1, model)
        self._in_halves = halves and threads % 2 == 0
        self._halves: list[Any] = []
        self.outputs = tuple(port.get_any_name() for port in self._whole.model_outputs)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Infer.

        Args:
            inputs: tensors by name, with the batch.

        Returns:
            Output tensors by name; the memory is used again by the next call.
        """
        batch = len(next(iter(inputs.values())))
        if not self._in_halves or batch % 2:
            self._whole.infer(dict(inputs), share_inputs=True)
            return {name: self._whole.get_tensor(name).data for name in self.outputs}
        if not self._halves:  # not before they are wanted: one image is scored sooner without
            self._halves = self._compile(2)
        with ExitStack() as running:
            for i, request in enumerate(self._halves):
                half = slice(i * batch // 2, (i + 1) * batch // 2)
                part = {name: tensor[half] for name, tensor in inputs.items()}
                request.start_async(part, share_inputs=True)
                running.callback(request.wait)
        return {
            name: np.concatenate([request.get_tensor(name).data for request in self._halves])
            for name in self.outputs
        }

    def _compile(self, streams: int, model: Any = None) -> list[Any]:
        """Compile for as many inferences at once, which share the threads; one request for each."""
        # What is not quantized computes in half precision where the CPU has it.
        half = self._precision == "bf16" or (
            self._precision == "int8" and "BF16" in cpu_capabilities()
        )
        options = {
            **cpu_options(self._threads, half=half),
            "NUM_STREAMS": streams,
            # Weights are stored in few bits; activations stay as they are.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        if model is None:
            model = prepare(self._bundle, self._name, self._precision)
        with told(self._bundle.graph(self._name)):
            compiled = core().compile_model(model, "CPU", options)
            return [compiled.create_infer_request() for _ in range(streams)]


class CompiledGraphs:
    """Global branch, local branch and fusion, compiled; safe to call from several threads.

    Args:
        bundle: a verified bundle.
        precision: `f32`, `bf16` or `int8` (see `choose_precision`).
        threads: threads of one inference.
        meanwhile: is called while graphs compile.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        EngineMismatchError: a graph does not compile here.
    """

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision,
        threads: int,
        meanwhile: Callable[[], object] | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._origin = Origin("the compiled graphs", "were made")
        forks.use_runtime("OpenVINO")
        # Opening is much of a short run's time. Preparing holds Python's lock, compiling does not
        # and is mostly one thread's work: so small graphs compile while large ones are prepared.
        with ThreadPoolExecutor(len(GRAPHS)) as pool:
            making = {}
            for name in sorted(GRAPHS, key=lambda name: bundle.graph(name).stat().st_size):
                model = prepare(bundle, name, precision)
                compiling = partial(CompiledGraph, bundle, name, precision, threads, model)
                making[name] = pool.submit(compiling, halves=name in _HALVED)
            if meanwhile is not None:
                meanwhile()
            self._graphs = {name: making[name].result() for name in GRAPHS}

    def __call__(
        self, global_view: UInt8Array, local_view: UInt8Array
    ) -> tuple[FloatArray, FloatArray | None]:
        """Score a batch of views.

        Args:
            global_view: (B, V, g, g, 3) uint8.
            local_view: (B, V + T, l, l, 3) uint8.

        Returns:
            Scores (B,) float32 in 0..100 and maps (B, V, grid, grid) float32 on the same scale,
            None if the model has no map.

        Raises:
            UsageError: another process compiled them.
        """
        self._origin.check()
        with self._lock:
            tokens = self._graphs[GLOBAL_BRANCH]({GLOBAL_VIEW: global_view})
            tokens |= self._graphs[LOCAL_BRANCH]({LOCAL_VIEW: local_view})
            found = self._graphs[FUSION](tokens)
            score = np.array(found[SCORE][:, 0], np.float32)
            quality = np.array(found[QUALITY_MAP], np.float32) if QUALITY_MAP in found else None
            return score, quality
