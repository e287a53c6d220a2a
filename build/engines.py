"""TensorRT engines from exported programs, by torch-tensorrt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from giqa.errors import EngineMismatchError, MissingExtraError


@dataclass(frozen=True)
class Input:
    """One input of an engine.

    Attributes:
        name: the binding's name, the contract's tensor name.
        dtype: NumPy name of the type: `uint8`, `float32` or `float16`.
        minimum: smallest shape, batch and V first.
        optimum: the shape that it is tuned for.
        maximum: largest shape.
    """

    name: str
    dtype: str
    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]


def serialize(program: Any, inputs: Sequence[Input], outputs: Sequence[str]) -> bytes:
    """Compile an exported program to a TensorRT plan for this machine's GPU.

    Args:
        program: a `torch.export.ExportedProgram` of one graph.
        inputs: its inputs in order, with their optimisation profile.
        outputs: names of its outputs in order.

    Returns:
        The plan.

    Raises:
        MissingExtraError: torch-tensorrt or TensorRT's libraries are not installed.
        EngineMismatchError: this machine has no usable GPU.
    """
    import torch

    try:
        import torch_tensorrt
    except Exception as e:  # its import loads TensorRT's libraries: OSError, RuntimeError, ...
        raise MissingExtraError(
            f"torch-tensorrt does not import: {e}", extra="tensorrt", item="--engines"
        ) from e
    if not torch.cuda.is_available():
        raise EngineMismatchError(
            "engines are built on the GPU that they are for, and there is none", item="--engines"
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
    plan: bytes = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        program,
        arg_inputs=arguments,
        arg_input_binding_names=[i.name for i in inputs],
        output_binding_names=list(outputs),
    )
    return plan


def write_engines(plans: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write plans as `NAME.plan` into a folder.

    Args:
        plans: plans by graph.
        folder: made if it does not exist.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, plan in plans.items():
        path = folder / f"{name}.plan"
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(plan)
        temporary.replace(path)
        paths.append(path)
    return paths
