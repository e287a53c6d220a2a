"""Train the fusion on cached features of frozen backbones."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from giqa.contract import SCORE_MAX
from training import checkpoint, features, metrics
from training.data import biq2021
from training.data.table import Sample, hold_out
from training.model import Giqa, create
from training.recipe import Optimisation, Recipe
from training.rounding import round_weights

_CALIBRATION_ROWS = 1024


@dataclass(frozen=True)
class Split:
    """One split with its cached features.

    Attributes:
        samples: the images.
        cache: their features; row = sample * variants + variant.
    """

    samples: list[Sample]
    cache: features.FeatureCache

    @property
    def mos(self) -> npt.NDArray[np.float32]:
        """Opinion scores (n,) on 0..100."""
        return np.array([s.mos for s in self.samples], np.float32)


def splits(recipe: Recipe) -> tuple[list[Sample], list[Sample]]:
    """The recipe's training and validation samples."""
    samples = biq2021.load(recipe.data.root, "train")
    return hold_out(
        samples, named_files(recipe), recipe.data.validation_more, recipe.data.split_seed
    )


def named_files(recipe: Recipe) -> set[str]:
    """Names of the files that the recipe puts into validation."""
    if recipe.data.validation_names is None:
        return set()
    with recipe.data.validation_names.open(newline="", encoding="utf-8") as f:
        return {row["source_name"] for row in csv.DictReader(f)}


def fit(recipe: Recipe) -> Giqa:
    """Run a recipe, or go on where an interrupted run stopped.

    Writes `log.jsonl` (one line an epoch), a resumable checkpoint and, at the end,
    `final.safetensors`: the averaged weights of the epoch with the highest validation SROCC,
    rounded to what a bundle stores.

    Args:
        recipe: what to do.

    Returns:
        The trained model in evaluation mode.
    """
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.optimisation.seed)
    model = create(recipe.preset)
    model.load_backbones(recipe.weights.global_branch, recipe.weights.local_branch)
    model.freeze_backbones()
    round_weights(model)
    train_samples, val_samples = splits(recipe)
    folder, variants = recipe.features.folder, recipe.features.variants
    val = Split(val_samples, features.build(folder / "val", model, val_samples, variants=1, seed=0))
    train = Split(
        train_samples,
        features.build(folder / "train", model, train_samples, variants=variants, seed=1),
    )
    calibrate_norms(model, train)
    _train(model, train, val, recipe)
    return model


@torch.no_grad()
def calibrate_norms(model: Giqa, train: Split) -> None:
    """Set the local branch's BatchNorm statistics from the training features, once for all."""
    rows = np.arange(0, len(train.samples)) * train.cache.variants
    rows = rows[:: max(1, len(rows) // _CALIBRATION_ROWS)]
    sums: list[Tensor] = []
    for start in range(0, len(rows), 64):
        _, stages = train.cache.batch(rows[start : start + 64])
        for i, x in enumerate(stages):
            moments = torch.stack([x.mean((2, 3)), x.square().mean((2, 3))]).double().sum(1)
            if len(sums) <= i:
                sums.append(moments)
            else:
                sums[i] += moments
    for norm, total in zip(model.local_branch.norm, sums, strict=True):
        if not isinstance(norm, nn.BatchNorm2d):
            continue  # the preset does not normalise
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, square = total / len(rows)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((square - mean.square()).clamp(min=1e-6))


def _forward(model: Giqa, tokens: Tensor, stages: list[Tensor]) -> Tensor:
    """Scores (B,) of cached features."""
    fused = model.fusion.integrate(
        model.global_branch.embed(tokens), model.local_branch.embed(stages)
    )
    with torch.autocast("cpu", enabled=False):
        return model.fusion.head(fused.float())[0]


def _loss(score: Tensor, mos: Tensor, options: Optimisation) -> Tensor:
    """Huber on the whole range plus 1 - PLCC of the batch."""
    a, b = score.float() / SCORE_MAX, mos / SCORE_MAX
    loss = F.smooth_l1_loss(a, b, beta=options.huber_beta)
    if options.plcc_weight:
        loss = loss + options.plcc_weight * (1 - F.cosine_similarity(a - a.mean(), b - b.mean(), 0))
    return loss


def _freeze_norms(model: Giqa) -> None:
    model.train()
    model.local_branch.norm.eval()  # statistics were set by calibrate_norms


@torch.inference_mode()
def predict(model: Giqa, split: Split, amp: bool) -> npt.NDArray[np.float32]:
    """Scores (n,) of a split's unaugmented variants."""
    model.eval()
    rows = np.arange(len(split.samples)) * split.cache.variants
    parts = []
    for start in range(0, len(rows), 64):
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            score = _forward(model, *split.cache.batch(rows[start : start + 64]))
        parts.append(score.float().numpy())
    return np.concatenate(parts)


def _batches(
    split: Split, options: Optimisation, epoch: int
) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
    """One epoch: every sample once, in one of its variants."""
    rng = np.random.default_rng([options.seed, epoch])
    order = rng.permutation(len(split.samples))
    rows = order * split.cache.variants + rng.integers(split.cache.variants, size=len(order))
    mos = split.mos[order]
    for start in range(0, len(order) - options.batch + 1, options.batch):
        part = slice(start, start + options.batch)
        yield rows[part], torch.from_numpy(mos[part])


def _train(model: Giqa, train: Split, val: Split, recipe: Recipe) -> None:
    options, output = recipe.optimisation, recipe.output
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable.values() if p.ndim > 1]},
        {"params": [p for p in trainable.values() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups,
        lr=options.lr,
        weight_decay=options.weight_decay,
        betas=(0.9, 0.99),
    )
    average = {n: p.detach().clone() for n, p in trainable.items()}
    best = {n: p.clone() for n, p in average.items()}
    state: dict[str, Any] = {"step": 0, "epoch": 0, "best": -1.0, "preset": recipe.preset}
    if (found := checkpoint.load(output)) is not None:
        tensors, state = found
        if state["preset"] != recipe.preset:
            raise ValueError(f"{output} holds a checkpoint of preset {state['preset']}")
        average, best = tensors["average"], tensors["best"]
        _assign(trainable, tensors["model"])
        checkpoint.restore_optimizer(optimizer, tensors["optimizer"])
    per_epoch = len(train.samples) // options.batch
    total = per_epoch * options.epochs
    output.mkdir(parents=True, exist_ok=True)
    forward = torch.compile(_forward) if options.compile else _forward
    for epoch in range(state["epoch"], options.epochs):
        started, losses = time.monotonic(), []
        torch.manual_seed(options.seed + 1000 * epoch)  # dropout: the same after a resume
        _freeze_norms(model)
        bar = tqdm(_batches(train, options, epoch), total=per_epoch, disable=None, file=sys.stderr)
        for rows, mos in bar:
            for group in optimizer.param_groups:
                group["lr"] = options.lr * _schedule(state["step"], total, options.warmup_steps)
            with torch.autocast("cpu", torch.bfloat16, enabled=options.amp):
                score = forward(model, *train.cache.batch(rows))
            loss = _loss(score, mos, options)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable.values(), 1.0)
            optimizer.step()
            state["step"] += 1
            decay = min(options.ema, state["step"] / (state["step"] + 10))
            with torch.no_grad():
                for n, p in trainable.items():
                    average[n].lerp_(p, 1 - decay)
            losses.append(loss.item())
        with _swapped(trainable, average):
            predicted = predict(model, val, options.amp)
        pooled, subsets = metrics.summary(
            predicted, val.mos, [s.subset for s in val.samples], resamples=1
        )
        srocc = pooled.srocc
        if srocc > state["best"]:
            state["best"] = srocc
            best = {n: p.clone() for n, p in average.items()}
        state["epoch"] = epoch + 1
        line = {
            "epoch": epoch + 1,
            "loss": round(float(np.mean(losses)), 5),
            "seconds": round(time.monotonic() - started, 1),
            **{
                f"{name}_{key}": round(getattr(row, key), 4)
                for name, row in {"all": pooled, **subsets}.items()
                for key in ("srocc", "plcc", "rmse")
            },
        }
        with (output / "log.jsonl").open("a") as f:
            f.write(json.dumps(line) + "\n")
        print(json.dumps(line), file=sys.stderr, flush=True)
        checkpoint.save(
            output,
            {
                "model": trainable,
                "average": average,
                "best": best,
                "optimizer": checkpoint.flatten_optimizer(optimizer),
            },
            state,
        )
    _assign(trainable, best)
    round_weights(model)
    model.eval()
    from safetensors.torch import save_file

    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()},
        output / "final.safetensors.tmp",
        {"preset": recipe.preset},
    )
    (output / "final.safetensors.tmp").replace(output / "final.safetensors")


@contextmanager
def _swapped(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block the parameters hold other values."""
    own = {n: p.detach().clone() for n, p in parameters.items()}
    _assign(parameters, values)
    try:
        yield
    finally:
        _assign(parameters, own)


@torch.no_grad()
def _assign(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for n, p in parameters.items():
        p.copy_(values[n])


def _schedule(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, then cosine to zero: the share of the peak learning rate."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def final_weights(output: Path) -> Path:
    """Where a finished run's weights lie.

    Raises:
        FileNotFoundError: the run is not finished.
    """
    path = output / "final.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the run is not finished; run the recipe again")
    return path
