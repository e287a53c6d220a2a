"""The 25 types of distortion of KADID-10k, five levels each, and any value between.

Example:
    >>> import numpy as np
    >>> from training.distortions import TYPES, apply, distort
    >>> photo = np.full((64, 48, 3), 128, np.uint8)
    >>> distort(photo, "white_noise", level=3, seed=0).shape
    (64, 48, 3)
    >>> apply(photo, TYPES[0], 1.7, seed=0).dtype
    dtype('uint8')

Pictures are (H, W, 3) uint8 arrays, sRGB. The same arguments give the same bytes, as long as the
libraries are the same.
"""

from training.distortions.types import TYPES, Distortion, apply, by_name, distort

__all__ = ["TYPES", "Distortion", "apply", "by_name", "distort"]
