"""Ridge regression whose strength is chosen on the images that it is fitted on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve

from training import metrics

Array = npt.NDArray[np.float32]

ALPHAS = (300.0, 1e3, 3e3, 1e4, 3e4, 1e5)
FOLDS = 5
_ALL_FOLDS = 2000
"""Above so many images one fifth is held out, instead of each in turn: folds then agree."""

_LEAST_SPREAD = 1e-3
"""A feature that hardly varies in training must not shout elsewhere."""


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge.

    Attributes:
        mean: of the features (F,).
        spread: of the features (F,).
        weights: of standardised features (F,).
        centre: mean MOS.
        alpha: strength.
    """

    mean: Array
    spread: Array
    weights: Array
    centre: float
    alpha: float

    def __call__(self, x: Array) -> npt.NDArray[np.float64]:
        """Features (n, F) to scores (n,); they may leave 0..100."""
        z = (x - self.mean) / self.spread
        return (z @ self.weights).astype(np.float64) + self.centre


def standard(x: Array) -> tuple[Array, Array]:
    """Mean and spread (F,) of features (n, F)."""
    return x.mean(0), x.std(0) + np.float32(_LEAST_SPREAD)


def fit(x: Array, mos: Array, alphas: tuple[float, ...] = ALPHAS, seed: int = 0) -> Ridge:
    """Fit on standardised features; the strength is that of the highest held-out SROCC.

    Args:
        x: features (n, F) float32.
        mos: (n,).
        alphas: strengths to choose from.
        seed: of the folds.

    Raises:
        ValueError: too few images for folds.
    """
    if len(x) < 2 * FOLDS:
        raise ValueError(f"{len(x)} images are too few for a ridge")
    mean, spread = standard(x)
    z = (x - mean) / spread
    fold = np.random.default_rng(seed).permutation(len(z)) % FOLDS
    folds = range(FOLDS if len(z) <= _ALL_FOLDS else 1)
    found = np.zeros(len(alphas))
    if len(alphas) > 1:
        for k in folds:
            kept, held = z[fold != k], z[fold == k]
            for i, weights in enumerate(_solutions(kept, mos[fold != k], alphas)):
                found[i] += metrics.srocc(held @ weights, mos[fold == k])
    alpha = alphas[int(found.argmax())]
    (weights,) = _solutions(z, mos, (alpha,))
    return Ridge(mean, spread, weights, float(mos.mean()), alpha)


def _solutions(z: Array, mos: Array, alphas: tuple[float, ...]):
    """Weights for each strength, by the smaller of the two systems."""
    target = (mos - mos.mean()).astype(np.float32)
    wide = len(z) < z.shape[1]
    gram = z @ z.T if wide else z.T @ z
    right = target if wide else z.T @ target
    for alpha in alphas:
        system = gram.copy()
        system[np.diag_indices(len(system))] += np.float32(alpha)
        found = solve(system, right, assume_a="pos", overwrite_a=True, check_finite=False)
        yield z.T @ found if wide else found
