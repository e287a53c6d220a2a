"""The fusion model: progressive CWSA + SIEM, then a head (the paper, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from giqa.contract import SCORE_MAX
from training.model.attention import ChannelAttention
from training.model.moments import spread
from training.model.presets import Preset


class Judgement(nn.Module):
    """Image-level term: one logit from what token sets are and how much they vary over cells.

    The mean of a branch's tokens is its context (`branches.with_context`); their deviation says
    how even a picture is (a flat sky is not a blurred one). It moves all cells of the map alike.

    Args:
        preset: the model as data.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        sets, dim = len(preset.global_branch.blocks) + 1, preset.dim
        self.drop = nn.Dropout(preset.context_dropout[1])
        self.context = nn.Linear(sets * dim, preset.context)
        # Starts at nothing: training may begin with contexts alone (`training.context`).
        self.spread = nn.Linear((sets + 2) * dim, preset.context, bias=False)
        nn.init.zeros_(self.spread.weight)
        self.out = nn.Linear(preset.context, 1)

    def judge(self, context: Tensor, evenness: Tensor | None = None) -> Tensor:
        """Contexts (M, sets * D) and, if any, deviations to one logit an image, (M, 1)."""
        x = self.context(self.drop(context))
        if evenness is not None:
            x = x + self.spread(self.drop(evenness))
        logit: Tensor = self.out(self.drop(F.gelu(x)))
        return logit

    def forward(self, sources: list[Tensor], fused: Tensor) -> Tensor:
        """The branches' token sets and the fused tokens, each (M, N, D), to a logit (M, 1)."""
        means, spreads = zip(*(spread(x, 1) for x in (*sources, fused)), strict=True)
        return self.judge(torch.cat(means[:-1], -1), torch.cat([*spreads, means[-1]], -1))


class MapHead(nn.Module):
    """Per-cell quality and weight; the weighted mean over cells is the score.

    Each cell's quality passes through the same affine + sigmoid to 0..100, so that the map has the
    score's scale and its weighted mean *is* the score. `calibration` (gain, offset on the logit)
    is fitted after training.

    Args:
        preset: the model as data.
    """

    calibration: Tensor

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
        self.judgement = Judgement(preset) if preset.context else None
        if self.judgement is not None:  # cells begin with the image's judgement and depart from it
            nn.init.zeros_(self.quality.weight)
            nn.init.zeros_(self.quality.bias)
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    def cells(self, tokens: Tensor, sources: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits, not calibrated, and weights (they sum to 1) of all cells.

        Args:
            tokens: fused tokens (M, N, D).
            sources: the token sets they came from, each (M, N, D).

        Returns:
            Both (M, N).
        """
        x = self.body(tokens)
        logit = self.quality(x).squeeze(-1)
        if self.judgement is not None:
            logit = logit + self.judgement(sources, tokens)
        return logit, self.weight(x).squeeze(-1).softmax(-1)

    def forward(self, tokens: Tensor, sources: list[Tensor]) -> tuple[Tensor, Tensor]:
        """As `cells`, to score (M,) in 0..100 and map (M, grid, grid) on the same scale."""
        logit, weight = self.cells(tokens, sources)
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

    def forward(self, tokens: Tensor, sources: list[Tensor]) -> tuple[Tensor, None]:
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
        """(M, S, N, D) and (M, N, D) to the fused tokens (M, N, D)."""
        current = local_tokens.transpose(1, 2)
        for stage, cwsa, siem in zip(
            global_tokens.unbind(1), self.attention, self.siem, strict=True
        ):
            mixed = cwsa(torch.cat([stage.transpose(1, 2), current], 1))
            current = siem(mixed.unflatten(-1, (self.grid, self.grid))).flatten(2)
        return current.transpose(1, 2)

    def score(
        self, global_tokens: Tensor, local_tokens: Tensor, fused: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """(M, S, N, D), (M, N, D) and fused (M, N, D) to score (M,) and map (M, grid, grid)."""
        return self.head(fused, [*global_tokens.unbind(1), local_tokens])

    def forward(self, global_tokens: Tensor, local_tokens: Tensor) -> tuple[Tensor, ...]:
        """GLOBAL_TOKENS (B, V, S, N, D), LOCAL_TOKENS (B, V, N, D) to SCORE and QUALITY_MAP.

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
