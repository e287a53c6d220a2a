"""Losses on scores. Scores are taken on 0..1, the whole range."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from giqa.contract import SCORE_MAX
from training.recipe import Optimisation

_LEAST_SPREAD = 1e-3
"""Product of the norms below which a batch is nearly constant: its PLCC is rounding noise."""
_RANK_TEMPERATURE = 0.05
"""Of the whole range: pairs ordered right by more than this cost little."""


def regression(score: Tensor, target: Tensor, options: Optimisation) -> Tensor:
    """Huber or L1 between scores on 0..100, both (B,); a scalar."""
    a, b = score / SCORE_MAX, target / SCORE_MAX
    if options.loss == "l1":
        return F.l1_loss(a, b)
    return F.smooth_l1_loss(a, b, beta=options.huber_beta)


def correlation(score: Tensor, target: Tensor) -> Tensor:
    """1 - PLCC of a batch, both (B,)."""
    a, b = score / SCORE_MAX, target / SCORE_MAX
    return 1 - F.cosine_similarity(a - a.mean(), b - b.mean(), 0, eps=_LEAST_SPREAD)


def ranking(score: Tensor, target: Tensor) -> Tensor:
    """Pairwise logistic loss on order, weighted by how far apart the targets are; both (B,)."""
    a, b = score / SCORE_MAX, target / SCORE_MAX
    weight = (b[:, None] - b[None]).clamp(min=0)
    lost = F.softplus(-(a[:, None] - a[None]) / _RANK_TEMPERATURE) * weight
    return lost.sum() / weight.sum().clamp(min=1e-6)


def ordered(score: Tensor, target: Tensor, pairs: Tensor) -> Tensor:
    """Pairwise logistic loss on the order of chosen pairs, weighted by how far apart targets are.

    RankIQA (Liu, van de Weijer, Bagdanov, ICCV 2017) learns from such pairs. In units of the whole
    range: what is ordered right by more than the temperature costs little.

    Args:
        score: (n,) on 0..100.
        target: (n,) on 0..100.
        pairs: (n, n) which pairs count.
    """
    gap = (target[:, None] - target[None]) / SCORE_MAX
    weight = torch.where(pairs, gap, 0.0).clamp(min=0)
    lost = F.softplus(-(score[:, None] - score[None]) / SCORE_MAX / _RANK_TEMPERATURE) * weight
    return _RANK_TEMPERATURE * lost.sum() / weight.sum().clamp(min=1e-3)


def on_scores(score: Tensor, target: Tensor, options: Optimisation) -> Tensor:
    """The recipe's losses of scores against targets, both (B,) on 0..100."""
    loss = regression(score, target, options)
    if options.plcc_weight:
        loss = loss + options.plcc_weight * correlation(score, target)
    if options.rank_weight:
        loss = loss + options.rank_weight * ranking(score, target)
    return loss
