"""Telling a change from noise: medians, spread, and intervals of ratios by bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
LEVEL = 0.95

Better = Literal["higher", "lower", "neither"]
"""Which values of a series are good ones; `neither` is a fact that is not judged."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """How many times as good one thing is as another; above 1 is better, whatever the unit.

    Attributes:
        median: the estimate.
        low: lower end of the 95 % interval.
        high: its upper end.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """`1.23 (1.20 .. 1.26)`."""
        return f"{self.median:.2f} ({self.low:.2f} .. {self.high:.2f})"


def paired(values: Sequence[float], others: Sequence[float], better: Better) -> FloatArray:
    """Ratios of values to others of the same round.

    Args:
        values: one per round, above 0.
        others: as many, of the same rounds, above 0.
        better: which values are good ones.

    Returns:
        (n,) float64: how many times as good each value is as its partner.

    Raises:
        ValueError: unequal lengths, nothing, or values of 0 and below.
    """
    a, b = np.asarray(values, float), np.asarray(others, float)
    if a.shape != b.shape or not a.size:
        raise ValueError(f"{a.size} rounds beside {b.size}")
    if min(a.min(), b.min()) <= 0:
        raise ValueError("ratios need values above 0")
    return b / a if better == "lower" else a / b


def paired_ratio(
    values: Sequence[float], others: Sequence[float], better: Better, *, seed: int = 0
) -> Ratio:
    """Median of the paired ratios, and its bootstrap interval over rounds.

    Args:
        values: one per round, above 0.
        others: as many, of the same rounds, above 0.
        better: which values are good ones.
        seed: of the bootstrap.

    Returns:
        How many times as good the values are.

    Raises:
        ValueError: see `paired`.
    """
    ratios = paired(values, others, better)
    return _ratio(float(np.median(ratios)), _medians(ratios, np.random.default_rng(seed)))


def run_ratio(
    new: Sequence[float], base: Sequence[float], better: Better, *, seed: int = 0
) -> Ratio:
    """Ratio of the medians of two runs, whose rounds have nothing to do with each other.

    Args:
        new: one value per round, above 0.
        base: the same of the earlier run; maybe another number of rounds.
        better: which values are good ones.
        seed: of the bootstrap; each run is resampled by itself.

    Returns:
        How many times as good the new run is.

    Raises:
        ValueError: nothing, or values of 0 and below.
    """
    rng = np.random.default_rng(seed)
    a, b = np.asarray(new, float), np.asarray(base, float)
    ratio = paired([np.median(a)], [np.median(b)], better)[0]
    if min(a.min(), b.min()) <= 0:
        raise ValueError("ratios need values above 0")
    found = _medians(a, rng) / _medians(b, rng)
    return _ratio(ratio, 1 / found if better == "lower" else found)


def _medians(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    drawn = rng.integers(0, values.size, (RESAMPLES, values.size))
    return np.median(values[drawn], axis=1)


def _ratio(median: float, resampled: FloatArray) -> Ratio:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Ratio(float(median), float(low), float(high))
