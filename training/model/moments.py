"""Mean and standard deviation, in a form that half precision survives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SMALL_VARIANCE = 1e-5
"""Added to variances: keeps the square root differentiable."""


def moments(x: Tensor, axis: int) -> Tensor:
    """Mean and standard deviation along an axis, concatenated along the last that remains.

    Not E[x^2] - E[x]^2, which cancels in half precision.
    """
    mean = x.mean(axis, keepdim=True)
    variance = (x - mean).square().mean(axis)
    return torch.cat([mean.squeeze(axis), (variance + _SMALL_VARIANCE).sqrt()], -1)


def cell_moments(x: Tensor, grid: int) -> Tensor:
    """Mean and standard deviation per channel and cell: (M, C, h, w) to (M, 2 C, N).

    In place of the paper's strided convolutions: the energy of texture survives, and what is frozen
    can be cached a quarter as large, so that two CPU cores can train. A stage of one position a
    cell has no deviation: (M, C, N).
    """
    k = x.shape[-1] // grid
    if k == 1:
        return x.flatten(2)
    mean = F.avg_pool2d(x, k)
    square = (x - F.interpolate(mean, scale_factor=float(k), mode="nearest")).square()
    return torch.cat([mean, (F.avg_pool2d(square, k) + _SMALL_VARIANCE).sqrt()], 1).flatten(2)
