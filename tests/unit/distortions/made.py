"""Pictures that are distorted, and how far they then differ."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image
from skimage import data

from training.distortions import TYPES, distort
from training.distortions.convert import Pixels, to_float

NAMES = [kind.name for kind in TYPES]
LEVELS = range(1, 6)
GENERATOR = np.random.default_rng(0)


@lru_cache
def sample() -> Pixels:
    """A photograph, 160 x 120."""
    portrait = Image.fromarray(data.astronaut()[:384])
    image = np.array(portrait.resize((160, 120), Image.Resampling.LANCZOS))
    image.flags.writeable = False  # nothing may write into what it is given
    return image


@lru_cache
def rendered(name: str, level: int) -> Pixels:
    return distort(sample(), name, level, seed=7)


def gray(value: int, height: int = 256, width: int = 300) -> Pixels:
    return np.full((height, width, 3), value, np.uint8)


def error(a: Pixels, b: Pixels) -> float:
    """Mean square, in 0..1."""
    return float(np.mean((to_float(a) - to_float(b)) ** 2))
