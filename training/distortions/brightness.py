"""Distortions of brightness: tone curves up and down, a constant added."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import CubicSpline

from training.distortions.convert import Floats, lab_to_rgb, rgb_to_lab


def tone_curve(values: Floats, x: Sequence[float], y: Sequence[float]) -> Floats:
    """Map 0..1 to 0..1 along the cubic spline through (0, 0), the given points and (1, 1).

    The spline is not-a-knot; with one point it is a parabola. Results are cut to 0..1.

    Args:
        values: any shape, in 0..1.
        x: the points' places, rising, between 0 and 1.
        y: the curve's heights there.

    Returns:
        The same shape.
    """
    curve = CubicSpline([0.0, *x, 1.0], [0.0, *y, 1.0])
    return np.clip(curve(values), 0, 1).astype(np.float32)


def brighten(image: Floats, amount: float, _rng: np.random.Generator) -> Floats:
    """Lift the middle of the tone curve from 0.5 by amount / 2. (H, W, 3) in 0..1.

    Two parts are the curve on R, G and B, one part is the curve on Lab's lightness, whose colours
    pale less.
    """
    middle = [0.5 + amount / 2]
    lab = rgb_to_lab(image)
    lab[..., 0] = 100 * tone_curve(np.clip(lab[..., 0] / 100, 0, 1), [0.5], middle)
    return (2 * tone_curve(image, [0.5], middle) + lab_to_rgb(lab)) / 3


def darken(image: Floats, amount: float, _rng: np.random.Generator) -> Floats:
    """Lower the middle of R's, G's and B's tone curve from 0.5 by amount / 2. (H, W, 3) in 0..1."""
    return tone_curve(image, [0.5], [0.5 - amount / 2])


def mean_shift(image: Floats, shift: float, _rng: np.random.Generator) -> Floats:
    """Add a constant; what leaves 0..1 is cut. (H, W, 3) in 0..1."""
    return np.clip(image + np.float32(shift), 0, 1)
