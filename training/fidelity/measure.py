"""How much of its quality a damaged picture has lost, by its reference."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giqa.errors import UsageError
from training.fidelity.features import NAMES, Pixels, features, halved_picture

SCHEMA = "giqa.fidelity/1"
WEIGHTS = Path(__file__).with_name("weights.json")

_NATIVE, _FITTED = 768, 1536  # longest sides

Vector = npt.NDArray[np.float64]


def expanded(vectors: Vector) -> Vector:
    """Each feature, its root and its square, so that sums of them can bend.

    Args:
        vectors: (N, len(NAMES)), 0 or more.

    Returns:
        (N, 3 len(NAMES)), 0 or more; all rise with the features.
    """
    return np.concatenate([vectors, np.sqrt(vectors), np.square(vectors)], 1)


@dataclass(frozen=True)
class Measure:
    """A calibrated measure: 1 - exp(-max(0, weights . expanded features - unseen)).

    No weight is negative, so a picture that is worse in every feature never loses less, and damage
    that adds up approaches 1. Equal pictures lose exactly 0.

    Attributes:
        weights: (3 len(NAMES),) float64, 0 or more.
        unseen: what a sum has to exceed before anything is seen.
        expected: by type of KADID-10k what pictures lose on average by this measure, at levels
            1..5.
        correction: how much of a picture's distance from `expected` its observers share, 0..1.
    """

    weights: Vector
    unseen: float
    expected: dict[str, tuple[float, ...]]
    correction: float

    def of_features(self, vectors: Vector) -> Vector:
        """The share of quality that is lost, from (N, len(NAMES)) to (N,), 0..1."""
        sums = expanded(vectors) @ self.weights - self.unseen
        return np.asarray(1 - np.exp(-sums.clip(0)))

    def lost(self, reference: Pixels, damaged: Pixels) -> float:
        """See `lost`."""
        native = float(self.of_features(features(reference, damaged)[None])[0])
        side = max(reference.shape[:2])
        share = 0.5 * np.log(side / _NATIVE) / np.log(_FITTED / _NATIVE)
        share = float(np.clip(share, 0, 0.5))
        if not share:
            return native
        smaller = features(halved_picture(reference), halved_picture(damaged))
        return (1 - share) * native + share * float(self.of_features(smaller[None])[0])


def lost(reference: Pixels, damaged: Pixels) -> float:
    """The share of the opinion scale that a picture has lost by damage.

    Pictures with a longest side over 768 pixels are looked at twice, at their own size and half of
    it, as they are on a screen; at 1536 pixels both count the same.

    Args:
        reference: (H, W, 3) uint8, sRGB: the clean picture.
        damaged: the same shape.

    Returns:
        0 (no difference is seen) to 1 (bad), lower is better.

    Raises:
        UsageError: the pictures are not of one shape, or not (H, W, 3) uint8.

    Example:
        >>> import numpy as np
        >>> picture = np.full((48, 64, 3), 128, np.uint8)
        >>> lost(picture, picture)
        0.0
    """
    return shipped().lost(reference, damaged)


@lru_cache(maxsize=1)
def shipped() -> Measure:
    """The measure that comes with this package."""
    return read(WEIGHTS)


def read(path: Path) -> Measure:
    """Read what `calibration.write` wrote.

    Raises:
        UsageError: it is of another schema, or of other features.
    """
    found = json.loads(path.read_text())
    if found.get("schema") != SCHEMA or found["features"] != list(NAMES):
        raise UsageError(
            "weights of other features",
            item=str(path),
            remedy="calibrate again: `python -m training fidelity`",
        )
    weights = np.zeros((3, len(NAMES)))
    for name, values in found["weights"].items():
        weights[:, NAMES.index(name)] = values
    expected = {kind: tuple(row) for kind, row in found["expected"].items()}
    return Measure(weights.ravel(), found["unseen"], expected, found["correction"])
