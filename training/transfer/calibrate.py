"""Parameter values that bring a picture to a stated PSNR."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from giqa.errors import UsageError
from training.distortions import Distortion, apply

SEARCH: dict[str, tuple[float, float]] = {
    "gaussian_blur": (0.1, 20),
    "lens_blur": (0.6, 30),
    "color_quantization": (256, 2),
    "jpeg2000": (2, 1000),
    "jpeg": (98, 1),
    "white_noise": (1e-5, 0.5),
    "white_noise_ycbcr": (1e-6, 0.2),
    "impulse_noise": (1e-4, 0.5),
    "multiplicative_noise": (1e-4, 0.5),
    "denoise": (1e-4, 0.5),
}
"""Types whose PSNR falls from the first value to the second, give or take a little."""

CLOSE_DB = 0.1
"""The search ends so close to what is asked for."""
FAR_DB = 1.5
"""A picture whose nearest value is farther off cannot have that level; levels are 3 dB apart."""

_STEPS = 16

Pixels = npt.NDArray[np.uint8]


def psnr(image: Pixels, other: Pixels) -> float:
    """Peak signal-to-noise ratio over all channels.

    Args:
        image: (H, W, 3) uint8.
        other: (H, W, 3) uint8.

    Returns:
        Decibels, 10 log10(255^2 / MSE), higher is more alike; infinite if they are equal.
    """
    error = float(np.square(image.astype(np.float32) - other).mean(dtype=np.float64))
    return 10 * math.log10(255**2 / error) if error else math.inf


def check(kind: Distortion) -> None:
    """Check that a type can be brought to a PSNR.

    Raises:
        UsageError: it cannot.
    """
    if kind.name not in SEARCH:
        raise UsageError(
            "is not searched by PSNR", item=kind.name, remedy=f"give values, or take {[*SEARCH]}"
        )


def find(image: Pixels, kind: Distortion, target: float, seed: int) -> tuple[float, Pixels]:
    """Find the value that brings a picture to a PSNR, by bisection on the value's logarithm.

    Args:
        image: (H, W, 3) uint8, the picture before it is distorted.
        kind: a type in `SEARCH`.
        target: decibels.
        seed: as of `apply`.

    Returns:
        The value, and (H, W, 3) uint8, the picture distorted with it: the nearest that was met.

    Raises:
        UsageError: the type is not in `SEARCH`, or no value comes within `FAR_DB`.
    """
    check(kind)
    weak, strong = SEARCH[kind.name]
    tried: set[float] = set()
    best: tuple[float, float, Pixels] | None = None
    for _ in range(_STEPS):
        value = math.sqrt(weak * strong)
        if kind.whole:
            value = float(round(value))
        if value in tried:  # whole numbers have run out; the ends may be what is left
            value = next((end for end in (weak, strong) if end not in tried), value)
            if value in tried:
                break
        tried.add(value)
        result = apply(image, kind, value, seed)
        found = psnr(image, result)
        if best is None or abs(found - target) < best[0]:
            best = (abs(found - target), value, result)
        if best[0] <= CLOSE_DB:
            break
        if found > target:
            weak = value
        else:
            strong = value
    assert best is not None
    if best[0] > FAR_DB:
        raise UsageError(
            f"no value brings this picture near {target:g} dB; {best[0]:.1f} dB are missing",
            item=kind.name,
            remedy="leave the picture out",
        )
    return best[1], best[2]
