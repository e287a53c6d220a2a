"""Distortions of colour: diffusion, shift, few colours, saturation."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image
from scipy import ndimage

from training.distortions.blur import gaussian_filter
from training.distortions.convert import (
    Floats,
    lab_to_rgb,
    luma,
    rgb_to_lab,
    to_float,
    to_uint8,
)

_MASK_SIGMA = 4.0  # pixels; how far a shifted edge's colour fringe is blended in
_PALETTE_PIXELS = 2**15  # as many are looked at for a palette; k-means over all takes a second


def color_diffusion(image: Floats, amount: float, _rng: np.random.Generator) -> Floats:
    """Blur the colour, not the lightness: a and b of Lab, sigma 1.5 amount + 2, times amount.

    (H, W, 3) in 0..1; amount 0 leaves no colour.
    """
    lab = rgb_to_lab(image)
    lab[..., 1:] = amount * gaussian_filter(lab[..., 1:], 1.5 * amount + 2)
    return lab_to_rgb(lab)


def color_shift(image: Floats, distance: float, rng: np.random.Generator) -> Floats:
    """Move the green channel near edges.

    The moved channel is blended in by the smoothed gradient magnitude of brightness, scaled so that
    its 1st and 99th percentile are 0 and 1.

    Args:
        image: (H, W, 3) in 0..1.
        distance: pixels, rounded along each axis after the direction was drawn.
        rng: draws the direction.

    Returns:
        (H, W, 3).
    """
    angle = rng.uniform(0, 2 * math.pi)
    offset = np.rint([distance * math.sin(angle), distance * math.cos(angle)])
    moved = ndimage.shift(image[..., 1], offset, order=0, mode="nearest")
    edges = gaussian_filter(np.hypot(*np.gradient(luma(image))), _MASK_SIGMA)
    low, high = np.percentile(edges, (1, 99))
    mask = np.clip((edges - low) / max(high - low, 1e-6), 0, 1)
    shifted = image.copy()
    shifted[..., 1] += mask * (moved - image[..., 1])
    return shifted


def color_quantization(image: Floats, colors: float, _rng: np.random.Generator) -> Floats:
    """Keep `colors` colours, with Floyd-Steinberg dithering. (H, W, 3) in 0..1.

    The palette is Pillow's median cut, moved by k-means to a least squared error, for pixels on an
    even grid.
    """
    pixels = to_uint8(image)
    step = math.ceil(math.sqrt(pixels.shape[0] * pixels.shape[1] / _PALETTE_PIXELS))
    sample = Image.fromarray(np.ascontiguousarray(pixels[::step, ::step]))
    palette = sample.quantize(int(colors), Image.Quantize.MEDIANCUT, kmeans=1)
    picture = Image.fromarray(pixels)
    dithered = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    return to_float(np.asarray(dithered.convert("RGB")))


def color_saturation_hsv(image: Floats, factor: float, _rng: np.random.Generator) -> Floats:
    """Multiply S of HSV; below 0 hues turn into their complements. (H, W, 3) in 0..1.

    With H and V kept, a channel is V less a part that is proportional to S, so no angle is needed.
    """
    value = image.max(-1, keepdims=True)
    return value + np.float32(factor) * (image - value)


def color_saturation_lab(image: Floats, factor: float, _rng: np.random.Generator) -> Floats:
    """Multiply a and b of Lab. (H, W, 3) in 0..1."""
    lab = rgb_to_lab(image)
    lab[..., 1:] *= factor
    return lab_to_rgb(lab)
