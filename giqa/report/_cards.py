"""Cards: a picture with its score and, at a click, its quality map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from giqa import inputs
from giqa.decode import decode_picture, probe
from giqa.errors import GiqaError
from giqa.report._pictures import SIDE, data_uri, encode, overlay, shrink
from giqa.types import Item, Limits


@dataclass(frozen=True)
class Shot:
    """A picture as a page holds it.

    Attributes:
        picture: data URI; empty if there is none to show.
        width: width of the upright picture in pixels.
        height: height of the upright picture in pixels.
        map: data URI of the coloured quality map; empty if there is none.
        lowest: lowest score of the map.
        highest: highest score of the map.
    """

    picture: str
    width: int
    height: int
    map: str = ""
    lowest: float | None = None
    highest: float | None = None


def shot(
    thumbnail: Image.Image | None,
    size: tuple[int, int],
    values: npt.NDArray[np.float32] | None,
) -> Shot:
    """Put a picture and its map into a page.

    Args:
        thumbnail: from `shrink`; None if there is no picture.
        size: width and height of the upright picture in pixels.
        values: (rows, columns) its map, see `lay`; None if there is none.

    Returns:
        Both as data URIs.
    """
    picture = "" if thumbnail is None else data_uri(encode(thumbnail), "webp")
    if values is None or not picture:
        return Shot(picture, *size)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return Shot(picture, *size, data_uri(overlay(values), "webp"), low, high)


def read_picture(path: Path, limits: Limits, side: int = SIDE) -> Image.Image | None:
    """Read a picture again for its thumbnail.

    Args:
        path: a file that was scored.
        limits: those it was scored with.
        side: longest side in pixels.

    Returns:
        8-bit sRGB, upright; None if it cannot be read any more.
    """
    try:
        data = inputs.read(Item(str(path), path), limits)
        return shrink(decode_picture(data, probe(data, limits), side=2 * side), side)
    except GiqaError:
        return None
