"""Tiles of a frame: its pixels are cut first, and only those converted.

A fifth of a 4K frame's pixels become RGB instead of all.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from giqa.types import BoxArray

_ALIGNED = 32
"""Windows begin at multiples of it: there chroma, dither and vector instructions are in step."""
_MARGIN = 8
"""Pixels at least between a tile and its window's border, where chroma lacks its neighbours."""


def cuts_exactly(picture: Any) -> bool:
    """Whether a part of a picture gets the colours that it has in the whole.

    Where chroma ends within a pixel, swscale stretches it a little; and packed formats with less
    chroma than luma take another way that knows no exact one.

    Args:
        picture: an `av.VideoFrame`.
    """
    layout = picture.format
    step_x = _ALIGNED // (layout.chroma_width(_ALIGNED) or _ALIGNED)
    step_y = _ALIGNED // (layout.chroma_height(_ALIGNED) or _ALIGNED)
    if picture.width % step_x or picture.height % step_y:
        return False
    return bool(layout.is_planar) or step_x * step_y == 1


def windows(boxes: BoxArray, width: int, height: int) -> BoxArray:
    """Tell which parts of a picture have to be converted for its tiles.

    Args:
        boxes: (T, 4) int32, x0, y0, x1, y1 in pixels of the picture as it is stored.
        width: the picture's.
        height: the picture's.

    Returns:
        (T, 4) int32 alike, all of one size; each holds its tile.
    """
    found = boxes.copy()
    for axis, length in ((0, width), (1, height)):
        low, high = boxes[:, axis], boxes[:, axis + 2]
        size = int(high[0] - low[0]) + _ALIGNED + 2 * _MARGIN
        start = (low - _MARGIN) // _ALIGNED * _ALIGNED
        if start.min() < 0 or start.max() + size > length:
            start, size = start * 0, length
        found[:, axis], found[:, axis + 2] = start, start + size
    return found


class Cutter:
    """Cuts parts out of pictures without copying them; one caller at a time.

    What FFmpeg needs for it is kept from one picture to the next of the same layout.
    """

    def __init__(self) -> None:
        self._key: object = None
        self._source: Any = None
        self._sinks: list[Any] = []

    def __call__(self, picture: Any, boxes: BoxArray) -> list[Any]:
        """Cut.

        Args:
            picture: an `av.VideoFrame`.
            boxes: (T, 4) int32, x0, y0, x1, y1 in pixels.

        Returns:
            An `av.VideoFrame` each, with the picture's colours.

        Raises:
            av.error.FFmpegError: FFmpeg cannot cut its layout.
        """
        key = (picture.width, picture.height, picture.format.name, boxes.tobytes())
        if key != self._key:
            self._open(picture, boxes)
            self._key = key
        self._source.push(picture)
        found = []
        for sink in self._sinks:
            part = sink.pull()
            for name in ("colorspace", "color_range", "color_trc", "color_primaries"):
                setattr(part, name, getattr(picture, name))
            found.append(part)
        return found

    def _open(self, picture: Any, boxes: BoxArray) -> None:
        from av.filter import Graph

        self._key = None
        self._graph = Graph()
        self._graph.threads = 1
        self._source = self._graph.add_buffer(
            width=picture.width,
            height=picture.height,
            format=picture.format,
            time_base=picture.time_base or Fraction(1, 25),
        )
        split = self._graph.add("split", str(len(boxes)))
        self._source.link_to(split)
        self._sinks = []
        for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
            crop = self._graph.add("crop", f"{x1 - x0}:{y1 - y0}:{x0}:{y0}:exact=1")
            sink = self._graph.add("buffersink")
            split.link_to(crop, i)
            crop.link_to(sink)
            self._sinks.append(sink)
        self._graph.configure()
