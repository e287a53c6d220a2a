"""What quality transfer rests on, without any training: alike pictures, alike opinions?

Each reference takes the labels of the reference that it resembles most, and its own are known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from training.transfer.labels import Scores

Floats = npt.NDArray[np.float64]

_LEAST = 3  # a nearest one, and others to compare it with


class Premise(BaseModel):
    """Root mean square errors of borrowed labels in points of 100, means over references."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    references: int
    types: int
    nearest: float = Field(description="labels of the most similar other reference")
    random: float = Field(description="of any other reference")
    mean: float = Field(description="means over all others, by type and level")
    gain: float = Field(description="random - nearest; above 0 if resemblance tells something")
    low: float = Field(description="of the gain, 95 % bootstrap over references")
    high: float
    shared: float = Field(description="share of the variance of MOS that type and level explain")


def premise(
    scores: Scores, names: Sequence[str], features: npt.NDArray[np.float32], *, resamples: int
) -> Premise:
    """Compare references' own labels with borrowed ones.

    Args:
        scores: of all references, types and levels; what not every reference has is left out.
        names: of the references, three at least.
        features: (r, F) float32 of length 1, in the order of `names`.
        resamples: of the bootstrap.

    Raises:
        ValueError: too few references.
    """
    if len(names) < _LEAST:
        raise ValueError(f"{len(names)} references are too few to compare")
    known = [{(t, level) for r, t, level in scores if r == name} for name in names]
    keys = sorted(set.intersection(*known))
    mos = np.array([[scores[name, *key] for key in keys] for name in names])
    others = ~np.eye(len(names), dtype=bool)
    apart = np.sqrt(np.square(mos[:, None] - mos).mean(2))
    nearest = np.where(others, features @ features.T, -2).argmax(1)
    borrowed = apart[np.arange(len(names)), nearest]
    anyone = apart.sum(1) / (len(names) - 1)  # its own is 0
    means = (mos.sum(0) - mos) / (len(names) - 1)
    gain = anyone - borrowed
    drawn = np.random.default_rng(0).integers(len(names), size=(resamples, len(names)))
    low, high = np.quantile(gain[drawn].mean(1), (0.025, 0.975))
    return Premise(
        references=len(names),
        types=len({t for t, _ in keys}),
        nearest=float(borrowed.mean()),
        random=float(anyone.mean()),
        mean=float(np.sqrt(np.square(mos - means).mean(1)).mean()),
        gain=float(gain.mean()),
        low=float(low),
        high=float(high),
        shared=float(1 - np.square(mos - mos.mean(0)).mean() / mos.var()),
    )
