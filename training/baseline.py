"""Baselines: what ridge regression and a small MLP make of the frozen features, pooled.

Whatever fusion and fine-tuning add has to show above these. They see what context tokens are made
of (`training.pooled`), of whole frames only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from giqa.contract import SCORE_MAX
from training import metrics, pooled
from training.data import biq2021
from training.data.samples import Sample
from training.fit import splits
from training.model import Giqa, create
from training.recipe import Optimisation, Recipe
from training.rounding import round_weights

_ALPHAS = (1.0, 10.0, 100.0, 1000.0, 10000.0)
_EPOCHS = 30
MLP = Optimisation(
    epochs=1, batch=2, lr=1e-3, weight_decay=0.05, warmup_steps=0, ema=0, plcc_weight=0.5
)
"""How `Mlp` learns, see `pooled.learn`."""
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Probe:
    """Predictions of one baseline.

    Attributes:
        name: `ridge` or `mlp`.
        choice: what was chosen on validation; empty if nothing was.
        validation: scores (n,) of the validation images.
        test: scores (m,) of the test images.
    """

    name: str
    choice: str
    validation: FloatArray
    test: FloatArray


Split = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Features (n, F) and MOS (n,) on 0..100."""


def features_of(
    folder: Path, model: Giqa, samples: Sequence[Sample], *, amp: bool = False
) -> npt.NDArray[np.float32]:
    """Pooled features of whole frames side by side, (n, F); see `pooled.pooled`."""
    parts = pooled.pooled(folder, model, samples, amp=amp)
    return np.concatenate([np.asarray(p, np.float32).reshape(len(samples), -1) for p in parts], 1)


def ridge(train: Split, validation: Split, test: npt.NDArray[np.float32]) -> Probe:
    """Ridge regression on standardised features; its strength is chosen on validation."""
    x, v, t = (a.astype(np.float64) for a in standardised(train[0], validation[0], test))
    centre = float(train[1].mean())
    gram, moment = x.T @ x, x.T @ (train[1] - centre)
    found: list[tuple[float, float, FloatArray]] = []
    for alpha in _ALPHAS:
        weights = np.linalg.solve(gram + alpha * np.eye(len(gram)), moment)
        found.append((metrics.srocc(v @ weights, validation[1]), alpha, weights))
    _, alpha, weights = max(found, key=lambda f: f[0])
    return Probe("ridge", f"alpha = {alpha:g}", v @ weights + centre, t @ weights + centre)


class Mlp(nn.Module):
    """512-128 with dropout; features (B, F) to scores (B,) on 0..100."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Dropout(0.3)]
        for inner, outer in ((width, 512), (512, 128)):
            layers += [nn.Linear(inner, outer), nn.GELU(), nn.Dropout(0.5)]
        self.layers = nn.Sequential(*layers, nn.Linear(128, 1))

    def forward(self, x: Tensor) -> Tensor:
        return SCORE_MAX * self.layers(x).sigmoid().squeeze(1)


def mlp(train: Split, validation: Split, test: npt.NDArray[np.float32], seed: int = 0) -> Probe:
    """A small MLP on standardised features."""
    x, v, t = standardised(train[0], validation[0], test)
    net = fit_mlp(x, train[1], seed)
    return Probe("mlp", "", pooled.predict(net, [v]), pooled.predict(net, [t]))


def fit_mlp(x: npt.NDArray[np.float32], mos: npt.NDArray[np.float32], seed: int = 0) -> Mlp:
    """Train the MLP on standardised features (n, F); `pooled.predict` scores with it."""
    torch.manual_seed(seed)
    net = Mlp(x.shape[1])
    steps = _EPOCHS * -(-len(x) // pooled.BATCH)
    options = MLP.model_copy(update={"seed": seed})
    pooled.learn(net, [x], pooled.Labelled(mos), options, steps)
    return net


def standardised(
    train: npt.NDArray[np.float32], *others: npt.NDArray[np.float32]
) -> list[npt.NDArray[np.float32]]:
    mean, spread = train.mean(0), train.std(0) + 1e-6
    return [(a - mean) / spread for a in (train, *others)]


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
        name: (
            features_of(folder / name, model, samples),
            np.array([s.mos for s in samples], np.float32),
        )
        for name, samples in lists.items()
    }
    measured = [name for name in lists if name != "train"]
    test = data[measured[-1]][0]
    subsets = sorted({s.subset for s in lists["validation"]})
    yield f"| {' | '.join(['baseline', 'choice', 'split', 'all', *subsets])} |"
    yield "|" + "---|" * (4 + len(subsets))
    for make in (ridge, mlp):
        probe = make(data["train"], data["validation"], test)
        for name in measured:
            scores = probe.validation if name == "validation" else probe.test
            row, rows = metrics.summary(
                scores, data[name][1], [s.subset for s in lists[name]], resamples=1
            )
            values = [row.srocc, *(rows[s].srocc for s in subsets)]
            shown = " | ".join(f"{v:.3f}" for v in values)
            yield f"| {probe.name} | {probe.choice} | {name} | {shown} |"
