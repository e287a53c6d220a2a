"""A model to TensorRT engines by torch-tensorrt, without ONNX in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from build.engines import serialize, write_engines
from build.parser import Settings
from build.profiles import bundle_profile, profile_of
from giqa.bundle import Bundle
from giqa.serving import BATCH, Engine, this_machine
from training.graphs import exported, graphs_of, sizes_of
from training.model import Giqa
from training.rounding import round_weights

MAX_BATCH = BATCH["gpu"]
"""Largest batch of the engines."""


def compile_plans(model: Giqa, settings: Settings | None = None) -> dict[str, bytes]:
    """Compile the three graphs to TensorRT plans for this machine's GPU, in float32.

    Half-precision engines come from the bundle's graphs: `python -m build engines`.

    Args:
        model: in evaluation mode; its weights are rounded in place, as a bundle's are.
        settings: how they are built.

    Returns:
        Plans by graph.

    Raises:
        MissingExtraError: torch-tensorrt or TensorRT's libraries are not installed, or too old.
        EngineMismatchError: there is no usable GPU.
    """
    round_weights(model)
    sizes = sizes_of(model.preset)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plans = {}
    for graph in graphs_of(model):
        there = replace(
            graph,
            module=graph.module.to(device),
            example=tuple(x.to(device) for x in graph.example),
        )
        inputs = profile_of(graph.name, sizes, max_batch=MAX_BATCH, tiles=model.preset.fast.tiles)
        plans[graph.name] = serialize(exported(there), inputs, graph.outputs, settings)
        graph.module.cpu()
    return plans


def write_plans(
    plans: Mapping[str, bytes], folder: Path, bundle: Bundle, settings: Settings | None = None
) -> dict[str, Engine]:
    """Write what `compile_plans` gave, with descriptions.

    Args:
        plans: plans by graph.
        folder: where they go; engines that lie there are replaced.
        bundle: the model's bundle.
        settings: as they were built.

    Returns:
        The descriptions by graph.

    Raises:
        UsageError: `folder` holds something else.
        StorageFullError: no space is left.
    """
    import tensorrt

    return write_engines(
        plans,
        folder,
        bundle,
        machine=this_machine(),
        tensorrt=tensorrt.__version__,
        builder="torch-tensorrt",
        precision="f32",
        profiles={name: [bundle_profile(bundle, name, max_batch=MAX_BATCH)] for name in plans},
        settings=settings or Settings(),
    )
