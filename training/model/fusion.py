"""The fusion model: progressive CWSA + SIEM, then a head (the paper, section 3)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from giqa.contract import SCORE_MAX
from training.model.attention import ChannelAttention
from training.model.presets import Preset

_ALONE = 0.25
"""How often, in training, the cells judge alone."""


class Judgement(nn.Module):
    """Image-level term: one logit from the branches' context tokens, the mean of its members'.

    It moves all cells of the map alike. Each member sees its own context tokens and learns for
    itself; their mean errs less than they do.

    Args:
        preset: the model as data.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        sets, drop = len(preset.global_branch.blocks) + 1, preset.context_dropout[1]
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Dropout(drop),
                nn.Linear(sets * preset.dim, preset.context),
                nn.GELU(),
                nn.Dropout(drop),
                nn.Linear(preset.context, 1),
            )
            for _ in range(preset.context_tokens)
        )

    def members(self, context: Tensor) -> Tensor:
        """Context tokens of all sets (M, sets, members, D) to the members' logits (M, members)."""
        own = context.unbind(2)
        return torch.cat([h(x.flatten(1)) for h, x in zip(self.heads, own, strict=True)], 1)

    def forward(self, context: Tensor) -> Tensor:
        """Context tokens of all sets (M, sets, members, D) to one logit an image, (M, 1)."""
        return self.members(context).mean(1, keepdim=True)


class MapHead(nn.Module):
    """Per-cell quality and weight; the weighted mean over cells is the score.

    Each cell's quality passes through the same affine + sigmoid to 0..100, so that the map has the
    score's scale and its weighted mean *is* the score. `calibration` (gain, offset on the logit)
    is fitted after training.

    With an image-level term all cells' logits are moved alike, so that their mean becomes the
    preset's `context_share` of the term's logit and the rest of their own. Differences between
    cells stay whole. In training the cells judge at times alone: the term is quick to know a small
    training set by heart, and cells that only have to add to it learn nothing of their own.

    Args:
        preset: the model as data.
    """

    calibration: Tensor
    together: Tensor

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.grid = preset.grid
        self.body = nn.Sequential(
            nn.LayerNorm(preset.dim),
            nn.Linear(preset.dim, preset.dim),
            nn.GELU(),
            nn.Dropout(preset.dropout),
        )
        self.quality = nn.Linear(preset.dim, 1)
        self.weight = nn.Linear(preset.dim, 1)
        # Cells begin with next to no opinion, so that what the image's term has learnt stands. With
        # none at all, the layers before them would get gradients of rounding, which Adam magnifies.
        nn.init.normal_(self.quality.weight, std=0.01)
        nn.init.zeros_(self.quality.bias)
        self.judgement = Judgement(preset) if preset.context else None
        self.share = preset.context_share
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))
        self.register_buffer("together", torch.tensor(1.0), persistent=False)

    def draw(self, rng: np.random.Generator) -> None:
        """Draw, before a batch of training, whether its cells judge alone.

        One draw for a whole batch, whose images are compared with each other, and so for all
        processes that share it.
        """
        self.together.fill_(float(rng.random() >= _ALONE))

    def cells(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, not calibrated, and weights (they sum to 1) of all cells.

        Args:
            tokens: fused tokens (M, N, D).
            context: context tokens of all sets (M, sets, members, D).

        Returns:
            Both (M, N).
        """
        x = self.body(tokens)
        logit, weight = self.quality(x).squeeze(-1), self.weight(x).squeeze(-1).softmax(-1)
        if self.judgement is not None:
            own = (weight * logit).sum(-1, keepdim=True)
            share = self.share * self.together if self.training else self.share
            logit = logit + share * (self.judgement(context) - own)
        return logit, weight

    def forward(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """As `cells`, to score (M,) in 0..100 and map (M, grid, grid) on the same scale."""
        logit, weight = self.cells(tokens, context)
        quality = SCORE_MAX * (logit * self.calibration[0] + self.calibration[1]).sigmoid()
        return (weight * quality).sum(-1), quality.unflatten(-1, (self.grid, self.grid))


class PooledHead(nn.Module):
    """The paper's head: mean over tokens, two-layer MLP; no map.

    The raw output is mapped linearly from `score_range` to 0..100 and clipped.

    Args:
        preset: the model as data.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(preset.dim, preset.dim),
            nn.GELU(),
            nn.Dropout(preset.dropout),
            nn.Linear(preset.dim, 1),
        )
        self.low, self.high = preset.score_range

    def raw(self, tokens: Tensor) -> Tensor:
        """(M, N, D) to the raw output (M,), in the units of the training labels."""
        return self.mlp(tokens.mean(1)).squeeze(-1)

    def forward(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, None]:
        """Fused tokens (M, N, D) to score (M,) in 0..100, in training unclipped; no map."""
        score = SCORE_MAX * (self.raw(tokens) - self.low) / (self.high - self.low)
        # Clipped, a model that begins out of range would have no gradient.
        return score if self.training else score.clamp(0.0, SCORE_MAX), None


class Fusion(nn.Module):
    """Merges global and local tokens stage by stage into one score.

    At stage i the global tokens i and the current tokens (local tokens at first) are
    concatenated, mixed by CWSA, and brought back to D channels by SIEM, a 3x3 convolution without
    bias on the token grid.

    Args:
        preset: the model as data.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.grid = preset.grid
        stages, dim = len(preset.global_branch.blocks), preset.dim
        self.attention = nn.ModuleList(ChannelAttention(preset) for _ in range(stages))
        self.siem = nn.ModuleList(
            nn.Conv2d(2 * dim, dim, 3, padding=1, bias=False) for _ in range(stages)
        )
        self.head: MapHead | PooledHead = (
            MapHead(preset) if preset.head == "map" else PooledHead(preset)
        )

    def integrate(self, global_tokens: Tensor, local_tokens: Tensor) -> Tensor:
        """(M, S, N + members, D) and (M, N + members, D) to the fused tokens (M, N, D)."""
        cells = self.grid**2
        global_tokens, local_tokens = global_tokens[:, :, :cells], local_tokens[:, :cells]
        current = local_tokens.transpose(1, 2)
        for stage, cwsa, siem in zip(
            global_tokens.unbind(1), self.attention, self.siem, strict=True
        ):
            mixed = cwsa(torch.cat([stage.transpose(1, 2), current], 1))
            current = siem(mixed.unflatten(-1, (self.grid, self.grid))).flatten(2)
        return current.transpose(1, 2)

    def context(self, global_tokens: Tensor, local_tokens: Tensor) -> Tensor:
        """Context tokens of all sets, (M, S + 1, members, D)."""
        return torch.cat([global_tokens, local_tokens.unsqueeze(1)], 1)[:, :, self.grid**2 :]

    def score(
        self, global_tokens: Tensor, local_tokens: Tensor, fused: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The branches' tokens and fused ones (M, N, D) to score (M,) and map (M, grid, grid)."""
        return self.head(fused, self.context(global_tokens, local_tokens))

    def forward(self, global_tokens: Tensor, local_tokens: Tensor) -> tuple[Tensor, ...]:
        """GLOBAL_TOKENS and LOCAL_TOKENS to SCORE and QUALITY_MAP.

        Args:
            global_tokens: (B, V, S, N + members, D).
            local_tokens: (B, V, N + members, D).

        Returns:
            SCORE (B, 1) in 0..100, the mean over views; QUALITY_MAP (B, V, grid, grid) where the
            head has one.
        """
        batch, views = local_tokens.shape[:2]
        stages, local = global_tokens.flatten(0, 1).float(), local_tokens.flatten(0, 1).float()
        score, quality = self.score(stages, local, self.integrate(stages, local))
        mean = score.reshape(batch, views).mean(1, keepdim=True)
        if quality is None:
            return (mean,)
        return mean, quality.unflatten(0, (batch, views))
