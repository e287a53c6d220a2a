"""Pictures inside a page: small, of bounded size, as data URIs."""

from __future__ import annotations

import base64
import io
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from giqa.report._colours import colourize

SIDE: Final = 448
"""Longest side of a thumbnail in pixels."""
MOST_BYTES: Final = 32 * 1024
"""Largest thumbnail in bytes, before base64 makes it a third larger."""
_QUALITIES = (80, 60, 40, 20)
_LONG: Final = 112
"""Longest side of a map that is put together from several views."""


def shrink(picture: Image.Image, side: int = SIDE) -> Image.Image:
    """A copy whose longer side is at most `side` pixels, antialiased."""
    small = picture.convert("RGB") if picture.mode != "RGB" else picture.copy()
    small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return small


def encode(thumbnail: Image.Image) -> bytes:
    """Encode as WebP of at most `MOST_BYTES`: less quality, then fewer pixels until it fits."""
    while True:
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            thumbnail.save(buffer, "WEBP", quality=quality, method=4)
            if buffer.tell() <= MOST_BYTES:
                return buffer.getvalue()
        thumbnail = thumbnail.reduce(2)


def data_uri(data: bytes, kind: str) -> str:
    """Put bytes into an address.

    Args:
        data: an encoded picture.
        kind: its subtype, such as `webp`.
    """
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def lay(
    maps: npt.NDArray[np.float32], boxes: npt.NDArray[np.int32] | None, width: int, height: int
) -> npt.NDArray[np.float32]:
    """Lay the maps of an image's views over the picture.

    Args:
        maps: (V, grid, grid) scores.
        boxes: (V, 4) the views' regions x0, y0, x1, y1 in pixels; None: one view of the whole.
        width: width of the upright picture in pixels.
        height: height of the upright picture in pixels.

    Returns:
        (rows, columns) float32: the map itself if one view saw the whole picture, else cells of
        equal size, each the mean of the views that saw its middle, NaN where none did.
    """
    if boxes is None or (len(maps) == 1 and boxes[0].tolist() == [0, 0, width, height]):
        return np.asarray(maps[0])
    scale = min(1.0, _LONG / max(width, height))
    columns, rows = (max(1, round(length * scale)) for length in (width, height))
    x = (np.arange(columns) + 0.5) * width / columns
    y = (np.arange(rows) + 0.5) * height / rows
    total, seen = np.zeros((2, rows, columns))
    for cells, (x0, y0, x1, y1) in zip(maps, boxes.tolist(), strict=True):
        inside_x, inside_y = (x >= x0) & (x < x1), (y >= y0) & (y < y1)
        at_x = ((x[inside_x] - x0) * cells.shape[1] / (x1 - x0)).astype(int)
        at_y = ((y[inside_y] - y0) * cells.shape[0] / (y1 - y0)).astype(int)
        where = np.ix_(inside_y, inside_x)
        total[where] += cells[np.ix_(at_y, at_x)]
        seen[where] += 1
    unseen = np.full_like(total, np.nan)
    return np.asarray(np.divide(total, seen, out=unseen, where=seen > 0), np.float32)


def overlay(values: npt.NDArray[np.float32]) -> bytes:
    """Colour a map.

    Args:
        values: (rows, columns) scores; NaN is transparent.

    Returns:
        A PNG of as many pixels as there are cells.
    """
    buffer = io.BytesIO()
    Image.fromarray(colourize(values)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
