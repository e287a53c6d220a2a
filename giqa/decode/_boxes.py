"""Which regions of a picture its views and tiles show."""

from __future__ import annotations

import numpy as np

from giqa.contract import Profile
from giqa.manifest import ViewProfile
from giqa.types import BoxArray

GRID_LINES = 3
"""Most grid lines an axis; MAX_VIEWS is its square."""


def view_boxes(width: int, height: int, profile: Profile, side: int) -> BoxArray:
    """Tell which regions of a picture a profile looks at.

    `precise` cuts squares of native pixels with side s = min(short side, `side`), spaced evenly
    so that the outermost touch the borders; per axis as many as cover it, at most 3.

    Args:
        width: width of the upright picture in pixels.
        height: height of the upright picture in pixels.
        profile: `fast` or `precise`.
        side: the local view's side in pixels.

    Returns:
        (V, 4) int32, rows (x0, y0, x1, y1) in pixels, end exclusive, in reading order.
    """
    if profile == "fast":
        return np.array([[0, 0, width, height]], np.int32)
    square = min(width, height, side)

    def starts(length: int) -> list[int]:
        lines = min(GRID_LINES, -(-length // square))
        return [i * (length - square) // max(lines - 1, 1) for i in range(lines)]

    return np.array(
        [[x, y, x + square, y + square] for y in starts(height) for x in starts(width)], np.int32
    )


def tile_boxes(width: int, height: int, profile: ViewProfile, side: int) -> BoxArray:
    """Tell which native pixels the local branch sees beside a picture's views.

    Tiles are squares of side s = min(short side, `side`): two an axis, which begin at one and three
    quarters of what such a square leaves free.

    Args:
        width: width of the upright picture in pixels.
        height: height of the upright picture in pixels.
        profile: the manifest's, which says from how many pixels on there are tiles.
        side: the local view's side in pixels.

    Returns:
        (T, 4) int32, rows (x0, y0, x1, y1) in pixels, end exclusive, in reading order; T is 0 for
        a picture that is not large.
    """
    if not profile.tiles or width * height < profile.tile_pixels:
        return np.empty((0, 4), np.int32)
    square = min(width, height, side)
    xs, ys = ([(n - square) // 4, 3 * (n - square) // 4] for n in (width, height))
    return np.array([[x, y, x + square, y + square] for y in ys for x in xs], np.int32)
