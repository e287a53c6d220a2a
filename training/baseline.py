"""Baselines: what ridge regression and a small MLP make of the same frozen features.

Whatever fusion, fine-tuning and distillation add has to show above these: the features are the mean
and the standard deviation over positions of every ViT block up to the preset's last tap, its class
tokens, and the same moments of every CNN stage; whole frames only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from giqa.contract import SCORE_MAX
from giqa.graphs import cpu_options, import_openvino
from giqa.preprocess import Preprocessor
from training import cache, losses, metrics
from training.data import biq2021
from training.data.table import Sample
from training.features import to_openvino, variant_views
from training.fit import splits
from training.model import Giqa, create
from training.recipe import Optimisation, Recipe
from training.rounding import round_weights

_BATCH = 8
_ALPHAS = (1.0, 10.0, 100.0, 1000.0, 10000.0)
_MLP = Optimisation(
    epochs=30,
    batch=64,
    lr=1e-3,
    weight_decay=0.05,
    warmup_steps=0,
    ema=0.0,
    plcc_weight=0.5,
)
FloatArray = npt.NDArray[np.float64]


class Pooled(nn.Module):
    """Moments over positions of all frozen features, one vector a picture.

    Args:
        model: a model with its pretrained backbones.
    """

    def __init__(self, model: Giqa) -> None:
        super().__init__()
        self.global_branch, self.local_branch = model.global_branch, model.local_branch

    def forward(self, global_view: Tensor, local_view: Tensor) -> Tensor:
        """GLOBAL_VIEW and LOCAL_VIEW, (B, 1, H, W, 3) uint8, to (B, F) float32."""
        vit, parts = self.global_branch.backbone, []
        x = self.global_branch.prefix(global_view, 0)[0]
        for block in vit.blocks:
            x = block(x)
            tokens = x[:, vit.num_prefix_tokens :]
            parts += [x[:, 0], tokens.mean(1), tokens.std(1)]
        for stage in self.local_branch.backbone(self.local_branch.normalize(local_view)):
            parts += [stage.mean((2, 3)), stage.flatten(2).std(-1)]
        return torch.cat(parts, 1)


@torch.no_grad()
def pooled(folder: Path, model: Giqa, samples: Sequence[Sample]) -> npt.NDArray[np.float32]:
    """Pooled features of whole frames, cached; float32 arithmetic.

    Args:
        folder: the cache.
        model: a model with its pretrained backbones.
        samples: the images.

    Returns:
        (n, F) float32.

    Raises:
        GiqaError: an image cannot be decoded (it is named), or the disk is full.
    """
    ov = import_openvino()

    preset = model.preset
    sides = preset.global_branch.view, preset.local_branch.view
    preprocess = Preprocessor(global_side=sides[0], local_side=sides[1], batch=_BATCH, threads=2)
    example = tuple(torch.zeros(_BATCH, 1, side, side, 3, dtype=torch.uint8) for side in sides)
    compiled: list[Any] = []

    def compute(start: int, end: int) -> list[npt.NDArray[Any]]:
        if not compiled:
            graph = to_openvino(Pooled(model), example)
            options = cpu_options(torch.get_num_threads(), half=False)
            compiled.append(ov.compile_model(graph, "CPU", options))
        coarse, fine = variant_views(preprocess, samples, 1, 0, start, end)
        missing = _BATCH - (end - start)  # the graph was traced with one batch size
        views = [np.pad(v.numpy(), [(0, missing), *[(0, 0)] * 4]) for v in (coarse, fine)]
        return [compiled[0](views)[0][: end - start]]

    backbones = (model.global_branch.backbone, model.local_branch.backbone)
    identity = {
        "preset": preset.name,
        "weights": [cache.weights_digest(b.state_dict().items()) for b in backbones],
        "samples": cache.fingerprint(samples),
    }
    cache.fill(folder, identity, len(samples), _BATCH, compute, what="pooled features")
    return cache.read(folder)[0][0].astype(np.float32)


@dataclass(frozen=True)
class Probe:
    """Predictions of one baseline.

    Attributes:
        name: `ridge` or `mlp`.
        choice: what was chosen on validation.
        validation: scores (n,) of the validation images.
        test: scores (m,) of the test images.
    """

    name: str
    choice: str
    validation: FloatArray
    test: FloatArray


Split = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Features (n, F) and MOS (n,) on 0..100."""


def ridge(train: Split, validation: Split, test: npt.NDArray[np.float32]) -> Probe:
    """Ridge regression on standardised features; its strength is chosen on validation."""
    mean, spread = train[0].mean(0), train[0].std(0) + 1e-6
    x, v, t = (np.asarray((a - mean) / spread, np.float64) for a in (train[0], validation[0], test))
    centre = float(train[1].mean())
    gram, moment = x.T @ x, x.T @ (train[1] - centre)
    found: list[tuple[float, float, FloatArray]] = []
    for alpha in _ALPHAS:
        weights = np.linalg.solve(gram + alpha * np.eye(len(gram)), moment)
        found.append((metrics.srocc(v @ weights, validation[1]), alpha, weights))
    _, alpha, weights = max(found, key=lambda f: f[0])
    return Probe("ridge", f"alpha = {alpha:g}", v @ weights + centre, t @ weights + centre)


def mlp(train: Split, validation: Split, test: npt.NDArray[np.float32], seed: int = 0) -> Probe:
    """A 512-128 MLP with dropout on standardised features; its epoch is chosen on validation."""
    torch.manual_seed(seed)
    mean, spread = train[0].mean(0), train[0].std(0) + 1e-6
    x, v, t = (torch.from_numpy((a - mean) / spread) for a in (train[0], validation[0], test))
    mos = torch.from_numpy(train[1])
    net = nn.Sequential(
        nn.Dropout(0.3),
        nn.Linear(x.shape[1], 512),
        nn.GELU(),
        nn.Dropout(0.5),
        nn.Linear(512, 128),
        nn.GELU(),
        nn.Dropout(0.5),
        nn.Linear(128, 1),
        nn.Flatten(0),
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=_MLP.lr, weight_decay=_MLP.weight_decay)
    steps = _MLP.epochs * (len(x) // _MLP.batch)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    best: tuple[float, int, Tensor, Tensor] | None = None
    for epoch in range(_MLP.epochs):
        net.train()
        order = torch.randperm(len(x))
        for start in range(0, len(x) - _MLP.batch + 1, _MLP.batch):
            rows = order[start : start + _MLP.batch]
            loss = losses.on_scores(SCORE_MAX * net(x[rows]).sigmoid(), mos[rows], _MLP)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
        net.eval()
        with torch.inference_mode():
            predicted = [SCORE_MAX * net(part).sigmoid() for part in (v, t)]
        reached = metrics.srocc(predicted[0].numpy(), validation[1])
        if best is None or reached > best[0]:
            best = (reached, epoch + 1, *predicted)
    assert best is not None
    return Probe("mlp", f"epoch {best[1]}", *(p.double().numpy() for p in best[2:]))


def table(recipe: Recipe, folder: Path) -> Iterator[str]:
    """Run both baselines by a recipe's data and backbones.

    Args:
        recipe: preset, backbones, data.
        folder: cache of the pooled features.

    Yields:
        Lines of a Markdown table: SROCC on validation and test, pooled and per subset.
    """
    torch.set_num_threads(recipe.threads)
    model = create(recipe.preset)
    model.load_backbones(recipe.weights.global_branch, recipe.weights.local_branch)
    round_weights(model)
    train, validation = splits(recipe)
    lists = {"train": train, "validation": validation}
    if recipe.data.dataset == "biq2021":
        lists["test"] = biq2021.load(recipe.data.root, "test")
    data = {
        name: (pooled(folder / name, model, samples), _mos(samples))
        for name, samples in lists.items()
    }
    measured = [name for name in lists if name != "train"]
    test = data[measured[-1]][0]
    subsets = sorted({s.subset for s in lists["validation"]})
    yield f"| {' | '.join(['baseline', 'choice', 'split', 'all', *subsets])} |"
    yield "|" + "---|" * (4 + len(subsets))
    for probe in (
        ridge(data["train"], data["validation"], test),
        mlp(data["train"], data["validation"], test),
    ):
        for name in measured:
            scores = probe.validation if name == "validation" else probe.test
            pooled_row, rows = metrics.summary(
                scores, data[name][1], [s.subset for s in lists[name]], resamples=1
            )
            values = [pooled_row.srocc, *(rows[s].srocc for s in subsets)]
            shown = " | ".join(f"{v:.3f}" for v in values)
            yield f"| {probe.name} | {probe.choice} | {name} | {shown} |"


def _mos(samples: Sequence[Sample]) -> npt.NDArray[np.float32]:
    return np.array([s.mos for s in samples], np.float32)
