"""TensorRT engines of a bundle, with their descriptions: two ways, one result.

`build_engines` gives the bundle's ONNX graphs to TensorRT's own parser and needs no torch;
`serialize` gives exported programs to torch-tensorrt.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from build.graphs import engine_graph
from build.parser import Refusal, Settings, compile_graph
from build.profiles import Input, bundle_profiles
from giqa.bundle import Bundle
from giqa.contract import GRAPHS
from giqa.errors import EngineMismatchError, MissingExtraError, UsageError
from giqa.files import storage
from giqa.manifest import File
from giqa.precision import BOUNDS, Precision
from giqa.serving import (
    BATCH,
    DESCRIPTION,
    PLAN,
    SCHEMA,
    Engine,
    Machine,
    Shapes,
    source_digest,
    this_machine,
    write_repository,
)

_PARSER_INSTEAD = "python -m build engines --bundle B takes the bundle's ONNX graphs instead"


def build_engines(
    bundle: Bundle,
    folder: Path,
    *,
    precision: Precision = "f16",
    max_batch: int = BATCH["gpu"],
    opt_batch: int | None = None,
    settings: Settings | None = None,
) -> dict[str, Engine]:
    """Build the engines of a bundle's graphs for this machine's GPU: all of them or none.

    Args:
        bundle: a verified bundle.
        folder: where they go; engines that lie there are replaced.
        precision: what they compute in.
        max_batch: largest batch of the optimisation profiles.
        opt_batch: the batch that they are tuned for, see `build.profiles.profiles_of`.
        settings: how they are built.

    Returns:
        Their descriptions by graph.

    Raises:
        MissingExtraError: TensorRT is not installed.
        EngineMismatchError: there is no usable GPU, no int8, the GPU has not the precision, or
            TensorRT refuses a graph.
        UsageError: `folder` holds something else.
        StorageFullError: no space is left.
    """
    _check_folder(folder)
    settings = settings or Settings()
    machine = this_machine()
    if not runs_on(precision, machine):
        least = BOUNDS[precision].least_sm
        raise EngineMismatchError(
            f"{machine.gpu} has compute capability {machine.sm}, {precision} needs {least}",
            item=f"--precision {precision}",
            remedy="take another, such as f16",
        )
    runtime = _tensorrt()
    plans: dict[str, bytes] = {}
    profiles = {}
    for name in GRAPHS:
        profiles[name] = bundle_profiles(
            bundle, name, precision, max_batch=max_batch, opt_batch=opt_batch
        )
        graph = engine_graph(bundle, name, precision)
        plan = compile_graph(runtime, graph, profiles[name], settings)
        if isinstance(plan, Refusal):
            raise EngineMismatchError(
                f"TensorRT refuses it: {plan}", item=f"{name}, {precision}", remedy=plan.remedy
            )
        plans[name] = plan
    return write_engines(
        plans,
        folder,
        bundle,
        machine=machine,
        tensorrt=runtime.__version__,
        builder="tensorrt",
        precision=precision,
        profiles=profiles,
        settings=settings,
    )


def runs_on(precision: Precision, machine: Machine) -> bool:
    """Whether a machine's GPU has a precision."""
    have, least = (
        tuple(map(int, sm.split("."))) for sm in (machine.sm, BOUNDS[precision].least_sm)
    )
    return have >= least


def write_engines(
    plans: Mapping[str, bytes],
    folder: Path,
    bundle: Bundle,
    *,
    machine: Machine,
    tensorrt: str,
    builder: Literal["tensorrt", "torch-tensorrt"],
    precision: Precision,
    profiles: Mapping[str, Sequence[Sequence[Input]]],
    settings: Settings,
) -> dict[str, Engine]:
    """Write plans and their descriptions: all of them or none.

    Args:
        plans: plans by graph, of all three.
        folder: where they go; engines that lie there are replaced.
        bundle: whose they are.
        machine: what they were built on.
        tensorrt: version of the TensorRT that built them.
        builder: which way.
        precision: what they compute in.
        profiles: optimisation profiles by graph.
        settings: how they were built.

    Returns:
        The descriptions by graph.

    Raises:
        UsageError: `folder` holds something else.
        StorageFullError: no space is left; what lay there is untouched.
    """
    _check_folder(folder)
    found: dict[str, Engine] = {}
    files: dict[str, bytes] = {}
    for name, plan in plans.items():
        found[name] = Engine(
            schema=SCHEMA,
            bundle=bundle.manifest.id,
            graph=name,  # type: ignore[arg-type]
            onnx_sha256=source_digest(bundle, name, precision),
            precision=precision,
            builder=builder,
            tensorrt=_version(tensorrt),
            cuda=machine.cuda,
            gpu=machine.gpu,
            sm=machine.sm,
            container=machine.container,
            hardware_compatible=settings.hardware_compatible,
            version_compatible=settings.version_compatible,
            refittable=settings.refittable,
            profiles=[
                {i.name: Shapes(minimum=i.minimum, optimum=i.optimum, maximum=i.maximum) for i in p}
                for p in profiles[name]
            ],
            plan=File(sha256=hashlib.sha256(plan).hexdigest(), bytes=len(plan)),
        )
        files[f"{name}/{PLAN}"] = plan
        files[f"{name}/{DESCRIPTION}"] = found[name].to_json().encode()
    with storage(folder):
        write_repository(folder, files)
    return found


def serialize(
    program: Any, inputs: Sequence[Input], outputs: Sequence[str], settings: Settings | None = None
) -> bytes:
    """Compile an exported program to a TensorRT plan for this machine's GPU.

    Args:
        program: a `torch.export.ExportedProgram` of one graph.
        inputs: its inputs in order, with their optimisation profile.
        outputs: names of its outputs in order.
        settings: how.

    Returns:
        The plan. It computes in the types of the program: float32.

    Raises:
        MissingExtraError: torch-tensorrt or TensorRT's libraries are not installed, or
            torch-tensorrt is too old.
        EngineMismatchError: this machine has no usable GPU.
    """
    import torch

    try:
        import torch_tensorrt
    except Exception as e:  # its import loads TensorRT's libraries: OSError, RuntimeError, ...
        raise MissingExtraError(
            f"torch-tensorrt does not import: {e}", extra="tensorrt", item="--engines"
        ) from e
    convert = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine
    if "output_binding_names" not in convert.__kwdefaults__:
        raise MissingExtraError(
            f"torch-tensorrt {torch_tensorrt.__version__} with torch {torch.__version__} cannot "
            "name an engine's tensors, 2.14 can",
            extra="tensorrt",
            item="--engines",
            remedy=f"pip install 'giqa[tensorrt]' into an environment of its own, or: "
            f"{_PARSER_INSTEAD}",
        )
    if not torch.cuda.is_available():
        raise EngineMismatchError(
            "engines are built on the GPU that they are for, and there is none",
            item="--engines",
            remedy="run it on a machine with that GPU",
        )
    arguments = [
        torch_tensorrt.Input(
            min_shape=i.minimum,
            opt_shape=i.optimum,
            max_shape=i.maximum,
            dtype=getattr(torch, i.dtype),
            name=i.name,
        )
        for i in inputs
    ]
    plan: bytes = convert(
        program,
        arg_inputs=arguments,
        **binding_names(program, [i.name for i in inputs], outputs),
        **torch_keywords(settings or Settings()),
    )
    return plan


def torch_keywords(settings: Settings) -> dict[str, Any]:
    """Settings as torch-tensorrt's keywords."""
    found: dict[str, Any] = {
        "hardware_compatible": settings.hardware_compatible,
        "version_compatible": settings.version_compatible,
        "immutable_weights": not settings.refittable,
        # Its "float32" has 10 bits of mantissa otherwise.
        "disable_tf32": True,
    }
    if settings.workspace_mb is not None:
        found["workspace_size"] = settings.workspace_mb * 2**20
    if settings.level is not None:
        found["optimization_level"] = settings.level
    if settings.timing_cache is not None:
        found["timing_cache_path"] = str(settings.timing_cache)
    return found


def binding_names(program: Any, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, Any]:
    """Names of an engine's tensors as torch-tensorrt's keywords.

    They must have the structure of what the program takes and gives: a tuple, or a bare name where
    it gives a bare tensor.
    """
    from torch.utils._pytree import tree_unflatten

    given = program.module_call_graph[0].signature.out_spec
    return {
        "arg_input_binding_names": tuple(inputs),
        "output_binding_names": tree_unflatten(list(outputs), given),
    }


def _check_folder(folder: Path) -> None:
    """What is replaced must be engines: a slip of the hand must cost nobody a home directory."""
    if folder.exists() and not folder.is_dir():
        raise UsageError("is a file", item=str(folder), remedy="give a folder")
    others = {p.name for p in folder.iterdir()} - set(GRAPHS) if folder.exists() else set()
    if others:
        raise UsageError(
            f"holds more than engines: {', '.join(sorted(others)[:3])}",
            item=str(folder),
            remedy="give an empty folder, or one of engines",
        )


def _version(text: str) -> str:
    """`10.13.2` of `10.13.2.6`."""
    found = re.match(r"\d+\.\d+\.\d+", text)
    return found[0] if found else "0.0.0"


def _tensorrt() -> Any:
    try:
        import tensorrt
    except Exception as e:  # a wheel without its libraries: ImportError, OSError, RuntimeError
        raise MissingExtraError(
            f"TensorRT does not import: {e}",
            item="tensorrt",
            remedy="run it in NVIDIA's TensorRT or Triton container",
        ) from e
    return tensorrt
