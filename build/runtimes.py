"""The runtimes of this machine that parity is measured for."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from build.graphs import engine_graph
from build.numerics import ONNX_RUNTIME_INT8, ONNX_RUNTIME_OPTIONS
from build.parity import Array, Runtime
from giqa.bundle import Bundle
from giqa.errors import EngineMismatchError, MissingExtraError
from giqa.openvino import CompiledGraph, cpu_capabilities, cpu_count
from giqa.precision import HALVES, PRECISIONS, Precision
from giqa.types import Views

REFERENCE = "onnxruntime-f32"


def onnx_runtime(
    bundle: Bundle, precision: Precision = "f32", *, threads: int | None = None
) -> Runtime:
    """ONNX Runtime on the CPU; half precision is emulated, see `build.precision`.

    Args:
        bundle: a verified bundle.
        precision: what it computes in.
        threads: of one inference; all that the process may use unless given.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as e:
        raise MissingExtraError(f"ONNX Runtime does not import: {e}", extra="train") from e
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cpu_count()
    entries = ONNX_RUNTIME_INT8 if precision == "int8" else ONNX_RUNTIME_OPTIONS
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    emulated = precision in HALVES
    alone = emulated or precision == "int8"  # the rest of int8 in float32, as on a CPU
    sessions: dict[str, Any] = {}

    def run(name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if name not in sessions:
            model = engine_graph(bundle, name, precision, emulate=alone)
            sessions[name] = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        outputs = [o.name for o in sessions[name].get_outputs()]
        return dict(zip(outputs, sessions[name].run(outputs, dict(inputs)), strict=True))

    suffix = " (emulated)" if emulated else ""
    return Runtime(f"onnxruntime-{precision}{suffix}", precision, graphs=run)


def openvino(bundle: Bundle, precision: Precision, *, threads: int | None = None) -> Runtime:
    """OpenVINO on the CPU, as giqa runs it.

    Args:
        bundle: a verified bundle.
        precision: `f32`, `bf16` or `int8`.
        threads: of one inference; all that the process may use unless given.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        EngineMismatchError: a graph does not compile here.
    """
    compiled: dict[str, CompiledGraph] = {}

    def run(name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if name not in compiled:
            compiled[name] = CompiledGraph(bundle, name, precision, threads or cpu_count())
        return compiled[name](inputs)

    return Runtime(f"openvino-{precision}", precision, graphs=run)


def triton(url: str, bundle: Bundle) -> Runtime:
    """A running server, whatever it serves on: OpenVINO, or TensorRT on a GPU.

    Args:
        url: `grpc://HOST:PORT`.
        bundle: what it has to serve.

    Raises:
        MissingExtraError: tritonclient is not installed.
        GiqaError: it cannot be reached, or serves another bundle.
    """
    from giqa.client import TritonScorer

    scorer = TritonScorer(url)
    if scorer.manifest.id != bundle.manifest.id:
        raise EngineMismatchError(
            f"serves {scorer.manifest.id}, not {bundle.manifest.id}", item=url, remedy="--bundle"
        )
    (precision,) = (p for p in PRECISIONS if p == scorer.engine.rpartition("-")[2])

    def score(views: Sequence[Views]) -> list[float]:
        return [one.score for one in scorer.score_views(views)]

    return Runtime(f"triton {scorer.engine}", precision, whole=score)


def here(
    bundle: Bundle, *, threads: int | None = None, urls: Sequence[str] = ()
) -> tuple[list[Callable[[], Runtime]], dict[str, str]]:
    """What runs on this machine.

    Args:
        bundle: a verified bundle.
        threads: of one inference; all that the process may use unless given.
        urls: running servers.

    Returns:
        Makers of runtimes, and those that are not here with the reason.
    """
    made: list[Callable[[], Runtime]] = []
    absent: dict[str, str] = {}
    int8 = bundle.manifest.int8 is not None
    for precision in HALVES:
        made.append(partial(onnx_runtime, bundle, precision, threads=threads))
    made.append(partial(openvino, bundle, "f32", threads=threads))
    if "BF16" in cpu_capabilities():
        made.append(partial(openvino, bundle, "bf16", threads=threads))
    else:
        absent["openvino-bf16"] = "this CPU does not compute bf16"
    if int8:
        made.append(partial(onnx_runtime, bundle, "int8", threads=threads))
        made.append(partial(openvino, bundle, "int8", threads=threads))
    else:
        absent["openvino-int8"] = "the bundle has no int8"
    if importlib.util.find_spec("tensorrt") is None:
        absent["tensorrt"] = "not installed; where it is, serve the engines and give --url"
    if not urls:
        absent["triton"] = "no --url of a running server"
    made += [partial(triton, url, bundle) for url in urls]
    return made, absent


def one_by_one(makers: Sequence[Callable[[], Runtime]]) -> Iterator[Runtime]:
    """Make runtimes when their turn comes, so that only one lies in memory."""
    for make in makers:
        yield make()
