"""timm backbones, with weights from timm's hub or from a safetensors file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from training import provenance
from training.provenance import Origin


def _declare_torchvision_ops() -> torch.library.Library | None:
    """Let timm import beside a CPU-only torch.

    torchvision's registry wheels are CUDA builds: with a CPU build of torch their extension does
    not load and `import torchvision` fails on the meta registration of two operators that GIQA
    never calls. Declaring the two signatures is enough.
    """
    if torch.version.cuda is not None:
        return None
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define(
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    )
    return library


_OPS = _declare_torchvision_ops()  # the reference keeps the declarations alive

import timm  # noqa: E402


def create(name: str, **options: object) -> Any:
    """Create an untrained timm model.

    Args:
        name: timm model name.
        **options: passed to `timm.create_model`.

    Returns:
        The model with random weights; what it offers beside `nn.Module` depends on `name`.
    """
    return timm.create_model(name, pretrained=False, **options)


def weights(name: str, path: Path | None, stated: str = "") -> tuple[dict[str, Tensor], Origin]:
    """Read a backbone's state dict.

    Args:
        name: timm model name with its tag, as `tf_efficientnet_lite0.in1k`: without one, timm takes
            whichever it thinks best, under whichever licence.
        path: a safetensors file with timm's key names; None asks timm's hub (needs a network).
        stated: what the caller knows of the file's origin and licence.

    Returns:
        Tensors by timm's key names, and where they come from.

    Raises:
        FileNotFoundError: `path` does not exist.
        ValueError: no file and no tag.
    """
    if path is not None:
        check_file(path)
        return load_file(path), provenance.of_file(name, path, stated)
    if "." not in name:
        raise ValueError(f"{name} has no tag: name one of timm's, or give a file of weights")
    model: Any = timm.create_model(name, pretrained=True)
    state: dict[str, Tensor] = model.state_dict()
    origin = Origin(
        backbone=name, source="timm hub", file=str(model.pretrained_cfg.get("hf_hub_id") or ""),
        sha256=weights_digest(state.items()), stated=stated,
        licence=str(model.pretrained_cfg.get("license") or ""),
    )  # fmt: skip
    return state, origin


def check_file(path: Path | None) -> None:
    """Check that a file of weights is there, if one is named.

    Raises:
        FileNotFoundError: it is not.
    """
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"backbone weights {path}: no such file")


def weights_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of tensors by name."""
    digest = hashlib.sha256()
    for name, value in tensors:
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def load_cut(model: nn.Module, state: Mapping[str, Tensor], *, what: str) -> None:
    """Load a full backbone's weights into a cut one: every tensor of `model` must be found.

    Args:
        model: a backbone whose later blocks were cut off.
        state: the state dict of the whole backbone.
        what: named in errors.

    Raises:
        ValueError: a tensor is missing or has another shape.
    """
    own = model.state_dict()
    missing = sorted(k for k in own if k not in state and not k.endswith("num_batches_tracked"))
    wrong = sorted(k for k in own if k in state and state[k].shape != own[k].shape)
    if missing or wrong:
        raise ValueError(
            f"{what}: weights do not fit: missing {missing[:5]}, other shape {wrong[:5]}"
        )
    model.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
