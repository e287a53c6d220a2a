"""The part of a model that learns, as one module: what a step runs, compiles and distributes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.model import Giqa
from training.recipe import Freeze, Optimisation

_TERM = {"context", "judgement"}
"""Parts of the model that make up its image-level term."""


class Trainee(nn.Module):
    """Runs a model from cached features, or from views.

    Args:
        model: the model.
        depth: ViT blocks that the cached state has behind it; None: inputs are views.
    """

    def __init__(self, model: Giqa, depth: int | None) -> None:
        super().__init__()
        self.model, self.depth = model, depth

    def tokens(self, state: list[Tensor], stages: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Global (M, S, N + members, D), local (M, N + members, D) and fused tokens (M, N, D)."""
        model = self.model
        if self.depth is None:
            raw = model.global_branch.tokens(state[0])
            stages = model.local_branch.stages(stages[0])
        else:
            raw = model.global_branch.suffix(state, self.depth)
        coarse, fine = model.global_branch.embed(raw), model.local_branch.embed(stages)
        return coarse, fine, model.fusion.integrate(coarse, fine)

    def forward(self, state: list[Tensor], stages: list[Tensor]) -> Tensor:
        """Run a batch.

        Args:
            state: `Features.state`, or one GLOBAL_VIEW tensor (B, V, H, W, 3) uint8.
            stages: `Features.stages`, or one LOCAL_VIEW tensor (B, V, H, W, 3) uint8.

        Returns:
            Scores (B,) on 0..100, float32, means over V.
        """
        views = 1 if self.depth is not None else state[0].shape[1]
        coarse, fine, fused = self.tokens(state, stages)
        with torch.autocast(fused.device.type, enabled=False):
            score, _ = self.model.fusion.score(coarse.float(), fine.float(), fused.float())
        return score.unflatten(0, (-1, views)).mean(1)


def freeze(model: Giqa, what: Freeze) -> int:
    """Stop gradients of what a recipe freezes.

    Args:
        model: the model.
        what: the recipe's section.

    Returns:
        How many ViT blocks are frozen.

    Raises:
        ValueError: the ViT has fewer blocks than that.
    """
    vit = model.global_branch.backbone
    blocks = len(vit.blocks)
    depth = blocks if what.global_blocks is None else what.global_blocks
    if depth > blocks:
        raise ValueError(f"{model.preset.name} has {blocks} ViT blocks, {depth} cannot be frozen")
    vit.requires_grad_(False)
    vit.blocks[depth:].requires_grad_(True)
    model.local_branch.backbone.requires_grad_(not what.local)
    return depth


def freeze_context(model: Giqa, what: Freeze) -> None:
    """Stop gradients of the image-level term, where a recipe freezes it."""
    for name, parameter in model.named_parameters():
        if what.context and not _TERM.isdisjoint(name.split(".")):
            parameter.requires_grad_(False)


def groups(model: Giqa, options: Optimisation) -> list[dict[str, object]]:
    """Parameter groups: parts with rates of their own, vectors without weight decay."""
    rates: dict[str, float | None] = dict.fromkeys(_TERM, options.context_joint_lr)
    rates["backbone"] = options.backbone_lr
    decays: dict[str, float | None] = dict.fromkeys(_TERM, options.context_joint_weight_decay)

    def own(name: str, of: dict[str, float | None], otherwise: float) -> float:
        value = next((of[part] for part in name.split(".") if part in of), None)
        return otherwise if value is None else value

    inside: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = own(name, decays, options.weight_decay) if parameter.ndim > 1 else 0.0
            inside.setdefault((own(name, rates, options.lr), decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in sorted(inside.items(), key=lambda item: item[0])
    ]
