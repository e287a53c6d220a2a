"""The linear term: a strong ridge on pooled features, of labels and of rendered damage.

What thousands of pooled features know together of one data set does not hold in another; what a
strongly shrunk linear map of them knows does (training/LOG.md). It is solved for in closed form
when the rest has learnt, and then takes a share of every cell's logit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.model.branches import Context
from training.model.fusion import MapHead
from training.progress import Progress
from training.ranking import Ranker
from training.recipe import Linear
from training.sources import CachedSource, Inputs
from training.trainee import Trainee

BATCH = 64
_SLOPE = 0.05
"""Of the logit by the score: at the middle of the scale it is .04, further out more."""
_APART = 0.7
"""Scores of a group that differ by less are equal."""


@dataclass
class _Normal:
    """Normal equations: features by features, features by targets."""

    products: Tensor
    targets: Tensor

    def add(self, features: Tensor, targets: Tensor | None, weight: float) -> None:
        """Rows (n, F) and what they should map to, (n,) or None for zeros."""
        self.products.addmm_(features.T, features, alpha=weight)
        if targets is not None:
            self.targets.addmv_(features.T, targets, alpha=weight)


@torch.no_grad()
def solve(trainee: Trainee, train: CachedSource, ranker: Ranker | None, options: Linear) -> None:
    """Solve for the linear term and let it take its share of the cells' logits.

    Args:
        trainee: the model, on the CPU or a GPU; its linear term is replaced.
        train: labelled pictures, whole frames.
        ranker: rendered groups and anchors, where there are some.
        options: the recipe's section.

    Raises:
        ValueError: the preset has no linear term.
    """
    model = trainee.model
    contexts = [
        one
        for one in (*model.global_branch.context, model.local_branch.context)
        if isinstance(one, Context)
    ]
    if not model.preset.linear_term or not isinstance(model.fusion.head, MapHead):
        raise ValueError(f"{model.preset.name} has no linear term")
    trainee.eval()
    mos = torch.from_numpy(train.all_mos.astype(np.float32))
    middle = float(mos.mean())
    device = next(model.parameters()).device
    found: _Normal | None = None
    for rows, features in _features(trainee, train, np.arange(len(train.samples)), "labels"):
        if found is None:
            width = features.shape[1]
            found = _Normal(
                torch.zeros(width, width, device=device), torch.zeros(width, device=device)
            )
        found.add(features, (mos[torch.from_numpy(rows)] - middle).to(device), 1.0)
    assert found is not None
    if ranker is not None:
        _damage(trainee, ranker, options, middle, found)
    strength = options.strength * len(train.samples)
    found.products.diagonal().add_(strength)
    weight = torch.linalg.solve(found.products, found.targets)
    _put(contexts, weight * _SLOPE * options.share, (middle - 50) * _SLOPE * options.share)
    quality = model.fusion.head.quality
    quality.weight.mul_(1 - options.share)
    quality.bias.mul_(1 - options.share)


def _damage(
    trainee: Trainee, ranker: Ranker, options: Linear, middle: float, found: _Normal
) -> None:
    """Add differences within groups, and anchors, to normal equations."""
    size = ranker.size
    first, second = torch.triu_indices(size, size, 1)
    for rows, features in _features(trainee, ranker.source, ranker.groups.ravel(), "groups", size):
        known = ranker.targets[torch.from_numpy(rows)].to(features.device)
        for at in range(0, len(rows), size):
            x, y, row = (part[at : at + size] for part in (features, known, torch.tensor(rows)))
            real = (row[first] != row[second]).to(x.device)  # a small group's last fills it up
            gap = y[first] - y[second]
            equal, apart = real & (gap.abs() < _APART), real & (gap.abs() >= _APART)
            moved = x[first] - x[second]
            found.add(moved[equal], None, options.rendered * options.equal)
            found.add(moved[apart] / 2, gap[apart] / 2, options.rendered)
    for rows, features in _features(trainee, ranker.source, ranker.anchors, "anchors"):
        known = ranker.targets[torch.from_numpy(rows)].to(features.device)
        found.add(features, known - middle, options.anchors)


def _features(
    trainee: Trainee, source: CachedSource, rows: npt.NDArray[np.int64], what: str, size: int = 1
) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
    """Normalised pooled features of whole frames: rows, and (n, F) float32, n by `size`."""
    step = max(1, BATCH // size) * size
    with Progress(f"linear term, {what}", len(rows), unit="images") as bar:
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            inputs = source.cache.batch(some * source.variants)
            yield some, pooled(trainee, inputs)
            bar.update(len(some))


def pooled(trainee: Trainee, inputs: Inputs) -> Tensor:
    """What the linear term is a map of.

    Args:
        trainee: the model.
        inputs: cached features, of one view each.

    Returns:
        (B, F) float32, normalised: of the ViT's stages, of the CNN's whole view, and the mean over
        its tiles.
    """
    model = trainee.model
    device = next(model.parameters()).device
    state, stages = ([x.to(device) for x in part] for part in inputs)
    assert trainee.depth is not None
    tokens = model.global_branch.pool(model.global_branch.suffix(state, trainee.depth))
    context = model.local_branch.context
    assert context is not None
    *stages, tiles = stages
    coarse = [one for one in model.global_branch.context if isinstance(one, Context)]
    parts = [one.norm(x) for one, x in zip(coarse, tokens.unbind(1), strict=True)]
    parts.append(context.norm(model.local_branch.pool(stages)))
    # Normalising is affine: the mean's is the mean of tiles'.
    parts.append(context.norm(tiles.mean(1)))
    return torch.cat(parts, 1).float()


def _put(contexts: list[Context], weight: Tensor, offset: float) -> None:
    """Part a map (F,) of `pooled` among the contexts that its parts belong to."""
    at = 0
    *coarse, fine = contexts
    for context in coarse:
        assert context.linear is not None
        width = context.linear.weight.shape[1]
        context.linear.weight.copy_(weight[at : at + width].unsqueeze(0))
        context.linear.bias.zero_()
        at += width
    assert fine.linear is not None
    fine.linear.weight.copy_(weight[at:].unflatten(0, (2, -1)))
    fine.linear.bias.copy_(torch.tensor([offset, 0.0]))
