"""Too much sharpening; more and less contrast."""

from __future__ import annotations

import numpy as np

from training.distortions.blur import gaussian_filter
from training.distortions.brightness import tone_curve
from training.distortions.convert import Floats, lab_to_rgb, rgb_to_lab

_SHARPEN_SIGMA = 3.0


def high_sharpen(image: Floats, amount: float, _rng: np.random.Generator) -> Floats:
    """Add `amount` times what a Gaussian of sigma 3 takes from Lab's lightness.

    An unsharp mask without a threshold. (H, W, 3) in 0..1.
    """
    lab = rgb_to_lab(image)
    lightness = lab[..., 0]
    lab[..., 0] += amount * (lightness - gaussian_filter(lightness, _SHARPEN_SIGMA))
    return lab_to_rgb(lab)


def contrast_change(image: Floats, amount: float, _rng: np.random.Generator) -> Floats:
    """Bend R, G and B by a curve that is symmetrical about the middle. (H, W, 3) in 0..1.

    It goes through (0.3, 0.25 - amount / 4), (0.5, 0.5) and (0.7, 0.75 + amount / 4): more contrast
    above -0.2, where it is a straight line, and less below.
    """
    step = 0.25 + amount / 4
    return tone_curve(image, [0.3, 0.5, 0.7], [0.5 - step, 0.5, 0.5 + step])
