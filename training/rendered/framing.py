"""What a group begins with: a clean picture of some size, a part of a photograph.

Size must say nothing about quality: photographs are cut at their own scale, or made smaller, to
anything between 0.1 and 3.5 megapixels. None is made larger here; that loses, see `damage`.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from giqa import inputs
from giqa.decode import decode_picture, probe
from giqa.errors import GiqaError
from giqa.types import Item
from training.distortions.convert import Pixels
from training.rendered.sources import SMALLEST_SIDE, Photo

LARGE = 600_000
"""Photographs of more pixels are cut."""

_AREA = (400_000, 3_500_000)  # of cuts
_SMALLER_LARGE = 0.35  # share of large photographs that are made smaller before they are cut
_SMALLER_SMALL = 0.3
_MIRRORED = 0.5


def load(photo: Photo) -> Image.Image:
    """Decode a photograph: upright, sRGB, over white.

    Raises:
        NotFoundError: it has vanished.
        InputError: it cannot be read.
    """
    try:
        data = inputs.read(Item.of(photo.path))
        return decode_picture(data, probe(data))
    except GiqaError as e:
        e.item = e.item or str(photo.path)
        raise


def frame(whole: Image.Image, rng: np.random.Generator) -> Pixels:
    """Cut and scale a photograph.

    Args:
        whole: RGB, both sides at least `SMALLEST_SIDE`.
        rng: draws.

    Returns:
        (H, W, 3) uint8, both sides at least `SMALLEST_SIDE`.
    """
    width, height = whole.size
    if width * height > LARGE:
        if rng.uniform() < _SMALLER_LARGE:
            whole = _smaller(whole, rng.uniform(0.35, 0.9))
            width, height = whole.size
        area = np.exp(rng.uniform(*np.log(_AREA)))
        part = min(1.0, float(np.sqrt(area / (width * height))))
        w, h = (max(SMALLEST_SIDE, int(side * part)) for side in (width, height))
        x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        whole = whole.crop((x, y, x + w, y + h))
    elif rng.uniform() < _SMALLER_SMALL:
        whole = _smaller(whole, rng.uniform(0.5, 0.95))
    if rng.uniform() < _MIRRORED:
        whole = whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(whole)


def _smaller(whole: Image.Image, factor: float) -> Image.Image:
    factor = max(factor, SMALLEST_SIDE / min(whole.size))
    width, height = (round(side * factor) for side in whole.size)
    return whole.resize((width, height), Image.Resampling.LANCZOS)
