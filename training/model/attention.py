"""CWSA: channel-wise self-attention (the paper, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model.presets import Preset


class ChannelAttention(nn.Module):
    """Self-attention between channels: each channel's N-token map is one "word".

    Query, key and value are Linear(N, N) along the token axis; query and key are L2-normalised
    along it; the C x C attention is softmax(q k^T * t) with t = N^-0.5 (the paper) or learned.
    LayerNorm(N) of the mixed values is added to the input.

    Args:
        preset: the model as data (temperature, scramble, dropout).
        n: tokens of a set.
    """

    def __init__(self, preset: Preset, n: int) -> None:
        super().__init__()
        self.query = nn.Linear(n, n)
        self.key = nn.Linear(n, n)
        self.value = nn.Linear(n, n)
        self.drop = nn.Dropout(preset.dropout)
        self.norm = nn.LayerNorm(n)
        self.scrambled = preset.scrambled
        self.scale = n**-0.5
        # exp(log_scale) starts at sqrt(N): cosines of random channels have a spread of N^-0.5.
        self.log_scale = (
            nn.Parameter(torch.full((), n**0.5).log()) if preset.learned_temperature else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, N) float to the same shape."""
        query = F.normalize(self.query(x), dim=-1)
        key = F.normalize(self.key(x), dim=-1)
        scale = self.scale if self.log_scale is None else self.log_scale.exp()
        attention = (query @ key.transpose(1, 2) * scale).softmax(-1)
        mixed = attention @ self.value(x)
        if self.scrambled:  # the reference reads the (M, N, C) transpose as if it were (M, C, N)
            mixed = mixed.transpose(1, 2).reshape(x.shape)
        return x + self.norm(self.drop(mixed))
