"""Noise: white, in colour components, impulses, multiplicative. Variances are those of 0..1."""

from __future__ import annotations

import math

import numpy as np

from training.distortions.convert import Floats
from training.distortions.denoise import denoise_dct

# ITU-R BT.601, video range: RGB to Y', Cb, Cr without their offsets, rows Y', Cb, Cr, all in 0..1.
_RGB_TO_YCBCR = np.array(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
)
_YCBCR_TO_RGB = np.linalg.inv(_RGB_TO_YCBCR / 255).astype(np.float32)


def white_noise(image: Floats, variance: float, rng: np.random.Generator) -> Floats:
    """Add Gaussian noise, independent in each channel. (H, W, 3) in 0..1."""
    return image + _gaussian(image, variance, rng)


def white_noise_ycbcr(image: Floats, variance: float, rng: np.random.Generator) -> Floats:
    """Add Gaussian noise, independent in Y', Cb and Cr of video range. (H, W, 3) in 0..1.

    The conversion is linear: the noise is converted instead of the picture.
    """
    return image + _gaussian(image, variance, rng) @ _YCBCR_TO_RGB.T


def impulse_noise(image: Floats, density: float, rng: np.random.Generator) -> Floats:
    """Set about the share `density` of all values, half of them to 0, half to 1.

    Channels are hit independently, so most hits are specks of colour. (H, W, 3) in 0..1.
    """
    draw = rng.random(image.shape, np.float32)
    salted = np.where(draw < density, np.float32(1), image)
    return np.where(draw < density / 2, np.float32(0), salted)


def multiplicative_noise(image: Floats, variance: float, rng: np.random.Generator) -> Floats:
    """Add the picture times noise that is uniform, of mean 0. (H, W, 3) in 0..1."""
    reach = math.sqrt(3 * variance)  # a uniform variable in -r..r has the variance r^2 / 3
    return image + image * rng.uniform(-reach, reach, image.shape).astype(np.float32)


def denoise(image: Floats, variance: float, rng: np.random.Generator) -> Floats:
    """Add white noise, cut to 0..1, and remove it again with what it takes along.

    (H, W, 3) in 0..1. The denoiser is told the noise's standard deviation.
    """
    noisy = np.clip(white_noise(image, variance, rng), 0, 1)
    return denoise_dct(noisy, math.sqrt(variance))


def _gaussian(image: Floats, variance: float, rng: np.random.Generator) -> Floats:
    return rng.standard_normal(image.shape, np.float32) * np.float32(math.sqrt(variance))
