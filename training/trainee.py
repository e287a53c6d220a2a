"""The part of a model that learns, as one module: what a step runs, compiles and distributes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.model import Giqa
from training.recipe import Freeze, Optimisation


class Trainee(nn.Module):
    """Runs a model from cached features, or from views.

    Args:
        model: the model.
        depth: ViT blocks that the cached state has behind it; None: inputs are views.
    """

    def __init__(self, model: Giqa, depth: int | None) -> None:
        super().__init__()
        self.model, self.depth = model, depth

    def cells(
        self, state: list[Tensor], stages: list[Tensor]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What the head takes: fused tokens (M, N + C, D), detail (M, N, C * D), linear term (M,).

        Args:
            state: see `forward`.
            stages: see `forward`.
        """
        model, tiles = self.model, None
        if self.depth is None:
            raw = model.global_branch.tokens(state[0])
            stages = model.local_branch.stages(stages[0])
        else:
            raw = model.global_branch.suffix(state, self.depth)
            if model.local_branch.context is not None:
                *stages, tiles = stages
        coarse, fine = model.global_branch.embed(raw), model.local_branch.embed(stages)
        detail = None
        if model.local_branch.context is not None:
            own = fine[:, model.preset.grid**2 :].unsqueeze(1)
            if tiles is not None:
                # What `Fusion.details` makes of a whole view and its tiles.
                found = model.local_branch.context(tiles.flatten(0, 1))
                own = torch.cat([own, found.unflatten(0, tiles.shape[:2])], 1)
            detail = model.fusion.details(own, 1).squeeze(1)
        coarse, fine, detail, term = model.fusion.parted(coarse, fine, detail)
        return model.fusion.integrate(coarse, fine, detail), detail, term

    def forward(self, state: list[Tensor], stages: list[Tensor]) -> Tensor:
        """Run a batch.

        Args:
            state: `FeatureCache.batch`'s, or one GLOBAL_VIEW tensor (B, V, H, W, 3) uint8.
            stages: likewise, with the tiles' pooled features behind the stages where the model has
                context tokens; or one LOCAL_VIEW tensor (B, V, H, W, 3) uint8.

        Returns:
            Scores (B,) on 0..100, float32, means over V.
        """
        views = 1 if self.depth is not None else state[0].shape[1]
        fused, *rest = self.cells(state, stages)
        with torch.autocast(fused.device.type, enabled=False):
            detail, term = (None if x is None else x.float() for x in rest)
            score, _ = self.model.fusion.head(fused.float(), detail, term)
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


def groups(model: Giqa, options: Optimisation) -> list[dict[str, object]]:
    """Parameter groups: parts with rates of their own, vectors without weight decay."""
    inside: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tuned = "backbone" in name.split(".") and options.backbone_lr is not None
            rate = options.backbone_lr if tuned else options.lr
            decay = options.weight_decay if parameter.ndim > 1 else 0.0
            inside.setdefault((rate or options.lr, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in sorted(inside.items(), key=lambda item: item[0])
    ]
