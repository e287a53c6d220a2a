"""Labelled images: one record type for all data sets, and splits of it."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One image with its opinion score.

    Attributes:
        path: the image file.
        mos: mean opinion score on 0..100, higher is better.
        subset: the part of the data set it belongs to; empty if there are none.
    """

    path: Path
    mos: float
    subset: str = ""


def hold_out(
    samples: Sequence[Sample], named: Collection[str], more: int, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Split off a validation set: the named files and a seeded random draw of others.

    Args:
        samples: all samples of the training split.
        named: file names that must be in validation.
        more: how many others join them.
        seed: seed of the draw.

    Returns:
        Training and validation samples, each in the order of `samples`.

    Raises:
        ValueError: a named file is not among the samples.
    """
    absent = set(named) - {s.path.name for s in samples}
    if absent:
        raise ValueError(f"validation names files that are not there: {sorted(absent)[:5]}")
    others = [s.path.name for s in samples if s.path.name not in named]
    held = set(named) | set(random.Random(seed).sample(others, more))
    train = [s for s in samples if s.path.name not in held]
    return train, [s for s in samples if s.path.name in held]
