"""The paper authors' checkpoints, loaded into the `glint` preset.

Key names come from the authors' public code (MIT; github.com/SYSU-Video/GlintIQA, commit
34c8936): from its table that renames old checkpoints and from the attribute names of its
modules. None is a guess. Two schemes are in use, that of old checkpoints (`transformer.`,
`cnn.`, ...) and the one the code writes today (`vgfe.`, `clfe.`, ...); both load. The authors have
published no checkpoint, so this was never run on one of theirs, but only on state dicts of the
same names and shapes.

Scores of the authors' models are in the units and the direction of their training labels, which
their code takes as the data set gives them (KADID-10k 1..5, KonIQ-10k 0..100, LIVE's DMOS, where
lower is better); `score_range` says which, and a checkpoint does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from training.model.giqa import Giqa, create
from training.model.presets import PRESETS

_CWSA = (("c_q.", "query."), ("c_k.", "key."), ("c_v.", "value."), ("norm.", "norm."))
_ATTENTION = (
    ("att_cnn.", "local_cwsa.", "local_branch.attention."),
    *((f"fusion{i + 1}.", f"cwsa{i + 1}.", f"fusion.attention.{i}.") for i in range(4)),
)

TABLE: tuple[tuple[str, str, str], ...] = (
    # old checkpoints, checkpoints of today, here
    ("transformer.", "vgfe.backbone.", "global_branch.backbone."),
    ("cnn.", "clfe.backbone.", "local_branch.backbone."),
    ("patch_embed1.proj.", "clfe.patch_embed1.proj.", "local_branch.embed_stages.0."),
    ("patch_embed2.proj.", "clfe.patch_embed2.proj.", "local_branch.embed_stages.1."),
    ("patch_embed3.proj.", "clfe.patch_embed3.proj.", "local_branch.embed_stages.2."),
    *(
        (old + theirs, new + theirs, here + ours)
        for old, new, here in _ATTENTION
        for theirs, ours in _CWSA
    ),
    ("proj.", "local_projection.", "local_branch.reduce."),
    ("conv1.", "siem1.conv.", "fusion.siem.0."),
    ("conv2.", "siem2.conv.", "fusion.siem.1."),
    ("conv3.", "siem3.conv.", "fusion.siem.2."),
    ("conv4.", "siem4.conv.", "fusion.siem.3."),
    ("out.", "quality_head.layers.", "fusion.head.mlp."),
)
"""Key prefixes. Inside both backbones the names are timm's, there as here."""

DROPPED = (
    "global_branch.backbone.blocks.10.",
    "global_branch.backbone.blocks.11.",
    "global_branch.backbone.norm.",
    "global_branch.backbone.head.",
    "local_branch.backbone.layer4.",
    "local_branch.backbone.fc.",
)
"""Parts that feed nothing in the model (named as here); they may be in a checkpoint."""

_PARALLEL = "module."  # torch's DistributedDataParallel puts it before every key


def _rename(key: str) -> str | None:
    plain = key.removeprefix(_PARALLEL)
    for old, new, here in TABLE:
        for prefix in (old, new):
            if plain.startswith(prefix):
                return here + plain[len(prefix) :]
    return None


def _named(what: str, keys: list[str]) -> str:
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return f"{what} {', '.join(keys[:5])}{more}" if keys else ""


def _legacy_name(key: str) -> str:
    """The old name of a tensor of the preset; the table covers them all."""
    return next(old + key[len(here) :] for old, _, here in TABLE if key.startswith(here))


def translate(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of the authors to the names used here, and check it.

    Args:
        state: tensors by the authors' names, old or today's.
        own: the state dict of a `glint` model.

    Returns:
        A state dict with the keys of `own`.

    Raises:
        ValueError: a tensor is missing, unknown, given twice or of another shape (it is named).
    """
    found: dict[str, Tensor] = {}
    unknown, twice, shapes = [], [], []
    for key, tensor in state.items():
        name = _rename(key)
        if name is not None and name.startswith(DROPPED):
            continue
        if name is None or name not in own:
            unknown.append(key)
        elif name in found:
            twice.append(key)
        else:
            found[name] = tensor
            if tensor.shape != own[name].shape:
                shapes.append(f"{key} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}")
    # BatchNorm's step counters say nothing about the model, and old torch wrote none.
    absent = [k for k in own if k not in found and not k.endswith("num_batches_tracked")]
    complaints = [
        _named("missing", [_legacy_name(key) for key in absent]),
        _named("unknown", unknown),
        _named("given twice", twice),
        _named("of another shape", shapes),
    ]
    if any(complaints):
        raise ValueError(f"not a GlintIQA checkpoint: {'; '.join(filter(None, complaints))}")
    return {**own, **found}


def load_legacy(
    state: Mapping[str, Tensor], *, score_range: tuple[float, float] | None = None
) -> Giqa:
    """Load a state dict with the authors' key names, strictly.

    Args:
        state: tensors by the authors' names, old or today's.
        score_range: what maps to (0, 100), in the units of the checkpoint's training labels,
            for example (1, 5) for KADID-10k; the first may be the larger where lower is better.
            None keeps the preset's, which is right for labels in 0..1 only.

    Returns:
        A `glint` model in evaluation mode.

    Raises:
        ValueError: a tensor is missing, unknown, given twice or of another shape (it is named),
            or `score_range` is empty.
    """
    preset = PRESETS["glint"]
    if score_range is not None:
        if score_range[0] == score_range[1]:
            raise ValueError(f"score range {score_range} is empty")
        preset = dataclasses.replace(preset, score_range=score_range)
    model = create(preset)
    model.load_state_dict(translate(state, model.state_dict()), strict=True)
    return model


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["cannot be read"])[0]


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a file, without running code that the file may hold.

    Args:
        path: `.safetensors`, or what `torch.save` wrote (`.pth`, `.pt`, `.ckpt`): a state dict, or
            a dict that has one under `state_dict` or `model`, as the authors' code writes it.

    Returns:
        Tensors by the file's key names, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or it holds anything but tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as e:
            raise ValueError(f"checkpoint {path}: {e}") from e
    if path.suffix not in (".pth", ".pt", ".ckpt"):
        raise ValueError(f"checkpoint {path}: neither .safetensors nor .pth, .pt or .ckpt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # a damaged pickle raises whatever its bytes happen to lead to
        raise ValueError(f"checkpoint {path}: {_first_line(e)}") from e
    for name in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict) or not content:
        raise ValueError(f"checkpoint {path}: holds no state dict")
    other = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if other:
        raise ValueError(f"checkpoint {path}: {other[0]} is no tensor")
    return content
