"""The bundle's graphs compiled for this CPU with OpenVINO."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

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
from giqa.errors import EngineMismatchError, MissingExtraError
from giqa.int8 import Product, quantize, read_products

Precision = Literal["auto", "f32", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_TELEMETRY = "openvino_telemetry"
_HALVED = (LOCAL_BRANCH, FUSION)
"""Graphs of many small operations, which gain by halves; the global branch's are large."""

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_capabilities() -> list[str]:
    """What OpenVINO can compute natively on this CPU: `FP32`, `BF16`, `INT8`, ...

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    core = import_openvino().Core()
    return list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def int8_is_fast() -> bool:
    """This CPU has instructions for products of int8 (VNNI, AMX)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False
    return not {"avx512_vnni", "avx_vnni", "amx_int8"}.isdisjoint(flags)


def choose_precision(bundle: Bundle, asked: Precision) -> Precision:
    """Resolve a precision for this bundle and CPU.

    Args:
        bundle: the bundle.
        asked: what the user wants; `auto` takes int8 where the bundle has it and the CPU is fast at
            it, else bf16 where the CPU has it, else f32.

    Returns:
        `f32`, `bf16` or `int8`.

    Raises:
        EngineMismatchError: the CPU has no bf16, or the bundle no int8.
    """
    bf16 = "BF16" in cpu_capabilities()
    if asked == "auto":
        if bundle.manifest.int8 is not None and int8_is_fast():
            return "int8"
        return "bf16" if bf16 else "f32"
    if asked == "bf16" and not bf16:
        raise EngineMismatchError("this CPU does not compute bf16", item="--precision bf16")
    if asked == "int8":
        _ = bundle.int8  # raises where there is none
    return asked


def cpu_options(threads: int, *, half: bool) -> dict[str, Any]:
    """What a graph is compiled with for this CPU.

    Args:
        threads: CPU threads.
        half: compute in bfloat16; in float32 otherwise.

    Returns:
        OpenVINO's properties.
    """
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "INFERENCE_NUM_THREADS": threads,
        # Every process would take the same CPUs, the first ones, and leave the others idle.
        "ENABLE_CPU_PINNING": False,
    }


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
        with _told(self._bundle.graph(self._name)):
            compiled = import_openvino().Core().compile_model(model, "CPU", options)
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
            local_view: (B, V, l, l, 3) uint8.

        Returns:
            Scores (B,) float32 in 0..100 and maps (B, V, grid, grid) float32 on the same scale,
            None if the model has no map.
        """
        with self._lock:
            tokens = self._graphs[GLOBAL_BRANCH]({GLOBAL_VIEW: global_view})
            tokens |= self._graphs[LOCAL_BRANCH]({LOCAL_VIEW: local_view})
            found = self._graphs[FUSION](tokens)
            score = np.array(found[SCORE][:, 0], np.float32)
            quality = np.array(found[QUALITY_MAP], np.float32) if QUALITY_MAP in found else None
            return score, quality


@contextmanager
def no_telemetry() -> Iterator[None]:
    """Let what is imported inside find no `openvino_telemetry`: giqa talks to no network.

    OpenVINO and NNCF look for it when they are imported. With it, whoever converts or quantizes a
    model reports it to their makers, from a process that is forked for that; and importing takes
    a quarter longer.
    """
    absent = _TELEMETRY not in sys.modules
    if absent:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            sys.modules.pop(_TELEMETRY, None)


def import_openvino() -> Any:
    """Import OpenVINO, without its telemetry.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        with no_telemetry():
            import openvino
    except ImportError as e:
        raise MissingExtraError(f"OpenVINO does not import: {e}", extra="cpu") from e
    return openvino


def _part_gelus(model: Any) -> None:
    """Keep GELUs of one row an image out of the products before them.

    OpenVINO 2026.4 fuses the two, and computes a single row otherwise than several: in float32 a
    score would depend on the batch, by 4e-6. A product whose result is used twice is not fused.
    """
    from openvino import opset13 as ops

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Gelu" or len(node.get_output_partial_shape(0)) != 2:
            continue
        given = node.input_value(0)
        width = given.get_partial_shape()[1].get_length()
        users = node.output(0).get_target_inputs()
        twice = ops.gelu(ops.concat([given, given], 1), node.get_attributes()["approximation_mode"])
        once = ops.gather(twice, ops.constant(list(range(width))), ops.constant(1))
        for user in users:
            user.replace_source_output(once.output(0))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """OpenVINO's errors as ours."""
    try:
        yield
    except RuntimeError as e:
        raise EngineMismatchError(
            f"OpenVINO cannot compile it: {str(e).splitlines()[0]}", item=str(path)
        ) from e


def prepare(bundle: Bundle, name: str, precision: Precision) -> Any:
    """Read a bundle's graph as an OpenVINO model that is ready to be compiled.

    Args:
        bundle: a verified bundle.
        name: `global_branch`, `local_branch` or `fusion`.
        precision: `f32`, `bf16` or `int8`, for which products are quantized.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        EngineMismatchError: the graph cannot be read, or has not the products to be quantized.
    """
    products = read_products(bundle.int8, name) if precision == "int8" else []
    return _read(bundle.graph(name), products)


def _read(path: Path, products: Sequence[Product]) -> Any:
    core = import_openvino().Core()
    from openvino.passes import ConstantFolding, Manager

    with _told(path):
        model = core.read_model(path)
        # Decompress the weights now: left to the plugin, they are unpacked at every inference.
        manager = Manager()
        manager.register_pass(ConstantFolding())
        manager.run_passes(model)
        quantize(model, products)
        _part_gelus(model)
    return model
