"""The image-level term learns first, alone: on pooled features an epoch takes seconds.

It needs tens of epochs where the whole model can afford a few (LOG.md, run 3).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from giqa.contract import SCORE_MAX
from training import cache, files, losses
from training.distributed import World
from training.loop import identity
from training.model import Giqa
from training.model.branches import Context
from training.model.fusion import MapHead
from training.ranking import Ranker
from training.recipe import Optimisation, Recipe
from training.sources import CachedSource, Rows
from training.steps import Average, assign, on, schedule, use_amp
from training.trainee import Trainee

Pooled = list[npt.NDArray[np.float16]]
"""Per image (S, 3 * width) and (2 C,): what `ContextOnly` takes."""

Extra = Callable[[int], Tensor]

BATCH = 64
_WARMUP = 100
_EMA = 0.995
_STREAM = 7  # of the random numbers, apart from those of the steps


class Targets(Protocol):
    """What the term learns from; a `Source` is one."""

    def plan(self, rng: np.random.Generator) -> Rows:
        """Rows of one epoch, shuffled."""

    def mos(self, rows: Rows) -> Tensor:
        """Opinion scores (B,) on 0..100, float32."""


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
        """Pooled features (B, S, 3 * width) and (B, 2 C) to scores (B,) on 0..100."""
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


def begin_with_context(
    trainee: Trainee,
    train: CachedSource,
    recipe: Recipe,
    team: World,
    ranker: Ranker | None = None,
) -> Path | None:
    """Train the image-level term alone, or read what an earlier call trained.

    Args:
        trainee: the model with its pretrained backbones; the term's parameters are changed.
        train: cached training images.
        recipe: `optimisation.context_epochs` and `context_lr`; the run's folder gets
            `context.safetensors`.
        team: the processes of the run; all of them compute the same.
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
    about = {"recipe": identity(recipe, train)}
    if (known := files.read_tensors(path, about)) is not None:
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
        files.write_tensors(path, parameters, about)
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
        "weights": cache.weights_digest(model.global_branch.backbone.state_dict().items()),
        "features": json.loads(json.dumps(train.identities)),
        "amp": amp,
        "device": device.type,
    }
    rows = len(train.samples) * train.variants
    cache.fill(folder, about, rows, 32, compute, what="pooled features")
    return cache.read(folder)[0]


def read(features: Pooled, rows: Rows, device: torch.device) -> list[Tensor]:
    """Rows of pooled features as `ContextOnly` takes them, float32."""
    return [torch.from_numpy(a[rows]).float().to(device) for a in features]


def _ranked(
    part: ContextOnly, ranker: Ranker, groups: Pooled, device: torch.device, step: int
) -> Tensor:
    drawn = ranker.draw(step, ranker.options.context_groups)
    return ranker.loss(part(*read(groups, drawn, device)), drawn)


def learn(
    part: ContextOnly,
    features: Pooled,
    train: Targets,
    options: Optimisation,
    steps: int,
    device: torch.device,
    extra: Extra | None = None,
) -> None:
    """Train the image-level term on pooled features; it ends with the averaged parameters.

    Each member has a loss of its own: taught by that of their mean, they would lean on each other.

    Args:
        part: the term, changed.
        features: of every row.
        train: which rows, and their opinion scores.
        options: `context_lr`, `context_weight_decay`, the losses and the seed.
        steps: how many, of 64 images or as near as epochs divide.
        device: where the term is.
        extra: a step's number to a further loss.
    """
    parameters = dict(part.named_parameters())
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=options.context_lr, weight_decay=options.context_weight_decay
    )
    average = Average(parameters, _EMA)
    bar = tqdm(desc="context", total=steps, unit="step", disable=None, file=sys.stderr, leave=False)
    torch.manual_seed(options.seed)
    part.train()
    for step, rows in enumerate(islice(_batches(train, options.seed), steps)):
        for group in optimizer.param_groups:
            group["lr"] = options.context_lr * schedule(step, steps, _WARMUP)
        scores, mos = part.members(*read(features, rows, device)), train.mos(rows).to(device)
        loss = torch.stack([losses.on_scores(s, mos, options) for s in scores.unbind(1)]).sum()
        if extra is not None:
            loss = loss + extra(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update(step + 1)
        bar.update()
    bar.close()
    assign(parameters, average.values)
    part.eval()


def _batches(train: Targets, seed: int) -> Iterator[Rows]:
    for epoch in count():
        order = train.plan(np.random.default_rng([seed, epoch, _STREAM]))
        yield from np.array_split(order, math.ceil(len(order) / BATCH))
