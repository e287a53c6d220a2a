"""A model's three graphs, as exported programs and as ONNX."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from build.compress import compress
from build.numerics import OPSET
from giqa.contract import (
    FUSION,
    GLOBAL_BRANCH,
    GLOBAL_TOKENS,
    GLOBAL_VIEW,
    LOCAL_BRANCH,
    LOCAL_TOKENS,
    LOCAL_VIEW,
    QUALITY_MAP,
    SCORE,
    TILES,
)
from giqa.manifest import Tensors
from training.model import Giqa, Preset


@dataclass(frozen=True)
class Graph:
    """One graph as it is exported: batch and V are its dynamic dimensions.

    Attributes:
        name: `global_branch`, `local_branch` or `fusion`.
        module: what is exported, in evaluation mode.
        example: inputs with a batch of 3, V of 2 and T of 4 (the exporter specialises what is 1).
        inputs: the contract's tensor names.
        outputs: the contract's tensor names.
    """

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def dynamic_shapes(self) -> tuple[dict[int, Any], ...]:
        """Batch, the same in every input; V of what is global, V + T of what is local."""
        batch = torch.export.Dim("batch")
        dims = {name: torch.export.Dim(name) for name in ("views", "details")}
        return tuple(
            {0: batch, 1: dims["details" if name in (LOCAL_VIEW, LOCAL_TOKENS) else "views"]}
            for name in self.inputs
        )


def sizes_of(preset: Preset) -> Tensors:
    """Sizes of a model's tensors, as its bundle's manifest has them."""
    return Tensors(
        global_side=preset.global_branch.view,
        local_side=preset.local_branch.view,
        grid=preset.grid,
        stages=len(preset.global_branch.blocks),
        dim=preset.dim,
        context_tokens=preset.more_tokens,
        token_dtype="FP32",
        quality_map=preset.head == "map",
    )


def graphs_of(model: Giqa) -> list[Graph]:
    """The three graphs of a model."""
    preset = model.preset
    sides = (preset.global_branch.view, preset.local_branch.view)
    tiles = TILES if preset.context_tokens else 0
    views = [
        torch.zeros(3, count, side, side, 3, dtype=torch.uint8)
        for count, side in zip((2, 2 + tiles), sides, strict=True)
    ]
    n, dim, stages = (
        preset.grid**2 + preset.more_tokens,
        preset.dim,
        len(preset.global_branch.blocks),
    )
    tokens = (torch.randn(3, 2, stages, n, dim), torch.randn(3, 2 + tiles, n, dim))
    outputs = (SCORE, QUALITY_MAP) if preset.head == "map" else (SCORE,)
    return [
        Graph(GLOBAL_BRANCH, model.global_branch, (views[0],), (GLOBAL_VIEW,), (GLOBAL_TOKENS,)),
        Graph(LOCAL_BRANCH, model.local_branch, (views[1],), (LOCAL_VIEW,), (LOCAL_TOKENS,)),
        Graph(FUSION, model.fusion, tokens, (GLOBAL_TOKENS, LOCAL_TOKENS), outputs),
    ]


def export_graphs(model: Giqa, folder: Path) -> dict[str, Path]:
    """Export the three graphs as ONNX with the contract's tensor names, batch and V dynamic.

    Args:
        model: in evaluation mode, rounded.
        folder: where the files go.

    Returns:
        Paths of the ONNX files by graph.
    """
    paths = {}
    for graph in graphs_of(model):
        proto = _onnx(graph)
        compress(proto)
        paths[graph.name] = folder / f"{graph.name}.onnx"
        onnx.save(proto, paths[graph.name])
    return paths


def exported(graph: Graph) -> torch.export.ExportedProgram:
    """Export a graph, batch and V dynamic."""
    return torch.export.export(graph.module, graph.example, dynamic_shapes=graph.dynamic_shapes)


def _onnx(graph: Graph) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            graph.module,
            graph.example,
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=graph.inputs,
            output_names=graph.outputs,
            dynamic_shapes=graph.dynamic_shapes,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:  # exporter notes with paths of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    return model
