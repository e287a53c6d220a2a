"""What damage loses, 0 (nothing) to 1 (the end of the scale).

Where observers scored such damage, their mean for its type and strength, corrected for the picture
at hand: what `training.fidelity` finds there, less what it finds on average, times the share of
such distances that TID2013's observers confirm. Elsewhere the measure alone, or with a curve set by
hand, which is said below.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.distortions import by_name
from training.distortions.convert import Pixels
from training.fidelity import measure, opinions

UNSEEN_JPEG = min(opinions.UNSEEN_JPEG)
"""From this quality on JPEG loses nothing."""

NOTHING = 0.97
"""A picture that shows nothing. By hand: worse than any damage of KADID-10k's, .92."""

# KADID-10k's `darken` at levels 3, 4 and 5 multiplies mid-grey by .8, .6 and .2, and loses .11, .30
# and .66. Below, by hand, towards black.
_GAIN = (0.0, 0.02, 0.05, 0.1, 0.2, 0.6, 0.8, 1.0)
_GAIN_LOST = (NOTHING, NOTHING, 0.94, 0.85, 0.66, 0.30, 0.11, 0.0)

# By hand: factors by which a picture at native scale was smaller meanwhile.
_FACTOR = (1, 1.5, 2, 3, 4, 6, 8, 12)
_FACTOR_LOST = (0, 0.07, 0.16, 0.30, 0.42, 0.58, 0.70, 0.82)
_BY_HAND = 0.6  # of these curves beside the measure
_NEAREST = 1.15  # squares are worse than blur


def of_type(kind: str, level: int, reference: Pixels, damaged: Pixels) -> float:
    """Damage by a type of KADID-10k at a level, 1..5, of a picture near its size."""
    return _corrected(kind, level, opinions.losses()[kind][level - 1], reference, damaged)


def of_codec(codec: str, value: float, reference: Pixels, damaged: Pixels) -> float:
    """Damage by a codec: JPEG's between KADID-10k's levels, others' by the measure."""
    if codec != "jpeg":
        return measure.lost(reference, damaged)
    if value >= UNSEEN_JPEG:
        return 0.0
    qualities = (UNSEEN_JPEG, *by_name("jpeg").levels)
    # Levels 0 (nothing is seen) to 5, between them by the logarithm of the quality.
    at = float(np.interp(-np.log(value), -np.log(qualities), range(len(qualities))))
    mean = float(np.interp(at, range(6), (0.0, *opinions.losses()["jpeg"])))
    return _corrected("jpeg", at, mean, reference, damaged)


def of_resampling(factor: float, nearest: bool, reference: Pixels, damaged: Pixels) -> float:
    """A picture that was smaller by a factor meanwhile."""
    by_hand = float(np.interp(np.log(factor), np.log(_FACTOR), _FACTOR_LOST))
    by_hand = min(1.0, by_hand * _NEAREST) if nearest else by_hand
    return _BY_HAND * by_hand + (1 - _BY_HAND) * measure.lost(reference, damaged)


def of_enlargement(factor: float) -> float:
    """A picture that was made larger, which shows no more than before. By hand."""
    return 0.10 * min(1.0, factor - 1) + 0.13 * max(0.0, float(np.log2(factor)) - 1)


def of_gain(gain: float) -> float:
    """A picture whose values (of sRGB) were multiplied by 0..1."""
    return float(np.interp(gain, _GAIN, _GAIN_LOST))


def in_order(losses: Sequence[float]) -> list[float]:
    """The same, none below one before it: for damage that only grows."""
    return np.maximum.accumulate(np.asarray(losses)).tolist()


def _corrected(kind: str, level: float, mean: float, reference: Pixels, damaged: Pixels) -> float:
    shipped = measure.shipped()
    usual = float(np.interp(level, range(6), (0.0, *shipped.expected[kind])))
    here = shipped.lost(reference, damaged)
    # What nobody sees is not corrected, up to level 1 ever more.
    share = shipped.correction * min(1.0, level)
    return float(np.clip(mean + share * (here - usual), 0, 1))
