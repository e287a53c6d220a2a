"""Which regions of a picture its views show."""

from __future__ import annotations

import numpy as np

from giqa.contract import Profile
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
