"""The fusion model: progressive CWSA + SIEM, then a head (the paper, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from giqa.contract import SCORE_MAX
from training.model.attention import ChannelAttention
from training.model.presets import Preset

_LINEAR = 2.0
"""The linear term's largest say, as a logit: it knows no bounds far from what it was solved on."""


class MapHead(nn.Module):
    """Per-cell quality and weight; the weighted mean over cells is the score.

    A cell's judgement is made of its fused token, of the detail at its place, and of the fused
    context tokens: one hidden layer for all three, and no term beside it. Each cell's quality
    passes through the same affine + sigmoid to 0..100, so that the map has the score's scale and
    its weighted mean *is* the score. `calibration` (gain, offset on the logit) is fitted after
    training.

    In training a picture's cells judge at times by themselves: else all that differs between them
    would be learnt last.

    Args:
        preset: the model as data.
    """

    calibration: Tensor
    together: Tensor

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.grid = preset.grid
        hidden = preset.hidden or preset.dim
        context = preset.context_tokens * preset.dim
        self.alone = preset.alone
        self.norm = nn.LayerNorm(preset.dim)
        self.cell = nn.Linear(preset.dim, hidden)
        self.detail = nn.Linear(context, hidden, bias=False) if context else None
        self.whole = nn.Linear(2 * context, hidden, bias=False) if context else None
        self.drop = nn.Dropout(preset.dropout)
        self.drop_whole = nn.Dropout(preset.context_dropout[1])
        self.quality = nn.Linear(hidden, 1)
        self.weight = nn.Linear(hidden, 1)
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    def cells(
        self, fused: Tensor, detail: Tensor | None, term: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits, not calibrated, and weights (they sum to 1) of all cells.

        Args:
            fused: fused tokens (M, N + C, D).
            detail: detail at each cell (M, N, C * D); None for a preset without context tokens.
            term: linear term (M,), the same for all cells of a picture; None: there is none.

        Returns:
            Both (M, N).
        """
        n = self.grid**2
        x = self.cell(self.norm(fused[:, :n]))
        if self.detail is not None and self.whole is not None and detail is not None:
            whole = torch.cat([fused[:, n:].flatten(1), detail.mean(1)], 1)
            said = self.whole(self.drop_whole(whole))
            if self.training:
                said = said * (torch.rand_like(said[:, :1]) >= self.alone)
            x = x + self.detail(self.drop(detail)) + said.unsqueeze(1)
        x = self.drop(F.gelu(x))
        logit = self.quality(x).squeeze(-1)
        if term is not None:
            logit = logit + term.clamp(-_LINEAR, _LINEAR).unsqueeze(1)
        return logit, self.weight(x).squeeze(-1).softmax(-1)

    def forward(
        self, fused: Tensor, detail: Tensor | None, term: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `cells`, to score (M,) in 0..100 and map (M, grid, grid) on the same scale."""
        logit, weight = self.cells(fused, detail, term)
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

    def forward(
        self, tokens: Tensor, detail: Tensor | None, term: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Fused tokens (M, N, D) to score (M,) in 0..100, in training unclipped; no map."""
        score = SCORE_MAX * (self.raw(tokens) - self.low) / (self.high - self.low)
        # Clipped, a model that begins out of range would have no gradient.
        return score if self.training else score.clamp(0.0, SCORE_MAX), None


class Fusion(nn.Module):
    """Merges global and local tokens stage by stage into one score.

    At stage i the global tokens i and the current tokens (local tokens at first) are concatenated,
    mixed by CWSA, and brought back to D channels: cells by SIEM, a 3x3 convolution without bias on
    the token grid, context tokens by a linear map. CWSA's words are channels over cells and context
    tokens together, so that each learns of the other.

    Detail: context tokens of the local branch, of the tile of native pixels that lies in a cell's
    quarter of the picture, or of the whole view where there are no tiles. They join the cells
    before the first stage, and again in the head.

    Args:
        preset: the model as data.
    """

    quarter: Tensor

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.grid, self.context_tokens = preset.grid, preset.context_tokens
        self.linear_term = preset.linear_term
        stages, dim = len(preset.global_branch.blocks), preset.dim
        self.attention = nn.ModuleList(
            ChannelAttention(preset, preset.tokens) for _ in range(stages)
        )
        self.siem = nn.ModuleList(
            nn.Conv2d(2 * dim, dim, 3, padding=1, bias=False) for _ in range(stages)
        )
        contexts = stages if preset.context_tokens else 0
        self.reduce = nn.ModuleList(nn.Linear(2 * dim, dim, bias=False) for _ in range(contexts))
        self.place = nn.Linear(preset.context_tokens * dim, dim) if contexts else None
        half = torch.arange(preset.grid) * 2 // preset.grid
        quarter = (half[:, None] * 2 + half).flatten()
        self.register_buffer("quarter", quarter, persistent=False)
        self.head: MapHead | PooledHead = (
            MapHead(preset) if preset.head == "map" else PooledHead(preset)
        )

    def details(self, own: Tensor, views: int) -> Tensor:
        """Detail at each cell of each view.

        Args:
            own: what follows the cells in the local branch's tokens, of V views and then of T
                tiles, T being 0 or 4: (B, V + T, K, D), K being C, or C + 1 with the linear term.
            views: V.

        Returns:
            (B, V, N, K * D).
        """
        tiles = own.shape[1] - views
        view = torch.arange(views, device=own.device).unsqueeze(1)
        # Without tiles a view's own; with them, the tile of the cell's quarter.
        at = view + torch.sym_min(tiles, 1) * (views - view + self.quarter)
        return own.flatten(2)[:, at]

    def parted(
        self, global_tokens: Tensor, local_tokens: Tensor, detail: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Part the linear term from what is fused.

        Args:
            global_tokens: (M, S, N + K, D), K being C, or C + 1 with the linear term.
            local_tokens: (M, N + K, D), of whole views.
            detail: (M, N, K * D), see `details`.

        Returns:
            The same with C in place of K, and the term: (M,), or None where there is none.
        """
        if not self.linear_term or detail is None:
            return global_tokens, local_tokens, detail, None
        width = detail.shape[-1] - local_tokens.shape[-1]
        # A tile is the detail of a quarter of the cells: their mean is the tiles' mean.
        term = global_tokens[:, :, -1, 0].sum(1) + local_tokens[:, -1, 0]
        term = term + detail[..., width + 1].mean(1)
        return global_tokens[:, :, :-1], local_tokens[:, :-1], detail[..., :width], term

    def integrate(
        self, global_tokens: Tensor, local_tokens: Tensor, detail: Tensor | None
    ) -> Tensor:
        """Merge.

        Args:
            global_tokens: (M, S, N + C, D).
            local_tokens: (M, N + C, D).
            detail: (M, N, C * D), where there are context tokens.

        Returns:
            Fused tokens (M, N + C, D).
        """
        cells = self.grid**2
        current = local_tokens
        if self.place is not None and detail is not None:
            placed = local_tokens[:, :cells] + self.place(detail)
            current = torch.cat([placed, local_tokens[:, cells:]], 1)
        current = current.transpose(1, 2)
        for i, (stage, cwsa, siem) in enumerate(
            zip(global_tokens.unbind(1), self.attention, self.siem, strict=True)
        ):
            mixed = cwsa(torch.cat([stage.transpose(1, 2), current], 1))
            grid = mixed[..., :cells].unflatten(-1, (self.grid, self.grid))
            current = siem(grid).flatten(2)
            if len(self.reduce):
                whole = self.reduce[i](mixed[..., cells:].transpose(1, 2))
                current = torch.cat([current, whole.transpose(1, 2)], 2)
        return current.transpose(1, 2)

    def forward(self, global_tokens: Tensor, local_tokens: Tensor) -> tuple[Tensor, ...]:
        """GLOBAL_TOKENS and LOCAL_TOKENS to SCORE and QUALITY_MAP.

        Args:
            global_tokens: (B, V, S, N + K, D), K being C, or C + 1 with the linear term.
            local_tokens: (B, V + T, N + K, D).

        Returns:
            SCORE (B, 1) in 0..100, the mean over views; QUALITY_MAP (B, V, grid, grid) where the
            head has one.
        """
        batch, views = global_tokens.shape[:2]
        local_tokens = local_tokens.float()
        detail = None
        if self.place is not None:
            own = local_tokens[:, :, self.grid**2 :]
            detail = self.details(own, views).flatten(0, 1)
        whole = local_tokens[:, :views].flatten(0, 1)
        coarse = global_tokens.flatten(0, 1).float()
        coarse, whole, detail, term = self.parted(coarse, whole, detail)
        fused = self.integrate(coarse, whole, detail)
        score, quality = self.head(fused, detail, term)
        mean = score.reshape(batch, views).mean(1, keepdim=True)
        if quality is None:
            return (mean,)
        return mean, quality.unflatten(0, (batch, views))
