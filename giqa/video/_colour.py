"""Decoded pictures to 8-bit sRGB: matrix, range, HDR, interlacing, rotation."""

from __future__ import annotations

import threading
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image

from giqa.errors import UnsupportedCodecError
from giqa.manifest import Tensors
from giqa.types import UInt8Array, Views
from giqa.video._stream import HDR, REFUSED

_UNSPECIFIED = 2
_WIDE = (9, 11, 12)
"""Primaries far from sRGB's (H.273): BT.2020, DCI-P3, Display P3. Those of SD are near enough."""

_HD = 720
"""From so many lines on, pictures that do not say otherwise are of BT.709; BT.601 below."""


class Converter:
    """Turns decoded pictures upright, progressive and into sRGB.

    HDR is mapped with 203 cd/m2 as white (ITU-R BT.2408) and clipped above. The tables for that
    take seconds to make, once for a size; so keep a converter. Safe to use from several threads.
    """

    def __init__(self) -> None:
        from av.video.reformatter import (
            ColorPrimaries,
            Colorspace,
            ColorTrc,
            Interpolation,
            VideoReformatter,
        )

        self._flags = (
            Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
        )
        self._bt709 = Colorspace.ITU709
        self._targets = {"dst_color_primaries": ColorPrimaries.BT709}
        self._sdr, self._hdr = ColorTrc.BT709, ColorTrc.IEC61966_2_1
        # Their tables belong to a size: three for views, three for whole pictures.
        self._steps = [tuple(VideoReformatter() for _ in range(3)) for _ in range(2)]
        self._lock = threading.Lock()

    def image(self, picture: Any) -> UInt8Array:
        """The whole picture.

        Args:
            picture: an `av.VideoFrame`.

        Returns:
            (H, W, 3) uint8, sRGB, upright.

        Raises:
            UnsupportedCodecError: its layout of pixels or colour transfer cannot be converted.
        """
        return self._rgb(picture, None)

    def views(self, picture: Any, sizes: Tensors) -> Views:
        """The views of profile `fast`, as `giqa.decode` defines them.

        FFmpeg squashes with the same filter as DALI, at a fraction of its cost. The local view
        differs from that of `image` saved as PNG by at most 0.25 of 255 levels in the mean.

        Args:
            picture: an `av.VideoFrame`.
            sizes: the bundle's tensor sizes.

        Returns:
            Views with V = 1.

        Raises:
            UnsupportedCodecError: as `image`.
        """
        side = sizes.local_side
        local = self._rgb(picture, (side, side))
        coarse = Image.fromarray(local).reduce(side // sizes.global_side)
        return Views(np.asarray(coarse)[None], local[None])

    def _rgb(self, picture: Any, size: tuple[int, int] | None) -> UInt8Array:
        from av.error import FFmpegError

        transfer, primaries = int(picture.color_trc), int(picture.color_primaries)
        if transfer in REFUSED:
            raise UnsupportedCodecError(f"colour transfer {REFUSED[transfer]}")
        options: dict[str, Any] = {}
        if int(picture.colorspace) == _UNSPECIFIED and not picture.format.is_rgb:
            options["src_colorspace"] = self._bt709 if picture.height >= _HD else None
        if transfer in HDR:
            options |= {"dst_color_trc": self._hdr, **self._targets}
        elif primaries in _WIDE:
            options |= {"dst_color_trc": self._sdr, **self._targets}
        width, height = size or (picture.width, picture.height)
        options |= {"interpolation": self._flags, "threads": 1}
        try:
            turned = round(picture.rotation / 90)
            if picture.interlaced_frame:
                picture = _deinterlaced(picture)
            with self._lock:
                own = {"interpolation": self._flags, "threads": 1}
                colour, shape, pack = self._steps[size is None]
                larger = width > picture.width or height > picture.height
                if larger or size is None or "dst_color_trc" in options:
                    # Colours first, at full size, as for a saved picture. Planes cost half of
                    # packed pixels; enlarged, they would be a level off at the edges.
                    planar = colour.reformat(picture, format="gbrp", **options)
                    squashed = shape.reformat(
                        planar, width, height, "rgb24" if larger else "gbrp", **own
                    )
                else:
                    # Together it costs a quarter. Chroma is then squashed from its own planes,
                    # which is where the views differ from a saved picture's.
                    squashed = colour.reformat(picture, width, height, "gbrp", **options)
                converted = pack.reformat(squashed, format="rgb24", **own)
        except (FFmpegError, ValueError) as e:
            raise UnsupportedCodecError(
                f"{picture.format.name} cannot be converted: {str(e)[:120]}"
            ) from e
        return np.ascontiguousarray(np.rot90(converted.to_ndarray(), turned))


def _deinterlaced(picture: Any) -> Any:
    """One whole picture of an interlaced one's first field.

    The filter looks at this picture alone: the result does not depend on where reading began.
    """
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(
        width=picture.width,
        height=picture.height,
        format=picture.format,
        time_base=picture.time_base or Fraction(1, 25),
    )
    filtered, sink = graph.add("estdif", "mode=frame"), graph.add("buffersink")
    source.link_to(filtered)
    filtered.link_to(sink)
    graph.configure()
    graph.push(picture)
    graph.push(None)
    result: Any = graph.pull()
    result.colorspace, result.color_range = picture.colorspace, picture.color_range
    return result
