"""Losses against SciPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from training import losses
from training.recipe import Optimisation


def options(**changes: object) -> Optimisation:
    base = {"epochs": 1, "batch": 2, "lr": 1e-3, "weight_decay": 0, "warmup_steps": 0, "ema": 0}
    return Optimisation.model_validate(base | changes)


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    target = torch.rand(24, generator=draw) * 100
    return (target + 20 * torch.randn(24, generator=draw)).requires_grad_(), target


def test_l1_and_huber(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    score, target = pair
    gap = (score - target).detach().abs().numpy() / 100
    l1 = losses.regression(score, target, options(loss="l1"))
    assert l1.item() == pytest.approx(gap.mean(), rel=1e-5)
    beta = 0.1
    expected = np.where(gap < beta, gap**2 / (2 * beta), gap - beta / 2).mean()
    huber = losses.regression(score, target, options(huber_beta=beta))
    assert huber.item() == pytest.approx(expected, rel=1e-5)


def test_correlation_is_one_minus_pearsons(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    score, target = pair
    found = losses.correlation(score, target).item()
    expected = pearsonr(score.detach().numpy(), target.numpy()).statistic
    assert found == pytest.approx(1 - expected, abs=1e-5)


@pytest.mark.parametrize("count", [1, 4])
def test_equal_labels_give_no_nan(count: int) -> None:
    score = torch.rand(count, requires_grad=True)
    target = torch.full((count,), 50.0)
    loss = losses.on_scores(score, target, options(plcc_weight=1.0, rank_weight=1.0))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(score.grad).all()


def test_ranking_sees_order_only() -> None:
    target = torch.tensor([10.0, 30.0, 60.0, 90.0])
    right, wrong = losses.ranking(target, target), losses.ranking(target.flip(0), target)
    tied = losses.ranking(torch.full((4,), 50.0), target)
    assert right < tied < wrong
    assert tied.item() == pytest.approx(np.log(2), rel=1e-5)
    assert losses.ranking(target + 7, target).item() == pytest.approx(right.item(), rel=1e-4)
