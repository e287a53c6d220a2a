"""Pooled features of frozen backbones, and what learns on them: an epoch takes seconds.

Of a picture, as `Pooled` has it: per tapped ViT block class token, mean and deviation over tokens;
of all CNN stages mean and deviation over the grid's cells of what the cells hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from giqa.decode import Preprocessor
from training import cache, losses
from training.data.samples import Sample
from training.features import BATCH as _VIEWS
from training.features import Runner, choose_variants, runner
from training.model import Giqa
from training.model.backbones import weights_digest
from training.progress import Progress
from training.recipe import Optimisation
from training.sources import Rows
from training.steps import Average, assign, schedule
from training.views import make_views

Pooled = list[npt.NDArray[Any]]
"""Arrays, first axis = row: (n, S, features of a ViT block) and (n, features of the CNN)."""

BATCH = 64
_WARMUP = 100
_EMA = 0.995
_STREAM = 7  # of the random numbers, apart from those of the steps
_ROWS = 256


class Pooling(nn.Module):
    """A model's backbones and their pools; modules are shared, not copied.

    Args:
        model: a model with its pretrained backbones.
    """

    def __init__(self, model: Giqa) -> None:
        super().__init__()
        self.global_branch, self.local_branch = model.global_branch, model.local_branch

    def forward(self, global_view: Tensor, local_view: Tensor) -> tuple[Tensor, Tensor]:
        """GLOBAL_VIEW and LOCAL_VIEW, (B, 1, H, W, 3) uint8, to rows of `Pooled`."""
        raw = self.global_branch.tokens(global_view)
        stages = self.local_branch.stages(local_view)
        return self.global_branch.pool(raw), self.local_branch.pool(stages)


def pooled(
    folder: Path,
    model: Giqa,
    samples: Sequence[Sample],
    *,
    variants: int = 1,
    seed: int = 0,
    amp: bool = False,
) -> Pooled:
    """Run the backbones over images and keep only what is pooled, or read a finished cache.

    Args:
        folder: the cache; an interrupted one is gone on with.
        model: with its pretrained backbones; the local branch embeds moments.
        samples: the images.
        variants: rows an image: the whole frame and augmented ones, see `training.features`.
        seed: of the augmentation.
        amp: run in bfloat16.

    Returns:
        Memory-mapped float16; row = sample * variants + variant.

    Raises:
        ValueError: the folder holds features of other images, weights or variants.
        GiqaError: an image cannot be decoded (it is named), or the disk is full.
    """
    preset = model.preset
    sides = preset.global_branch.view, preset.local_branch.view
    preprocess = Preprocessor(global_side=sides[0], local_side=sides[1], batch=_VIEWS, threads=2)
    run: list[Runner] = []
    device = model.local_branch.reduce.weight.device

    def compute(start: int, end: int) -> list[npt.NDArray[Any]]:
        if not run:  # a finished cache needs none
            run.append(runner(Pooling(model), sides, amp=amp))
        return run[0](
            *make_views(preprocess, *choose_variants(samples, variants, seed, start, end))
        )

    backbones = (model.global_branch.backbone, model.local_branch.backbone)
    identity = {
        "preset": preset.name,
        "weights": [weights_digest(b.state_dict().items()) for b in backbones],
        "samples": cache.fingerprint(samples),
        "variants": variants,
        "seed": seed,
        "amp": amp,
        "runner": "cuda" if torch.cuda.is_available() else "openvino",
    }
    cache.fill(folder, identity, len(samples) * variants, _VIEWS, compute, what="pooled features")
    model.to(device)
    return cache.read(folder)[0]


class Targets(Protocol):
    """What is learnt from; a `Source` is one."""

    def plan(self, rng: np.random.Generator) -> Rows:
        """Rows of one epoch, shuffled."""

    def mos(self, rows: Rows) -> Tensor:
        """Opinion scores (B,) on 0..100, float32."""


class Labelled:
    """Opinion scores of rows, as `Targets`.

    Args:
        mos: of each image (n,) on 0..100.
        variants: rows an image.

    Attributes:
        all_mos: as given, (n,) float32.
    """

    def __init__(self, mos: Sequence[float] | npt.NDArray[Any], variants: int = 1) -> None:
        self.all_mos, self._variants = np.asarray(mos, np.float32), variants

    def plan(self, rng: np.random.Generator) -> Rows:
        """Every image once, in one of its variants."""
        order = rng.permutation(len(self.all_mos))
        return order * self._variants + rng.integers(self._variants, size=len(order))

    def mos(self, rows: Rows) -> Tensor:
        """Opinion scores (B,) on 0..100."""
        return torch.from_numpy(self.all_mos[rows // self._variants])


def read(features: Pooled, rows: Rows) -> list[Tensor]:
    """Rows of pooled features, float32."""
    return [torch.from_numpy(a[rows]).float() for a in features]


def learn(
    part: Any,
    features: Pooled,
    train: Targets,
    options: Optimisation,
    steps: int,
) -> None:
    """Train a module on pooled features; it ends with the averaged parameters.

    Args:
        part: a module of pooled features to scores (B,) on 0..100, on the CPU; changed.
        features: of every row.
        train: which rows, and their opinion scores.
        options: the rate, weight decay, the losses and the seed.
        steps: how many, of 64 images or as near as epochs divide.
    """
    parameters = dict(part.named_parameters())
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=options.lr, weight_decay=options.weight_decay
    )
    average = Average(parameters, _EMA)
    # A warm-up that outlasts the run would never reach the rate.
    warmup = min(_WARMUP, steps // 10)
    torch.manual_seed(options.seed)
    part.train()
    with Progress("pooled features", steps, unit="steps") as bar:
        for step, rows in enumerate(islice(_batches(train, options.seed), steps)):
            for group in optimizer.param_groups:
                group["lr"] = options.lr * schedule(step, steps, warmup)
            loss = losses.on_scores(part(*read(features, rows)), train.mos(rows), options)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            average.update(step + 1)
            bar.update()
    assign(parameters, average.values)
    part.eval()


def _batches(train: Targets, seed: int) -> Iterator[Rows]:
    for epoch in count():
        order = train.plan(np.random.default_rng([seed, epoch, _STREAM]))
        yield from np.array_split(order, math.ceil(len(order) / BATCH))


@torch.inference_mode()
def predict(part: Any, features: Pooled) -> npt.NDArray[np.float64]:
    """Scores (n,) on 0..100 of all rows.

    Args:
        part: a module of pooled features to scores (B,), on the CPU.
        features: of every row.
    """
    part.eval()
    rows = range(0, len(features[0]), _ROWS)
    some = (np.arange(i, min(i + _ROWS, len(features[0]))) for i in rows)
    found = [part(*read(features, r)).double().numpy() for r in some]
    return np.concatenate(found)
