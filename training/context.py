"""The image-level term learns first, alone: on pooled features an epoch takes seconds.

It needs tens of epochs where the whole model can afford a few (LOG.md, run 3).
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from giqa.contract import SCORE_MAX
from training import cache, checkpoint
from training.distributed import World
from training.model import Giqa
from training.model.backbones import weights_digest
from training.model.branches import Context
from training.model.fusion import MapHead
from training.pooled import BATCH, Extra, Pooled, learn, read
from training.ranking import Ranker
from training.recipe import Recipe
from training.sources import CachedSource
from training.steps import assign, on, use_amp
from training.trainee import Trainee

_NORM_ROWS = 1024


class ContextOnly(nn.Module):
    """A model's image-level term alone; its modules are shared, not copied.

    Args:
        model: the model; its head has a judgement.
    """

    def __init__(self, model: Giqa) -> None:
        super().__init__()
        head, fine = model.fusion.head, model.local_branch.context
        assert isinstance(head, MapHead)
        assert head.judgement is not None
        assert fine is not None
        self.coarse, self.fine, self.judgement = model.global_branch.context, fine, head.judgement

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Pooled features, see `training.pooled`, to scores (B,) on 0..100."""
        return SCORE_MAX * self._logits(coarse, fine).mean(1).sigmoid()

    def members(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """As `forward`, to each member's own scores, (B, members)."""
        return SCORE_MAX * self._logits(coarse, fine).sigmoid()

    def _logits(self, coarse: Tensor, fine: Tensor) -> Tensor:
        sets = [c(x) for c, x in zip(self.coarse, coarse.unbind(1), strict=True)]
        return self.judgement.members(torch.stack([*sets, self.fine(fine)], 1))


def has_context(model: Giqa) -> bool:
    """Whether a model has an image-level term."""
    return isinstance(model.local_branch.context, Context)


@torch.no_grad()
def calibrate(part: ContextOnly, features: Pooled) -> None:
    """Set the statistics of the term's norms, as `training.norms` does, from pooled features.

    Args:
        part: the term, changed.
        features: of whole frames; at most about a thousand rows are used.
    """
    rows = slice(None, None, max(1, len(features[0]) // _NORM_ROWS))
    coarse, fine = (torch.from_numpy(np.asarray(a[rows], np.float64)) for a in features)
    for context, x in zip([*part.coarse, part.fine], [*coarse.unbind(1), fine], strict=True):
        assert isinstance(context, Context)
        assert context.norm.running_mean is not None
        assert context.norm.running_var is not None
        context.norm.running_mean.copy_(x.mean(0))
        context.norm.running_var.copy_(x.var(0, correction=0).clamp(min=1e-6))


def begin_with_context(
    trainee: Trainee,
    train: CachedSource,
    recipe: Recipe,
    team: World,
    run: str,
    ranker: Ranker | None = None,
) -> Path | None:
    """Train the image-level term alone, or read what an earlier call trained.

    Args:
        trainee: the model with its pretrained backbones; the term's parameters are changed.
        train: cached training images.
        recipe: `optimisation.context_epochs` and `context_lr`; the run's folder gets
            `context.safetensors`.
        team: the processes of the run; all of them compute the same.
        run: what the run is made of, see `loop.identity`.
        ranker: groups of damaged pictures, where there are some.

    Returns:
        The file; None if the recipe or the preset does without.

    Raises:
        StorageFullError: no room for the pooled features.
        ValueError: their folder holds those of something else.
    """
    options = recipe.optimisation
    if not options.context_epochs or not has_context(trainee.model):
        return None
    assert recipe.features is not None
    path = recipe.output / "context.safetensors"
    part = ContextOnly(trainee.model)
    parameters = dict(part.named_parameters())
    about = {"recipe": run}
    if (known := checkpoint.read_tensors(path, about)) is not None:
        assign(parameters, known)
        return path
    folder = recipe.features.folder / f"pooled-{recipe.preset}"
    groups: Pooled | None = None
    for turn in (True, False):
        if team.main is turn:
            features = pooled(folder, trainee, train, recipe, team.device)
            if ranker is not None and ranker.options.context_groups:
                own = folder.with_name(f"{folder.name}-ranking")
                groups = pooled(own, trainee, ranker.source, recipe, team.device)
        team.barrier()
    extra: Extra | None = None
    if ranker is not None and groups is not None:
        extra = partial(_ranked, part, ranker, groups, team.device)
    steps = math.ceil(len(train.samples) / BATCH) * options.context_epochs
    learn(part, features, train, options, steps, team.device, extra)
    if team.main:
        checkpoint.write_tensors(path, parameters, about)
    team.barrier()
    return path


def pooled(
    folder: Path, trainee: Trainee, train: CachedSource, recipe: Recipe, device: torch.device
) -> Pooled:
    """Pool the features of every row of a source, or read what an earlier call made.

    Args:
        folder: the cache.
        trainee: the model with its pretrained backbones.
        train: cached images.
        recipe: the preset, and whether to compute in bfloat16.
        device: where the model is.

    Returns:
        (rows, S, 3 * width) and (rows, 2 C).

    Raises:
        StorageFullError: no room for them.
        ValueError: the folder holds those of something else.
    """
    assert trainee.depth is not None
    model, depth = trainee.model, trainee.depth
    amp = use_amp(recipe.optimisation, device)
    trainee.eval()

    @torch.inference_mode()
    def compute(start: int, end: int) -> list[npt.NDArray[Any]]:
        state, stages = on(device, train.batch(np.arange(start, end), 0))
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            raw = model.global_branch.suffix(state, depth)
        pools = model.global_branch.pool(raw.float()), model.local_branch.pool(stages)
        return [p.cpu().numpy() for p in pools]

    about = {
        "preset": recipe.preset,
        "taps": list(model.preset.global_branch.blocks),
        "weights": weights_digest(model.global_branch.backbone.state_dict().items()),
        "features": train.cache.identity,
        "amp": amp,
        "device": device.type,
    }
    rows = len(train.samples) * train.variants
    cache.fill(folder, about, rows, 32, compute, what="pooled features")
    return cache.read(folder)[0]


def _ranked(
    part: ContextOnly, ranker: Ranker, groups: Pooled, device: torch.device, step: int
) -> Tensor:
    drawn = ranker.draw(step, ranker.options.context_groups)
    return ranker.loss(part(*read(groups, drawn, device)), drawn)
