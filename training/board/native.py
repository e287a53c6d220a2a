"""Damage at native scale: photographs of megapixels, as cameras and encoders leave them.

Strengths are in native pixels or an encoder's own units, three levels of each type, the mildest
first. Level 1 of each is meant to be seen at 1:1 by somebody who looks for it; fitted to a screen
it may not be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from PIL import Image

from training.distortions import codecs
from training.distortions.convert import Pixels

LEVELS = 3
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def upscaled(image: Pixels, factor: float, filter_: str) -> Pixels:
    """Bring a picture down by `factor`, averaging areas, and up again with a filter."""
    height, width = image.shape[:2]
    small = max(1, round(width / factor)), max(1, round(height / factor))
    down = Image.fromarray(image).resize(small, Image.Resampling.BOX)
    return np.asarray(down.resize((width, height), _FILTERS[filter_]))


def gaussian_blur(image: Pixels, sigma: float) -> Pixels:
    """Blur with a Gaussian of standard deviation `sigma` pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma))


def motion_blur(image: Pixels, reach: float, degrees: float) -> Pixels:
    """Blur along a line that reaches `reach` pixels to either side."""
    radius = int(np.ceil(reach))
    at = np.arange(-radius, radius + 1)
    x, y = np.meshgrid(at, at)
    angle = np.deg2rad(degrees)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = x * np.sin(angle) - y * np.cos(angle)
    kernel = (1 - np.abs(across)).clip(0) * (reach + 0.5 - np.abs(along)).clip(0, 1)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()))


def noise(image: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    """Add Gaussian noise of a standard deviation in levels of 255, each channel by itself."""
    noisy = image + rng.standard_normal(image.shape, np.float32) * np.float32(deviation)
    return np.rint(noisy.clip(0, 255)).astype(np.uint8)


Render = Callable[[Pixels, float, np.random.Generator], Pixels]


def _filtered(name: str) -> Render:
    return lambda image, factor, _: upscaled(image, factor, name)


def _coded(name: str) -> Render:
    return lambda image, value, _: codecs.coded(image, name, value)


TYPES: Mapping[str, tuple[Render, tuple[float, float, float]]] = {
    **{f"upscaled_{name}": (_filtered(name), (2, 4, 8)) for name in _FILTERS},
    "gaussian_blur": (lambda image, sigma, _: gaussian_blur(image, sigma), (1, 2, 4)),
    "motion_blur": (
        lambda image, reach, rng: motion_blur(image, reach, rng.uniform(0, 180)),
        (1, 2, 4),
    ),
    "noise": (noise, (5, 10, 20)),
    "jpeg": (_coded("jpeg"), (60, 30, 10)),
    "hevc": (_coded("hevc"), (30, 38, 46)),
    "av1": (_coded("av1"), (50, 25, 5)),
    "vp9": (_coded("vp9"), (40, 52, 63)),
}
"""By name: what renders (H, W, 3) uint8 at a strength, and the strengths of levels 1 to 3."""


def damaged(image: Pixels, kind: str, level: int, seed: int) -> Pixels:
    """Damage a photograph.

    Args:
        image: (H, W, 3) uint8, sRGB.
        kind: one of `TYPES`.
        level: 1 to 3.
        seed: of noise and of motion's direction.

    Returns:
        (H, W, 3) uint8.
    """
    render, strengths = TYPES[kind]
    return render(image, strengths[level - 1], np.random.default_rng(seed))
