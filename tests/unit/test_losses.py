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


def test_images_without_a_label_count_for_nothing(
    pair: tuple[torch.Tensor, torch.Tensor],
) -> None:
    score, target = pair
    some = target.clone()
    some[8:] = torch.nan
    every = options(plcc_weight=0.5, rank_weight=0.5)
    loss = losses.on_scores(score, some, every)
    assert loss.item() == pytest.approx(
        losses.on_scores(score[:8], target[:8], every).item(), rel=1e-5
    )
    loss.backward()
    assert score.grad is not None
    assert (score.grad[8:] == 0).all()
    assert (score.grad[:8] != 0).any()


@pytest.mark.parametrize("known", [0, 1])
def test_too_few_labels_give_no_nan(known: int) -> None:
    score = torch.rand(4, requires_grad=True)
    target = torch.full((4,), torch.nan)
    target[:known] = 50.0
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


def test_tokens_compare_directions() -> None:
    a = torch.randn(2, 5, 8)
    assert losses.tokens(a, 3 * a).item() == pytest.approx(0, abs=1e-6)
    assert losses.tokens(a, -a).item() == pytest.approx(2, abs=1e-6)
