"""Views of training images: regions drawn at random, decoded and resized by the one pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from giqa.decode import Preprocessor, probe, tile_boxes
from giqa.errors import GiqaError
from giqa.inputs import read
from giqa.manifest import ViewProfile
from giqa.types import Item, UInt8Array

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
    made = _made(preprocess, paths, boxes, mirror, None)
    return tuple(torch.from_numpy(np.stack(v)) for v in zip(*made, strict=True))  # type: ignore[return-value]


def make_tiled_views(
    preprocess: Preprocessor,
    paths: Sequence[Path],
    boxes: Sequence[Callable[[int, int], Boxes]],
    mirror: Sequence[bool],
    tiles: ViewProfile,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """As `make_views` of one region an image, and the region's tiles.

    Returns:
        GLOBAL_VIEW and LOCAL_VIEW, (B, 1, side, side, 3) uint8; per image its tiles
        (T, side, side, 3), T being 0 or 4, in the order that they have in the mirrored region.
    """
    made = _made(preprocess, paths, boxes, mirror, tiles)
    cut = [fine[1:] for _, fine in made]
    order = [
        [1, 0, 3, 2] if flip and len(t) else slice(None)
        for t, flip in zip(cut, mirror, strict=True)
    ]
    return (
        torch.from_numpy(np.stack([coarse for coarse, _ in made])),
        torch.from_numpy(np.stack([fine[:1] for _, fine in made])),
        [torch.from_numpy(np.ascontiguousarray(t[o])) for t, o in zip(cut, order, strict=True)],
    )


def _made(
    preprocess: Preprocessor,
    paths: Sequence[Path],
    boxes: Sequence[Callable[[int, int], Boxes]],
    mirror: Sequence[bool],
    tiles: ViewProfile | None,
) -> list[tuple[UInt8Array, UInt8Array]]:
    images, regions, squares = [], [], []
    for path, choose in zip(paths, boxes, strict=True):
        data = read(Item.of(path))
        try:
            width, height = probe(data).upright_size
        except GiqaError as e:
            e.item = str(path)
            raise
        regions.append(choose(width, height))
        images.append(data)
        if tiles is not None:
            x, y, right, bottom = (int(v) for v in regions[-1][0])
            inside = tile_boxes(right - x, bottom - y, tiles, preprocess.local_side)
            squares.append(inside + np.array([x, y, x, y], np.int32))
    views = []
    results = preprocess(images, regions, squares if tiles is not None else None)
    for path, result, flip in zip(paths, results, mirror, strict=True):
        if isinstance(result, GiqaError):
            result.item = str(path)
            raise result
        pair = (result.global_view, result.local_view)
        coarse, fine = (v[:, :, ::-1] if flip else v for v in pair)
        views.append((coarse, fine))
    return views
