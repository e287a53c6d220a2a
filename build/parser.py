"""ONNX graphs to plans by TensorRT's own parser: TensorRT 10, 11 or TensorRT-RTX.

The three share one Python interface. Networks are strongly typed: what an engine computes in
stands in its graph.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx

from build.profiles import Input
from giqa.errors import EngineMismatchError
from giqa.files import write

_LOG = logging.getLogger(__name__)

_ERROR = 1
"""Severity of the logger's errors; 0 are internal ones."""

_NOISE = r"Cuda Runtime|ModelImporter"
"""Errors of a machine without a GPU, and where in the parser it happened."""

_DYNAMIC = "export with batch and V dynamic, from an example with a batch of 3 (1 is special)"
_CHANGE = "change the model or the exporter"
_REMEDIES = (
    (r"UInt8", "cast uint8 to float before anything moves it: `.float()` comes first"),
    (r"[Pp]lugin|[Nn]ot supported", "write it with operators that TensorRT has"),
    (r"types?\b", "cast its inputs to one type: nothing is cast unasked"),
    (r"volume|[Dd]imension|[Ss]hape|profile", _DYNAMIC),
)


@dataclass(frozen=True)
class Refusal:
    """Why TensorRT does not take a graph.

    Attributes:
        reason: what is wrong, in TensorRT's words.
        node: the ONNX node that it stumbled over; empty if none in particular.
        operator: its operator.
        remedy: what to change.
    """

    reason: str
    node: str = ""
    operator: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """`node (operator): reason`."""
        return f"{self.node} ({self.operator}): {self.reason}" if self.node else self.reason


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an engine is built.

    Attributes:
        hardware_compatible: runs on every GPU since Ampere, a little slower.
        version_compatible: later TensorRT versions of the same major version run it, too.
        refittable: its weights may be changed later.
        workspace_mb: memory that the builder may use; None: all of the GPU's.
        level: optimisation level 0 (fast to build) .. 5.
        timing_cache: file that remembers what was timed; made if it does not exist.
        targets: compute capabilities such as `8.9` to build for without a GPU (TensorRT-RTX).
    """

    hardware_compatible: bool = False
    version_compatible: bool = False
    refittable: bool = False
    workspace_mb: int | None = None
    level: int | None = None
    timing_cache: Path | None = None
    targets: tuple[str, ...] = ()


def targets_of(runtime: Any) -> tuple[str, ...]:
    """Compute capabilities that a TensorRT-RTX builds for: `8.9`, ..."""
    names = (re.fullmatch(r"SM(\d+)(\d)", n) for n in runtime.ComputeCapability.__members__)
    return tuple(f"{n[1]}.{n[2]}" for n in names if n)


def compile_graph(
    runtime: Any, model: onnx.ModelProto, profiles: Sequence[Sequence[Input]], settings: Settings
) -> bytes | Refusal:
    """Compile a graph.

    Args:
        runtime: the module `tensorrt` or `tensorrt_rtx`.
        model: the graph; precision lives in it.
        profiles: optimisation profiles, each with all inputs.
        settings: how.

    Returns:
        The plan, or why there is none.

    Raises:
        EngineMismatchError: there is no usable GPU, or the timing cache cannot be read.
        StorageFullError: no room for the timing cache.
    """
    log = _logger(runtime)
    log.lines.clear()
    try:
        builder = runtime.Builder(log)
    except (RuntimeError, TypeError) as e:  # what bindings make of a null pointer
        raise EngineMismatchError(
            f"TensorRT starts no builder: {_said(log) or e}",
            remedy="build engines on the GPU that they are for",
        ) from e
    flag = runtime.NetworkDefinitionCreationFlag.__members__.get("STRONGLY_TYPED")
    # TensorRT 11 knows nothing else and may drop the flag.
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = runtime.OnnxParser(network, log)
    if not parser.parse(model.SerializeToString()):
        return _not_parsed(parser, log)
    config = builder.create_builder_config()
    for inputs in profiles:
        if (mismatch := _mismatch(network, inputs)) is not None:
            return mismatch
        profile = builder.create_optimization_profile()
        for one in inputs:
            profile.set_shape(one.name, one.minimum, one.optimum, one.maximum)
        config.add_optimization_profile(profile)
    _configure(runtime, config, settings)
    if settings.timing_cache is not None:
        _load_timings(config, settings.timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return _not_built(model, log)
    if settings.timing_cache is not None:
        write(settings.timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _configure(runtime: Any, config: Any, settings: Settings) -> None:
    # On by default, and 10 bits of mantissa are no float32.
    config.clear_flag(runtime.BuilderFlag.TF32)
    if settings.workspace_mb is not None:
        pool = runtime.MemoryPoolType.WORKSPACE
        config.set_memory_pool_limit(pool, settings.workspace_mb * 2**20)
    if settings.level is not None:
        config.builder_optimization_level = settings.level
    if settings.hardware_compatible:
        config.hardware_compatibility_level = runtime.HardwareCompatibilityLevel.AMPERE_PLUS
    if settings.version_compatible:
        config.set_flag(runtime.BuilderFlag.VERSION_COMPATIBLE)
    if settings.refittable:
        config.set_flag(runtime.BuilderFlag.REFIT)
    if settings.targets:
        config.num_compute_capabilities = len(settings.targets)
        for i, target in enumerate(settings.targets):
            name = f"SM{target.replace('.', '')}"
            config.set_compute_capability(runtime.ComputeCapability.__members__[name], i)


def _mismatch(network: Any, inputs: Sequence[Input]) -> Refusal | None:
    """What of the graph's inputs does not fit the profile."""
    found = {i.name: tuple(i.shape) for i in map(network.get_input, range(network.num_inputs))}
    wanted = sorted(one.name for one in inputs)
    if sorted(found) != wanted:
        return Refusal(
            f"inputs are {sorted(found)} instead of {wanted}",
            remedy="export with the contract's tensor names",
        )
    for one in inputs:
        ends = zip(one.minimum, one.maximum, strict=True)
        shape = found[one.name]
        if len(shape) != len(one.minimum):
            what = f"{len(shape)} dimensions instead of {len(one.minimum)}"
        # -1 is dynamic; a size that is written down has to be the only one.
        elif fixed := [
            i for i, (n, e) in enumerate(zip(shape, ends, strict=True)) if n != -1 and {n} != {*e}
        ]:
            what = f"dimension {fixed[0]} hard-coded as {shape[fixed[0]]}"
        else:
            continue
        return Refusal(f"input {one.name} has {what}", remedy=_DYNAMIC)
    return None


def _load_timings(config: Any, path: Path) -> None:
    try:
        cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    except OSError as e:
        raise EngineMismatchError(
            f"cannot be read: {e.strerror}", item=str(path), remedy="give another --timing-cache"
        ) from e
    if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
        return
    # Of another GPU or TensorRT, or half-written: no reason to build nothing.
    aside = path.with_name(f"{path.name}.stale")
    path.replace(aside)
    _LOG.warning("%s holds timings of another GPU or TensorRT: set aside as %s", path, aside.name)
    config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _not_parsed(parser: Any, log: Any) -> Refusal:
    if not parser.num_errors:
        return _refusal(_said(log))
    error = parser.get_error(0)
    operator = error.node_operator()
    if "UNSUPPORTED" in str(error.code()) or "importer" in error.desc():
        return Refusal(
            f"TensorRT has no operator {operator}, or not as it is used here",
            error.node_name(),
            operator,
            remedy="write it with operators that TensorRT has, in the model or for the exporter",
        )
    lines = [line for line in error.desc().splitlines() if not re.search(_NOISE, line)]
    return _refusal(lines[-1] if lines else str(error.code()), error.node_name(), operator)


def _not_built(model: onnx.ModelProto, log: Any) -> Refusal:
    """Layers are called like their nodes."""
    said = _said(log)
    operators = {node.name: node.op_type for node in model.graph.node if node.name}
    words = re.findall(r"[\w./]+", said)
    node = next((word for word in words if word in operators), "")
    return _refusal(said, node, operators.get(node, ""))


def _refusal(text: str, node: str = "", operator: str = "") -> Refusal:
    # Without the places in TensorRT's own source, and without the name that stands beside.
    text = re.split(r"\.? In \S+ at ", re.sub(r"^\S*: Error Code \d+: ", "", text))[0]
    text = re.sub(r"^(Internal|API Usage) Error \(", "", text)
    if node:
        text = text.replace(f"{node}: ", "", 1)
    remedy = next((r for pattern, r in _REMEDIES if re.search(pattern, text)), _CHANGE)
    return Refusal(text.strip(), node, operator, remedy)


def _said(log: Any) -> str:
    """The first error in the log that says what went wrong."""
    errors = [text for severity, text in log.lines if severity <= _ERROR]
    relevant = [text for text in errors if not re.search(_NOISE, text)]
    return (relevant or errors or [""])[0]


@cache
def _logger(runtime: Any) -> Any:
    """Make the logger; TensorRT takes one for the whole process."""

    class Log(runtime.ILogger):
        def __init__(self) -> None:
            runtime.ILogger.__init__(self)
            self.lines: list[tuple[int, str]] = []

        def log(self, severity: Any, text: str) -> None:
            self.lines.append((int(severity), text))

    return Log()
