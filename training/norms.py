"""Statistics of the model's own BatchNorms, measured once instead of learnt."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from training.model.branches import FixedNorm1d, FixedNorm2d
from training.sources import Source
from training.steps import batches, on
from training.trainee import Trainee

_ROWS = 1024


@torch.no_grad()
def calibrate_norms(trainee: Trainee, train: Source, device: torch.device) -> None:
    """Set the statistics of the model's own norms from training images.

    None of them sees what another one normalised, so one pass does for all.

    Args:
        trainee: the model with its pretrained backbones, not yet trained.
        train: training images; at most about a thousand are used, not augmented.
        device: where the model is.
    """
    norms = [m for m in trainee.modules() if isinstance(m, FixedNorm1d | FixedNorm2d)]
    if not norms:
        return
    sums: dict[nn.Module, list[Any]] = {}

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].double()
        axes = [i for i in range(x.ndim) if i != 1]
        found = [x.sum(axes), x.square().sum(axes), x.numel() / x.shape[1]]
        old = sums.setdefault(module, [0, 0, 0])
        sums[module] = [a + b for a, b in zip(old, found, strict=True)]

    handles = [m.register_forward_pre_hook(watch) for m in norms]
    trainee.eval()
    ranges = list(batches(train))
    for start, end in ranges[:: math.ceil(len(train.samples) / _ROWS)]:
        trainee.cells(*on(device, train.whole(start, end)))
    for handle in handles:
        handle.remove()
    for module, (total, squares, count) in sums.items():
        assert isinstance(module, FixedNorm1d | FixedNorm2d)
        assert module.running_mean is not None
        assert module.running_var is not None
        mean = total / count
        module.running_mean.copy_(mean)
        module.running_var.copy_((squares / count - mean.square()).clamp(min=1e-6))
