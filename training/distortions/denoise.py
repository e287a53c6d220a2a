"""Removal of white noise of known strength."""

from __future__ import annotations

import numpy as np
from scipy import fft

from training.distortions.convert import Floats

_BLOCK = 8
_STEP = 2
_THRESHOLD = 3.0


def denoise_dct(image: Floats, sigma: float) -> Floats:
    """Drop the small DCT coefficients of all blocks, and average the overlapping blocks.

    The method of Yu and Sapiro, "DCT Image Denoising" (Image Processing On Line, 2011): colours are
    decorrelated by a DCT of length 3, coefficients of 8 x 8 blocks below 3 sigma become 0, and each
    block's mean stays. Blocks lie every 2 pixels.

    Args:
        image: (H, W, 3) in 0..1.
        sigma: the noise's standard deviation in 0..1; at 0 nothing is dropped.

    Returns:
        (H, W, 3), maybe a little beyond 0..1.
    """
    height, width = image.shape[:2]
    # Room for a block before the picture and for the last, shifted block after it.
    sides = [-(-(side + _BLOCK) // _BLOCK) * _BLOCK for side in (height, width)]
    room = [(_BLOCK, sides[0] - _STEP - height), (_BLOCK, sides[1] - _STEP - width)]
    padded = np.pad(fft.dct(image, axis=2, norm="ortho"), [*room, (0, 0)], mode="reflect")
    total = np.zeros_like(padded)
    shifts = range(0, _BLOCK, _STEP)
    for top in shifts:
        for left in shifts:
            here = (slice(top, top + sides[0]), slice(left, left + sides[1]))
            total[here] += _threshold(padded[here], _THRESHOLD * sigma)
    inner = total[_BLOCK : _BLOCK + height, _BLOCK : _BLOCK + width] / len(shifts) ** 2
    cleaned: Floats = fft.idct(inner, axis=2, norm="ortho")
    return cleaned


def _threshold(tiled: Floats, limit: float) -> Floats:
    """Sides are multiples of the block's; each block is treated by itself."""
    height, width, channels = tiled.shape
    blocks = tiled.reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK, channels)
    # Copied so that a block's values lie side by side: the transforms are faster so.
    blocks = np.ascontiguousarray(blocks.transpose(0, 2, 4, 1, 3))
    found = fft.dctn(blocks, axes=(3, 4), norm="ortho")
    kept = np.where(np.abs(found) < limit, np.float32(0), found)
    kept[..., 0, 0] = found[..., 0, 0]
    back = fft.idctn(kept, axes=(3, 4), norm="ortho")
    result: Floats = back.transpose(0, 3, 1, 4, 2).reshape(tiled.shape)
    return result
