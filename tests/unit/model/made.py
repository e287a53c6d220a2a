"""Models and tensors for them.

Weights are random and spread out, so that no output is constant by accident.
"""

from __future__ import annotations

import torch
from torch import Tensor

from giqa import contract
from training.model import PRESETS, Giqa, create

GRID, TOKENS = contract.GRID, contract.GRID**2
WIDTH, CONTEXTS = PRESETS["giqa-s"].dim, PRESETS["giqa-s"].context_tokens


def randomized(name: str) -> Giqa:
    torch.manual_seed(len(name))
    model = create(name)
    with torch.no_grad():
        for part in (model.local_branch, model.fusion):
            for key, value in part.state_dict().items():
                if key.endswith("running_var"):
                    value.uniform_(0.5, 1.5)
                elif not value.any() and value.ndim == 2:
                    value.normal_(0, 0.1)  # what starts at nothing
                elif value.ndim == 1 and key.endswith("bias"):
                    value.normal_(0, 0.3)
                elif value.ndim == 1 and key.endswith("weight"):
                    value.uniform_(0.5, 1.5)  # timm starts residual branches at zero
    return model


def views(model: Giqa, batch: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    sides = model.preset.global_branch.view, model.preset.local_branch.view
    coarse, fine = (
        torch.randint(0, 256, (batch, count, s, s, 3), generator=draw, dtype=torch.uint8)
        for s in sides
    )
    return coarse, fine


def tokens(fusion_of: Giqa, batch: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    stages, preset = len(fusion_of.preset.global_branch.blocks), fusion_of.preset
    each = TOKENS + preset.more_tokens, preset.dim
    return (
        torch.randn(batch, count, stages, *each, generator=draw),
        torch.randn(batch, count, *each, generator=draw),
    )


def judged(count: int = 2) -> tuple[Tensor, Tensor]:
    """What a head takes: fused tokens, and the detail of each cell."""
    return torch.randn(count, TOKENS + CONTEXTS, WIDTH), torch.randn(
        count, TOKENS, CONTEXTS * WIDTH
    )
