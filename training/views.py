"""Views of training images: regions drawn at random, decoded and resized by the one pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from giqa.decode import Preprocessor, probe
from giqa.errors import GiqaError
from giqa.inputs import read
from giqa.types import Item

Boxes = npt.NDArray[np.float32]


def jitter_box(
    width: int, height: int, rng: np.random.Generator, area: float = 0.6, ratio: float = 16 / 9
) -> Boxes:
    """Draw a region whose aspect ratio is off by up to `ratio` and that keeps about `area` of it.

    A side that would leave the picture is cut, so a little less than `area` may remain.

    Args:
        width: picture width in pixels.
        height: picture height in pixels.
        rng: source of randomness.
        area: smallest share of the picture, before a side is cut.
        ratio: largest change of the aspect ratio, either way.

    Returns:
        (1, 4) float32: x0, y0, x1, y1 in pixels.
    """
    share = rng.uniform(area, 1.0)
    shape = math.exp(rng.uniform(-math.log(ratio), math.log(ratio)) / 2)
    w, h = min(1.0, math.sqrt(share) * shape), min(1.0, math.sqrt(share) / shape)
    x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
    box = np.array([[x * width, y * height, (x + w) * width, (y + h) * height]], np.float32)
    return np.rint(box)


def crop_box(width: int, height: int, rng: np.random.Generator, side: int) -> Boxes:
    """Draw a square of native pixels, side min(width, height, `side`), at a random place.

    Returns:
        (1, 4) float32: x0, y0, x1, y1 in pixels.
    """
    square = min(width, height, side)
    x, y = rng.integers(width - square + 1), rng.integers(height - square + 1)
    return np.array([[x, y, x + square, y + square]], np.float32)


def make_views(
    preprocess: Preprocessor,
    paths: Sequence[Path],
    boxes: Sequence[Callable[[int, int], Boxes]],
    mirror: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    """Read, decode and resize images.

    Args:
        preprocess: the pipeline.
        paths: B image files.
        boxes: per image, upright width and height in pixels to its regions (V, 4), the same V.
        mirror: per image, whether its views are mirrored.

    Returns:
        GLOBAL_VIEW and LOCAL_VIEW, (B, V, side, side, 3) uint8.

    Raises:
        GiqaError: an image cannot be read or decoded; it is named.
    """
    images, regions = [], []
    for path, choose in zip(paths, boxes, strict=True):
        data = read(Item.of(path))
        try:
            width, height = probe(data).upright_size
        except GiqaError as e:
            e.item = str(path)
            raise
        regions.append(choose(width, height))
        images.append(data)
    views = []
    for path, result, flip in zip(paths, preprocess(images, regions), mirror, strict=True):
        if isinstance(result, GiqaError):
            result.item = str(path)
            raise result
        pair = (result.global_view, result.local_view)
        views.append([v[:, :, ::-1] if flip else v for v in pair])
    coarse, fine = zip(*views, strict=True)
    return torch.from_numpy(np.stack(coarse)), torch.from_numpy(np.stack(fine))
