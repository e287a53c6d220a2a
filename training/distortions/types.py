"""The 25 types, their parameters at levels 1..5, and what applies them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from giqa.errors import UsageError
from training.distortions import (
    blur,
    brightness,
    colour,
    compression,
    noise,
    sharpness_contrast,
    spatial,
)
from training.distortions.convert import Floats, Pixels, to_float, to_uint8

SMALLEST_SIDE = 32
LEVELS = 5


@dataclass(frozen=True)
class Distortion:
    """One type of distortion.

    Attributes:
        number: 1..25, as in KADID-10k's file names.
        name: in snake case; never renamed.
        parameter: what the value means, and its unit.
        levels: the value at levels 1..5.
        lowest: smallest value that is taken.
        highest: largest value that is taken.
        function: picture (H, W, 3) float32 in 0..1, value and generator to (H, W, 3), maybe beyond
            0..1. It leaves its input as it is.
        whole: whether only whole numbers are taken.
        random: whether the seed matters.
    """

    number: int
    name: str
    parameter: str
    levels: tuple[float, float, float, float, float]
    lowest: float
    highest: float
    function: Callable[[Floats, float, np.random.Generator], Floats]
    whole: bool = False
    random: bool = False

    def check(self, value: float) -> None:
        """Check a parameter's value.

        Raises:
            UsageError: it is out of range, not finite, or not whole where it has to be.
        """
        number = not isinstance(value, bool) and isinstance(value, (int, float, np.number))
        if not (number and self.lowest <= value <= self.highest):
            wrong = f"{value!r} is not within {self.lowest:g}..{self.highest:g}"
        elif self.whole and value != int(value):
            wrong = f"{value!r} is not a whole number"
        else:
            return
        raise UsageError(f"{self.parameter}: {wrong}", item=self.name, remedy="give such a value")


# fmt: off
TYPES: tuple[Distortion, ...] = (
    Distortion(1, "gaussian_blur", "standard deviation in pixels", (0.1, 0.5, 1, 2, 5), 0.01, 50,
               blur.gaussian_blur),
    Distortion(2, "lens_blur", "radius in pixels", (1, 2, 4, 6, 8), 0.5, 50,
               blur.lens_blur),
    Distortion(3, "motion_blur", "length in pixels", (1, 2, 4, 6, 10), 1, 100,
               blur.motion_blur, random=True),
    Distortion(4, "color_diffusion", "factor of colour, and of its blur", (1, 3, 6, 8, 12), 0, 30,
               colour.color_diffusion),
    Distortion(5, "color_shift", "distance in pixels", (1, 3, 6, 8, 12), 0, 100,
               colour.color_shift, random=True),
    Distortion(6, "color_quantization", "number of colours", (64, 48, 32, 16, 8), 2, 256,
               colour.color_quantization, whole=True),
    Distortion(7, "color_saturation_hsv", "factor of S in HSV", (0.4, 0.2, 0.1, 0, -0.4), -1, 10,
               colour.color_saturation_hsv),
    Distortion(8, "color_saturation_lab", "factor of a and b in Lab", (1, 2, 3, 6, 9), -1, 30,
               colour.color_saturation_lab),
    Distortion(9, "jpeg2000", "compression ratio", (16, 32, 45, 120, 400), 1, 1000,
               compression.jpeg2000),
    Distortion(10, "jpeg", "libjpeg's quality", (43, 36, 24, 7, 4), 1, 100,
               compression.jpeg, whole=True),
    Distortion(11, "white_noise", "variance in 0..1", (0.001, 0.002, 0.003, 0.005, 0.01), 0, 1,
               noise.white_noise, random=True),
    Distortion(12, "white_noise_ycbcr", "variance in 0..1", (0.0001, 0.0005, 0.001, 0.002, 0.003),
               0, 1, noise.white_noise_ycbcr, random=True),
    Distortion(13, "impulse_noise", "share of values", (0.001, 0.005, 0.01, 0.02, 0.03), 0, 1,
               noise.impulse_noise, random=True),
    Distortion(14, "multiplicative_noise", "variance", (0.001, 0.005, 0.01, 0.02, 0.05), 0, 1,
               noise.multiplicative_noise, random=True),
    Distortion(15, "denoise", "variance of the noise in 0..1", (0.01, 0.03, 0.05, 0.1, 0.15), 0, 1,
               noise.denoise, random=True),
    Distortion(16, "brighten", "twice the rise of mid-grey", (0.1, 0.2, 0.4, 0.7, 1.1), 0, 2,
               brightness.brighten),
    Distortion(17, "darken", "twice the fall of mid-grey", (0.05, 0.1, 0.2, 0.4, 0.8), 0, 2,
               brightness.darken),
    Distortion(18, "mean_shift", "what is added, in 0..1", (0.15, 0.08, 0, -0.08, -0.15), -1, 1,
               brightness.mean_shift),
    Distortion(19, "jitter", "standard deviation in pixels", (0.05, 0.1, 0.2, 0.5, 1), 0, 20,
               spatial.jitter, random=True),
    Distortion(20, "non_eccentricity_patch", "number of patches", (20, 40, 60, 80, 100), 0, 10_000,
               spatial.non_eccentricity_patch, whole=True, random=True),
    Distortion(21, "pixelate", "strength s of 0.95 - s^0.6", (0.01, 0.05, 0.1, 0.2, 0.5), 0, 0.9,
               spatial.pixelate),
    Distortion(22, "quantization", "number of thresholds", (20, 16, 13, 10, 7), 1, 100,
               spatial.quantization, whole=True),
    Distortion(23, "color_block", "number of blocks", (2, 4, 6, 8, 10), 0, 10_000,
               spatial.color_block, whole=True, random=True),
    Distortion(24, "high_sharpen", "amount", (1, 2, 3, 6, 12), 0, 50,
               sharpness_contrast.high_sharpen),
    Distortion(25, "contrast_change", "amount; -0.2 is none", (0.3, 0.15, 0, -0.4, -0.6), -0.85,
               1.5, sharpness_contrast.contrast_change),
)
# fmt: on

_BY_NAME = {kind.name: kind for kind in TYPES}


def by_name(name: str) -> Distortion:
    """Find a type.

    Raises:
        UsageError: there is no type of that name.
    """
    if name not in _BY_NAME:
        raise UsageError("no such distortion", item=name, remedy=f"take one of {list(_BY_NAME)}")
    return _BY_NAME[name]


def distort(image: Pixels, type: Distortion | str, level: int, seed: int) -> Pixels:
    """Distort a picture as KADID-10k does.

    Args:
        image: (H, W, 3) uint8, sRGB, sides at least 32. It is not changed.
        type: one of `TYPES`, or its name.
        level: 1..5. That is the order in KADID-10k, and not everywhere the order of strength.
        seed: 0 or more. The same arguments give the same bytes; another type or level draws other
            numbers.

    Returns:
        (H, W, 3) uint8, a new array: what `apply` gives for the level's value.

    Raises:
        UsageError: an argument is not as said above.
    """
    kind = by_name(type) if isinstance(type, str) else type
    if isinstance(level, bool) or level not in range(1, LEVELS + 1):
        raise UsageError(
            f"no level {level!r}", item=kind.name, remedy=f"give a level of 1..{LEVELS}"
        )
    return apply(image, kind, kind.levels[int(level) - 1], seed)


def apply(image: Pixels, type: Distortion | str, value: float, seed: int) -> Pixels:
    """Distort a picture with any value of a type's parameter.

    Args:
        image: (H, W, 3) uint8, sRGB, sides at least 32. It is not changed.
        type: one of `TYPES`, or its name.
        value: within the type's `lowest` and `highest`, whole where the type says so.
        seed: 0 or more. The same arguments give the same bytes.

    Returns:
        (H, W, 3) uint8, a new array.

    Raises:
        UsageError: an argument is not as said above.
    """
    kind = by_name(type) if isinstance(type, str) else type
    _check_image(image)
    kind.check(value)
    generator = _generator(seed, kind, float(value))
    return to_uint8(kind.function(to_float(image), float(value), generator))


def _generator(seed: int, kind: Distortion, value: float) -> np.random.Generator:
    """Random numbers that depend on nothing but these three."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise UsageError(f"seed {seed!r}", item=kind.name, remedy="give a whole number, 0 or more")
    mantissa, exponent = math.frexp(value)
    # A spawn key is mixed in apart from the seed, so no two triples can meet.
    key = (kind.number, int(abs(mantissa) * 2**53), exponent + 2048, int(value < 0))
    return np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=key))


def _check_image(image: Pixels) -> None:
    shape = getattr(image, "shape", None)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = getattr(image, "dtype", image.__class__.__name__)
        raise UsageError(f"a picture of {found}", remedy="give an array of uint8, 0..255")
    if len(image.shape) != 3 or image.shape[2] != 3:
        raise UsageError(f"a picture of shape {shape}", remedy="give height x width x RGB")
    if min(image.shape[:2]) < SMALLEST_SIDE:
        raise UsageError(
            f"a picture of {image.shape[1]} x {image.shape[0]} pixels is too small",
            remedy=f"both sides must have {SMALLEST_SIDE}",
        )
