"""Backbones out of a bundle's graphs, as the files of weights that a recipe takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from build.graphs import unpack
from giqa import files
from giqa.bundle import Bundle
from giqa.contract import GLOBAL_BRANCH, LOCAL_BRANCH
from giqa.errors import BundleInvalidError
from training.model import PRESETS, create

_PREFIX = "backbone."

Weights = dict[str, npt.NDArray[np.float32]]


def write(bundle: Bundle, folder: Path) -> list[Path]:
    """Write both towers of a bundle as safetensors files with timm's names.

    They are the cut towers, as rounded when the bundle was made; a CNN's BatchNorms are folded into
    its convolutions.

    Args:
        bundle: of a preset that is known here.
        folder: where the files go, `global_branch.safetensors` and `local_branch.safetensors`.

    Returns:
        Their paths.

    Raises:
        BundleInvalidError: its graphs are not those that this version exports.
        StorageFullError: no room.
    """
    preset = str(bundle.manifest.preset.get("name", bundle.manifest.name))
    if preset not in PRESETS:
        raise BundleInvalidError(f"no preset {preset!r} here", item=bundle.manifest.id)
    model = create(preset)
    folder.mkdir(parents=True, exist_ok=True)
    licences = bundle.manifest.licences
    about = {"from": bundle.manifest.id, "licence": f"of {bundle.manifest.id}: {licences.weights}"}
    paths = []
    for name in (GLOBAL_BRANCH, LOCAL_BRANCH):
        state = getattr(model, name).backbone.state_dict()
        found = _weights(onnx.load(bundle.graph(name)))
        _fill(getattr(model, name).backbone, state, found, f"{bundle.manifest.id}: {name}")
        paths.append(folder / f"{name}.safetensors")
        files.write(paths[-1], save({n: t.contiguous() for n, t in state.items()}, about))
    return paths


def _weights(graph: onnx.ModelProto) -> Weights:
    """Backbone tensors by name. A product's weights have none: they take its bias's."""
    unpack(graph)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in graph.graph.initializer}
    found = {n.removeprefix(_PREFIX): a for n, a in arrays.items() if n.startswith(_PREFIX)}
    products: dict[str, str] = {}
    for node in graph.graph.node:
        given = list(node.input)
        if node.op_type == "Conv" and given[1].startswith(_PREFIX) and len(given) > 2:
            bias = given[1].removesuffix(".weight") + ".bias"
            found[bias.removeprefix(_PREFIX)] = arrays[given[2]]
        elif node.op_type == "MatMul" and given[1] in arrays:
            products[node.output[0]] = given[1]
        elif node.op_type == "Add":
            for value, other in ((given[0], given[1]), (given[1], given[0])):
                if value in products and other.startswith(_PREFIX):
                    weight = other.removeprefix(_PREFIX).removesuffix(".bias") + ".weight"
                    found[weight] = arrays[products[value]].T
    return found


def _fill(
    backbone: torch.nn.Module, state: Mapping[str, Tensor], found: Weights, what: str
) -> None:
    """Put tensors in their places; BatchNorms become the biases of what they were folded into."""
    missing, last = [], ""
    norms = {n: m for n, m in backbone.named_modules() if isinstance(m, _BatchNorm)}
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        if module in norms:
            if leaf == "weight":  # so that the norm divides by one
                tensor.fill_((1 + norms[module].eps) ** 0.5)
            elif leaf == "bias" and f"{last}.bias" in found:
                tensor.copy_(torch.from_numpy(found[f"{last}.bias"].copy()))
            elif leaf == "bias":
                missing.append(name)
            elif leaf != "num_batches_tracked":
                tensor.fill_(1.0 if leaf == "running_var" else 0.0)
            continue
        last = module
        if name not in found or found[name].shape != tuple(tensor.shape):
            missing.append(name)
        else:
            tensor.copy_(torch.from_numpy(found[name].copy()))
    if missing:
        raise BundleInvalidError(
            f"{len(missing)} tensors are not in its graph, such as {missing[0]}", item=what
        )
