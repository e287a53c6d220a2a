"""Rounding of weights to what a bundle stores, so that training sees the weights that serve.

Rule, by tensor: matrices and kernels of the global branch and the local branch's maps to context
tokens to int8 with one scale per output channel (symmetric, 127 levels a side); other tensors of at
least 4,096 values to float16; the rest stays float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from build.numerics import SMALL
from giqa.openvino import INT8_LEVELS


def int8_scale(weight: Tensor) -> Tensor:
    """Scale per output channel: max |w| / 127, shape (out, 1, ...), never 0."""
    peak = weight.abs().flatten(1).amax(1).clamp(min=1e-12)
    return (peak / INT8_LEVELS).reshape(-1, *[1] * (weight.ndim - 1))


def storage(name: str, tensor: Tensor) -> str:
    """Name the storage type of a tensor of `Giqa.state_dict()`: `int8`, `float16` or `float32`."""
    if not tensor.is_floating_point() or tensor.numel() < SMALL:
        return "float32"
    if name.startswith(("global_branch.", "local_branch.context.")) and tensor.ndim in (2, 4):
        return "int8"
    return "float16"


@torch.no_grad()
def round_weights(model: nn.Module) -> None:
    """Round a model's weights in place to the values that its bundle will hold.

    Args:
        model: a `Giqa`.
    """
    for name, tensor in model.state_dict().items():
        kind = storage(name, tensor)
        if kind == "int8":
            scale = int8_scale(tensor)
            tensor.copy_((tensor / scale).round().clamp(-INT8_LEVELS, INT8_LEVELS) * scale)
        elif kind == "float16":
            tensor.copy_(tensor.half().float())
