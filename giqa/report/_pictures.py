"""Pictures inside a page: small, of bounded size, as data URIs."""

from __future__ import annotations

import base64
import io
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from giqa.report._colours import colourize
from giqa.results import ImageResult

SIDE: Final = 448
"""Longest side of a thumbnail in pixels."""
MOST_BYTES: Final = 32 * 1024
"""Largest thumbnail in bytes, before base64 makes it a third larger."""
_QUALITIES = (80, 60, 40, 20)
_LONG: Final = 112
"""Longest side of a map that is put together from several views."""
_SHORT: Final = 56
"""Least side of a map's picture; browsers enlarge it from there."""


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


def lay(result: ImageResult) -> npt.NDArray[np.float32] | None:
    """Lay the maps of an image's views over the picture.

    Args:
        result: a row; its maps, its views' regions and its size count.

    Returns:
        (rows, columns) float32: the map itself if one view saw the whole picture, else cells of
        equal size, each the mean of the views that saw its middle, NaN where none did. None if
        there is no map, or the views are so small beside the picture that nothing would be seen.
    """
    maps, boxes, width, height = result.quality_map, result.boxes, result.width, result.height
    if maps is None or boxes is None or not width or not height:
        return None
    if len(maps) == 1 and boxes[0].tolist() == [0, 0, width, height]:
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
    if not seen.any():
        return None
    unseen = np.full_like(total, np.nan)
    return np.asarray(np.divide(total, seen, out=unseen, where=seen > 0), np.float32)


def smooth(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Enlarge a map: scores are interpolated, not colours.

    Args:
        values: (rows, columns) scores; NaN where no view looked.
        size: width and height.

    Returns:
        (height, width) float32, nowhere beyond the lowest and highest of `values`.
    """

    def grow(cells: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        plane = Image.fromarray(np.asarray(cells, np.float32))
        return np.asarray(plane.resize(size, Image.Resampling.BICUBIC))

    seen = np.isfinite(values)
    total, weight = grow(np.where(seen, values, 0.0)), grow(seen)
    unseen = np.full_like(total, np.nan)
    grown = np.divide(total, weight, out=unseen, where=weight > 0.5)
    return np.asarray(np.clip(grown, np.nanmin(values), np.nanmax(values)), np.float32)


def overlay(values: npt.NDArray[np.float32]) -> bytes:
    """Colour a map.

    Args:
        values: (rows, columns) scores; NaN is transparent.

    Returns:
        A WebP, at least 56 pixels wide and high.
    """
    rows, columns = (max(length, _SHORT) for length in values.shape)
    buffer = io.BytesIO()
    coloured = Image.fromarray(colourize(smooth(values, (columns, rows))))
    coloured.save(buffer, "WEBP", quality=90, method=4)
    return buffer.getvalue()
