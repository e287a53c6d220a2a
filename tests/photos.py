"""Pictures made by code, for all tests."""

import numpy as np
import numpy.typing as npt
from PIL import Image


def photo(width: int, height: int, seed: int = 0, noise: float = 4) -> npt.NDArray[np.uint8]:
    """(height, width, 3) uint8: smooth shapes plus noise, different for every seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    noisy = smooth + rng.normal(0, noise, smooth.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)
