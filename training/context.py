"""The image-level term learns first, alone: on pooled features an epoch takes seconds.

It needs tens of epochs where the whole model can afford a few (LOG.md, run 3).
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

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
from training.recipe import Recipe
from training.sources import CachedSource, Rows
from training.steps import Average, assign, on, schedule, use_amp
from training.trainee import Trainee

Pooled = list[npt.NDArray[np.float16]]

_BATCH = 64
_WARMUP = 100
_EMA = 0.995
_STREAM = 7  # of the random numbers, apart from those of the steps


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
        contexts = [c(x) for c, x in zip(self.coarse, coarse.unbind(1), strict=True)]
        logit = self.judgement(torch.cat([*contexts, self.fine(fine)], -1))
        return SCORE_MAX * logit.squeeze(-1).sigmoid()


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
    from safetensors import safe_open

    options = recipe.optimisation
    if not options.context_epochs or not has_context(trainee.model):
        return None
    assert recipe.features is not None
    path = recipe.output / "context.safetensors"
    part = ContextOnly(trainee.model)
    parameters = dict(part.named_parameters())
    about = {"recipe": identity(recipe, train)}
    if path.is_file():
        with safe_open(path, "pt") as f:
            if f.metadata() == about:
                assign(parameters, {n: f.get_tensor(n) for n in f.keys()})  # noqa: SIM118
                return path
    folder = recipe.features.folder / f"pooled-{recipe.preset}"
    groups: Pooled | None = None
    for turn in (True, False):
        if team.main is turn:
            pooled = _pooled(folder, trainee, train, recipe, team.device)
            if ranker is not None and ranker.options.context_groups:
                own = folder.with_name(f"{folder.name}-ranking")
                groups = _pooled(own, trainee, ranker.source, recipe, team.device)
        team.barrier()
    _learn(part, parameters, pooled, train, recipe, team.device, ranker, groups)
    if team.main:
        files.write_tensors(path, parameters, about)
    team.barrier()
    return path


def _pooled(
    folder: Path, trainee: Trainee, train: CachedSource, recipe: Recipe, device: torch.device
) -> Pooled:
    """Pooled features of every row: (rows, S, 3 * width) and (rows, 2 C)."""
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


def _read(pooled: Pooled, rows: Rows, device: torch.device) -> list[Tensor]:
    return [torch.from_numpy(a[rows]).float().to(device) for a in pooled]


def _learn(
    part: ContextOnly,
    parameters: dict[str, nn.Parameter],
    pooled: Pooled,
    train: CachedSource,
    recipe: Recipe,
    device: torch.device,
    ranker: Ranker | None,
    groups: Pooled | None,
) -> None:
    options = recipe.optimisation
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=options.context_lr, weight_decay=options.context_weight_decay
    )
    average = Average(parameters, _EMA)
    per_epoch = math.ceil(len(train.samples) / _BATCH)
    total, step = per_epoch * options.context_epochs, 0
    bar = tqdm(desc="context", total=total, unit="step", disable=None, file=sys.stderr, leave=False)
    torch.manual_seed(options.seed)
    part.train()
    for epoch in range(options.context_epochs):
        order = train.plan(np.random.default_rng([options.seed, epoch, _STREAM]))
        for rows in np.array_split(order, per_epoch):
            for group in optimizer.param_groups:
                group["lr"] = options.context_lr * schedule(step, total, _WARMUP)
            score = part(*_read(pooled, rows, device))
            loss = losses.on_scores(score, train.mos(rows).to(device), options)
            if ranker is not None and groups is not None:
                drawn = ranker.draw(step, ranker.options.context_groups)
                loss = loss + ranker.loss(part(*_read(groups, drawn, device)), drawn)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            average.update(step)
            bar.update()
    bar.close()
    assign(parameters, average.values)
    part.eval()
