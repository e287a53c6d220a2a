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


def scene(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """(height, width, 3) uint8: discs with edges; of a middling score, which small faults move."""
    rng = np.random.default_rng(seed)
    picture = photo(width, height, seed, 0).astype(np.float64)
    y, x = np.mgrid[:height, :width]
    for _ in range(width * height // 1500):
        middle, radius = rng.uniform((0, 0), (width, height)), rng.uniform(5, 40)
        inside = (x - middle[0]) ** 2 + (y - middle[1]) ** 2 < radius**2
        noise = rng.normal(0, 6, (int(inside.sum()), 1))
        picture[inside] = picture[inside] / 2 + rng.uniform(0, 128, 3) + noise
    grey = picture.mean(2, keepdims=True)  # little colour: codecs keep half of it
    return np.clip(grey + (picture - grey) / 3, 0, 255).astype(np.uint8)
