"""Splits by content, and the ten rounds of data sets that have no official split."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from fractions import Fraction

from training.data.samples import Sample

ROUNDS = 10
TEST_SHARE = 0.2


def by_content(
    samples: Sequence[Sample], share: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Split off a share of the contents; what shows one content stays together.

    A sample without `reference` is a content of its own. The draw does not depend on the order of
    the samples, nor on the folder that all of them are in.

    Args:
        samples: all samples.
        share: part of the contents that is held out, above 0 and below 1, to the nearest whole
            number.
        seed: seed of the draw.

    Returns:
        The rest and what was held out, each in the order of `samples`.

    Raises:
        ValueError: the share is not between 0 and 1, or one of the two parts would be empty.
    """
    if not 0 < share < 1:
        raise ValueError(f"a share is above 0 and below 1: {share}")
    contents = sorted({_content(sample) for sample in samples})
    count = math.floor(Fraction(share) * len(contents) + Fraction(1, 2))
    if not 0 < count < len(contents):
        raise ValueError(f"a share of {share} holds out {count} of {len(contents)} contents")
    held = set(random.Random(seed).sample(contents, count))
    rest = [sample for sample in samples if _content(sample) not in held]
    return rest, [sample for sample in samples if _content(sample) in held]


def round_of(samples: Sequence[Sample], number: int) -> tuple[list[Sample], list[Sample]]:
    """One of ten rounds: a fifth of the contents is for testing.

    Args:
        samples: all samples of the data set.
        number: 1..10, the seed of the draw.

    Returns:
        Training and test samples, each in the order of `samples`.

    Raises:
        ValueError: no such round, or there are too few contents.
    """
    if not 1 <= number <= ROUNDS:
        raise ValueError(f"rounds are 1..{ROUNDS}: {number}")
    return by_content(samples, TEST_SHARE, number)


def _content(sample: Sample) -> tuple[bool, str]:
    """A key that no reference shares with a path."""
    return bool(sample.reference), sample.reference or sample.path.as_posix()
