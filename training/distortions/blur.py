"""Blur by a Gaussian, a disk and a line; beyond the border the picture's edge goes on."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage, signal

from training.distortions.convert import Floats

_FINE = 15  # samples along a pixel's side that measure its share of the disk


def gaussian_filter(image: Floats, sigma: float) -> Floats:
    """Blur along the first two axes with a Gaussian that ends at ceil(2 sigma) pixels.

    Args:
        image: (H, W) or (H, W, C).
        sigma: standard deviation in pixels, above 0.

    Returns:
        The same shape.
    """
    blurred: Floats = ndimage.gaussian_filter(
        image, sigma, mode="nearest", radius=math.ceil(2 * sigma), axes=(0, 1)
    )
    return blurred


def gaussian_blur(image: Floats, sigma: float, _rng: np.random.Generator) -> Floats:
    """Blur with a Gaussian of standard deviation `sigma` pixels. (H, W, 3) in 0..1."""
    return gaussian_filter(image, sigma)


def lens_blur(image: Floats, radius: float, _rng: np.random.Generator) -> Floats:
    """Blur with a disk of `radius` pixels, as a lens out of focus does. (H, W, 3) in 0..1."""
    return _convolve(image, disk(radius))


def motion_blur(image: Floats, length: float, rng: np.random.Generator) -> Floats:
    """Blur along a line of `length` pixels at an angle drawn from 0..180 degrees.

    Args:
        image: (H, W, 3) in 0..1.
        length: of the line; 1 is a single pixel and changes nothing.
        rng: draws the angle.

    Returns:
        (H, W, 3).
    """
    return _convolve(image, line(length, rng.uniform(0, math.pi)))


def disk(radius: float) -> Floats:
    """A kernel: each pixel weighs the part of it that lies in a disk.

    Returns:
        (n, n), n odd, sum 1.
    """
    reach = math.ceil(radius - 0.5)
    side = 2 * reach + 1
    at = (np.arange(side * _FINE) + 0.5) / _FINE - side / 2
    inside = np.hypot(at[:, None], at[None, :]) <= radius
    shares = inside.reshape(side, _FINE, side, _FINE).mean((1, 3))
    return np.asarray(shares / shares.sum(), np.float32)


def line(length: float, angle: float) -> Floats:
    """A kernel: each pixel weighs 1 less its distance from a line segment, if that is positive.

    Args:
        length: pixels along the line, at least 1.
        angle: radians from the x axis.

    Returns:
        (n, n), n odd, sum 1.
    """
    half = (length - 1) / 2
    reach = math.ceil(half + 1)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = x * math.cos(angle) - y * math.sin(angle)
    across = x * math.sin(angle) + y * math.cos(angle)
    distance = np.hypot(np.maximum(np.abs(along) - half, 0), across)
    weights = np.maximum(1 - distance, 0)
    return np.asarray(weights / weights.sum(), np.float32)


def _convolve(image: Floats, kernel: Floats) -> Floats:
    """Convolve each channel. By FFT: its time hardly depends on the kernel's size."""
    reach = kernel.shape[0] // 2
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    result: Floats = signal.fftconvolve(padded, kernel[:, :, None], mode="valid", axes=(0, 1))
    return result
