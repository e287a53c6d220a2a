"""Splits of labelled images into training and validation."""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from fractions import Fraction

from training.data.samples import Sample

_QUANTILES = 10


def hold_out(
    samples: Sequence[Sample], named: Collection[str], more: int, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Split off a validation set: the named files and a seeded random draw of others.

    Args:
        samples: all samples of the training split.
        named: file names that must be in validation; one that several folders hold takes all of
            them there.
        more: how many others join them.
        seed: seed of the draw.

    Returns:
        Training and validation samples, each in the order of `samples`.

    Raises:
        ValueError: a named file is not among the samples, or fewer than `more` are left.
    """
    absent = set(named) - {s.path.name for s in samples}
    if absent:
        raise ValueError(f"validation names files that are not there: {sorted(absent)[:5]}")
    others = [i for i, s in enumerate(samples) if s.path.name not in named]
    drawn = random.Random(seed).sample(others, more)
    return _part(samples, set(range(len(samples))) - set(others) | set(drawn))


def hold_out_share(
    samples: Sequence[Sample], share: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Split off a share that looks like the whole: drawn from each of `strata`.

    The draw does not depend on the order of the samples. It knows nothing of scenes: where several
    images show the same one, split by scene instead.

    Args:
        samples: all samples of the training split.
        share: part that goes to validation, above 0 and below 1.
        seed: seed of the draw.

    Returns:
        Training and validation samples, each in the order of `samples`. Of a stratum, and of a
        subset, validation gets its share within one image; of all samples, within a half.

    Raises:
        ValueError: the share is not between 0 and 1, a score is not finite, or one of the two
            parts would be empty.
    """
    if not 0 < share < 1:
        raise ValueError(f"a share is above 0 and below 1: {share}")
    # Rounding the running total, not each stratum, keeps small strata from rounding to nothing.
    exact, before, held = Fraction(share), 0, set()
    draw, passed = random.Random(seed), 0
    for stratum in strata(samples):
        passed += len(stratum)
        until = math.floor(exact * passed + Fraction(1, 2))
        held.update(draw.sample(stratum, until - before))
        before = until
    if not 0 < len(held) < len(samples):
        raise ValueError(
            f"a share of {share} leaves {len(held)} of {len(samples)} samples for validation"
        )
    return _part(samples, held)


def strata(samples: Sequence[Sample]) -> list[list[int]]:
    """Group samples of a subset whose scores are near each other.

    Args:
        samples: with finite scores.

    Returns:
        Indices by stratum: a tenth of a subset each, by score (fewer for a subset of less than
        ten), subsets by name.

    Raises:
        ValueError: a score is not finite.
    """
    subsets: dict[str, list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        if not math.isfinite(sample.mos):
            raise ValueError(f"{sample.path} has MOS {sample.mos}")
        subsets[sample.subset].append(i)
    found = []
    for _, members in sorted(subsets.items()):
        members.sort(key=lambda i: (samples[i].mos, samples[i].path.as_posix()))
        parts = min(_QUANTILES, len(members))
        bounds = [j * len(members) // parts for j in range(parts + 1)]
        found += [members[a:b] for a, b in itertools.pairwise(bounds)]
    return found


def _part(samples: Sequence[Sample], held: set[int]) -> tuple[list[Sample], list[Sample]]:
    train = [s for i, s in enumerate(samples) if i not in held]
    return train, [s for i, s in enumerate(samples) if i in held]
