"""JPEG and JPEG 2000, encoded and decoded by Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from training.distortions.convert import Floats, to_float, to_uint8


def jpeg2000(image: Floats, ratio: float, _rng: np.random.Generator) -> Floats:
    """Compress to 1 / `ratio` of 24 bits a pixel, irreversible wavelet. (H, W, 3) in 0..1.

    A file has about 200 bytes that do not shrink, so small pictures miss a high ratio.
    """
    return _recode(
        image, "JPEG2000", quality_mode="rates", quality_layers=[ratio], irreversible=True
    )


def jpeg(image: Floats, quality: float, _rng: np.random.Generator) -> Floats:
    """Compress with libjpeg's `quality` (1..100), colours at half resolution. (H, W, 3) in 0..1."""
    return _recode(image, "JPEG", quality=int(quality), subsampling="4:2:0")


def _recode(image: Floats, codec: str, **options: object) -> Floats:
    file = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(file, codec, **options)
    with Image.open(file) as decoded:
        return to_float(np.asarray(decoded.convert("RGB")))
