"""Distortions of places: jitter, moved patches, coarse pixels, few levels, coloured blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from training.distortions.convert import Floats, luma, to_uint8

_JITTER_PASSES = 5
_PATCH = 16
_PATCH_REACH = 8
_BLOCK = 32


def jitter(image: Floats, amount: float, rng: np.random.Generator) -> Floats:
    """Move every pixel by a Gaussian offset, five times over.

    Args:
        image: (H, W, 3) in 0..1.
        amount: standard deviation of an offset along each axis, in pixels.
        rng: draws the offsets, the same for all channels.

    Returns:
        (H, W, 3), maybe a little beyond 0..1: cubic splines overshoot.
    """
    height, width = image.shape[:2]
    grid = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(_JITTER_PASSES):
        places = grid + rng.standard_normal(grid.shape, np.float32) * np.float32(amount)
        image = np.stack(
            [
                ndimage.map_coordinates(image[..., c], places, order=3, mode="nearest")
                for c in range(image.shape[2])
            ],
            -1,
        )
    return image


def non_eccentricity_patch(image: Floats, patches: float, rng: np.random.Generator) -> Floats:
    """Copy squares of 16 x 16 pixels to places up to 8 pixels away, one after the other.

    (H, W, 3) in 0..1, sides at least 32; `patches` is their number, whatever the picture's size.
    """
    moved = image.copy()
    for _ in range(int(patches)):
        source = [_start(side - _PATCH, _PATCH_REACH, rng) for side in image.shape[:2]]
        offset = rng.integers(-_PATCH_REACH, _PATCH_REACH + 1, 2)
        patch = moved[_square(source, _PATCH)].copy()
        moved[_square([source[0] + offset[0], source[1] + offset[1]], _PATCH)] = patch
    return moved


def pixelate(image: Floats, strength: float, _rng: np.random.Generator) -> Floats:
    """Scale the sides by 0.95 - strength^0.6 and back, taking the nearest pixel both times.

    (H, W, 3) in 0..1. A strength of 0 still loses a twentieth of rows and columns.
    """
    scale = 0.95 - strength**0.6
    rows, columns = (_coarse(side, max(1, round(side * scale))) for side in image.shape[:2])
    return image[rows[:, None], columns[None, :]]


def quantization(image: Floats, thresholds: float, _rng: np.random.Generator) -> Floats:
    """Reduce each channel to `thresholds` + 1 evenly spaced values.

    The thresholds split the histogram of brightness with the largest variance between classes
    (N. Otsu, 1979). A picture that has no more values than that is left as it is.

    Args:
        image: (H, W, 3) in 0..1.
        thresholds: how many.

    Returns:
        (H, W, 3), values k / thresholds.
    """
    gray = to_uint8(luma(image))
    starts = multi_otsu(np.bincount(gray.ravel(), minlength=256), int(thresholds))
    if starts is None:
        return image
    classes = np.searchsorted(starts, to_uint8(image), side="right")
    return (classes / np.float32(thresholds)).astype(np.float32)


def color_block(image: Floats, blocks: float, rng: np.random.Generator) -> Floats:
    """Paint squares of 32 x 32 pixels, each in a random colour, at random places.

    (H, W, 3) in 0..1, sides at least 32; `blocks` is their number, whatever the picture's size.
    """
    painted = image.copy()
    for _ in range(int(blocks)):
        corner = [_start(side - _BLOCK, 0, rng) for side in image.shape[:2]]
        painted[_square(corner, _BLOCK)] = rng.random(3)
    return painted


def multi_otsu(histogram: npt.NDArray[np.intp], thresholds: int) -> npt.NDArray[np.intp] | None:
    """Split a histogram so that the variance between classes is the largest there is.

    Exact, by dynamic programming over the values that occur: a class from i to j adds the square of
    its sum over its count, and these add up.

    Args:
        histogram: (n,) counts.
        thresholds: at least 1.

    Returns:
        (thresholds,) the first value of each class but the lowest; None if fewer than
        `thresholds` + 1 values occur.
    """
    values = np.flatnonzero(histogram)
    if len(values) <= thresholds:
        return None
    counts = np.concatenate([[0.0], np.cumsum(histogram[values])])
    sums = np.concatenate([[0.0], np.cumsum(histogram[values] * values)])
    first, last = np.triu_indices(len(values))
    gain = np.full((len(values), len(values)), -np.inf)
    gain[first, last] = (sums[last + 1] - sums[first]) ** 2 / (counts[last + 1] - counts[first])
    best = gain[0]
    origins = []
    for _ in range(thresholds):
        tried = best[:-1, None] + gain[1:]  # [i, j]: a last class from i + 1 to j
        origins.append(tried.argmax(0) + 1)
        best = tried.max(0)
    starts = []
    end = len(values) - 1
    for origin in reversed(origins):
        starts.append(origin[end])
        end = origin[end] - 1
    return values[starts[::-1]]


def _start(room: int, margin: int, rng: np.random.Generator) -> int:
    return int(rng.integers(margin, room - margin + 1))


def _square(corner: list[int], side: int) -> tuple[slice, slice]:
    return slice(corner[0], corner[0] + side), slice(corner[1], corner[1] + side)


def _coarse(side: int, cells: int) -> npt.NDArray[np.intp]:
    """For each pixel of a side the pixel whose value it gets when `cells` are all there are."""
    kept = ((np.arange(cells) + 0.5) * side / cells).astype(np.intp)
    return kept[((np.arange(side) + 0.5) * cells / side).astype(np.intp)]
