"""Decoded pictures to 8-bit sRGB: matrix, range, HDR, interlacing, rotation."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from giqa.decode import is_mapped, map_to_srgb, tile_boxes
from giqa.errors import UnsupportedCodecError
from giqa.manifest import Manifest
from giqa.types import BoxArray, UInt8Array, Views
from giqa.video._info import REFUSED
from giqa.video._tiles import Cutter, cuts_exactly, windows

_TRIANGULAR = Image.Resampling.BILINEAR
_UNSPECIFIED = 2
_LIMITED, _FULL = 1, 2
_BLOCK, _LEVELS, _SHARE = 8, 2, 0.004
"""Combs are looked for in blocks of so many lines and columns, where they are so many levels deep;
so large a share of blocks makes a picture combed."""

_WHITE = 255
"""What transparency is flattened over, as in stills."""

_HD = 720
"""From so many lines on, pictures that do not say otherwise are of BT.709; BT.601 below."""


class Converter:
    """Turns decoded pictures upright, progressive and into sRGB.

    HDR and wide gamuts are mapped as in stills (`giqa.decode.map_to_srgb`): FFmpeg's own mapping
    compresses what others clip, and is wrong for chroma of full resolution. Transparency is laid
    over white. Safe to use from several threads.
    """

    def __init__(self) -> None:
        from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

        self._flags = (
            Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
        )
        self._bt709 = Colorspace.ITU709
        # Their tables belong to a size: for views, for whole pictures and for parts of them.
        self._view, self._whole, self._part = (
            tuple(VideoReformatter() for _ in range(3)) for _ in range(3)
        )
        self._cutter = Cutter()
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
        look, turned = self._look(picture), round(picture.rotation / 90)
        with _told(picture):
            picture = _ranged(_progressive(picture))
            with self._lock:
                whole = _rgb(picture, None, look, self._whole)
        return np.ascontiguousarray(np.rot90(whole, turned))

    def views(self, picture: Any, manifest: Manifest) -> Views:
        """The views of profile `fast`, as `giqa.decode` defines them.

        FFmpeg squashes with the same triangular filter as DALI, at a fraction of its cost, and
        needs no DALI where frames go to a server. The local view differs from that of `image`
        saved as PNG by at most 0.25 of 255 levels in the mean; tiles are the pixels of `image`.

        Colours and size change in one step (1.0 ms at 720p instead of 4.5), which moves scores by
        .2 points in the mean, 1.2 at most. HDR, wide primaries and frames that are enlarged take
        two: colours first, at full size.

        Args:
            picture: an `av.VideoFrame`.
            manifest: the bundle's.

        Returns:
            Views with V = 1, and tiles where the picture is large.

        Raises:
            UnsupportedCodecError: as `image`.
        """
        sizes = manifest.tensors
        side = sizes.local_side
        look, turned = self._look(picture), round(picture.rotation / 90)
        with _told(picture):
            picture = _ranged(_progressive(picture))
            boxes = _stored_boxes(picture, turned, manifest)
            with self._lock:
                squashed = _rgb(picture, (side, side), look, self._view)
                tiles = self._tiles(picture, boxes, side, look) if len(boxes) else []
        local, *rest = (np.rot90(view, turned) for view in (squashed, *tiles))
        coarse = Image.fromarray(local).reduce(side // sizes.global_side)
        return Views(np.asarray(coarse)[None], np.stack([local, *rest]))

    def _look(self, picture: Any) -> _Look:
        """How a picture's colours become sRGB; of the whole one, whose size says something."""
        transfer, primaries = int(picture.color_trc), int(picture.color_primaries)
        if transfer in REFUSED:
            raise UnsupportedCodecError(f"colour transfer {REFUSED[transfer]}")
        options: dict[str, Any] = {"interpolation": self._flags, "threads": 1}
        matrix: dict[str, Any] = {}
        if int(picture.colorspace) == _UNSPECIFIED and not picture.format.is_rgb:
            matrix["src_colorspace"] = self._bt709 if picture.height >= _HD else None
        mapped = (transfer, primaries) if is_mapped(transfer, primaries) else None
        return _Look(options | matrix, options, mapped, has_alpha(picture))

    def _tiles(self, picture: Any, boxes: BoxArray, side: int, look: _Look) -> list[UInt8Array]:
        """Native pixels of regions, enlarged to the side where these are smaller."""
        if cuts_exactly(picture):
            seen = windows(boxes, picture.width, picture.height)
            parts = [_rgb(part, None, look, self._part) for part in self._cutter(picture, seen)]
        else:
            seen = np.zeros_like(boxes)
            parts = [_rgb(picture, None, look, self._whole)] * len(boxes)
        found = []
        for part, (x0, y0, x1, y1) in zip(parts, boxes - seen[:, [0, 1, 0, 1]], strict=True):
            if x1 - x0 == side:
                found.append(part[y0:y1, x0:x1])
            else:
                box = (int(x0), int(y0), int(x1), int(y1))
                enlarged = Image.fromarray(part).resize((side, side), _TRIANGULAR, box=box)
                found.append(np.asarray(enlarged))
        return found


@dataclass(frozen=True)
class _Look:
    """How a picture's colours become sRGB.

    Attributes:
        options: FFmpeg's, for the first step, out of the picture's own colours.
        own: FFmpeg's, for every other one.
        mapped: transfer and primaries that have to be mapped.
        alpha: whether there is transparency.
    """

    options: dict[str, Any]
    own: dict[str, Any]
    mapped: tuple[int, int] | None
    alpha: bool

    @property
    def plain(self) -> bool:
        """Whether FFmpeg does all there is to do."""
        return self.mapped is None and not self.alpha

    def planes(self, picture: Any, reformatter: Any) -> Any:
        """The picture in planes of sRGB, at its own size."""
        depth = "" if self.mapped is None else "16le"
        wanted = ("gbrap" if self.alpha else "gbrp") + depth
        found = reformatter.reformat(picture, format=wanted, **self.options)
        return found if self.plain else self._flat(found, _white_code(picture))

    def _flat(self, source: Any, white: int) -> Any:
        from av import VideoFrame

        target = VideoFrame(source.width, source.height, "gbrp")
        dtype = np.uint8 if self.mapped is None else np.uint16
        green, blue, red, *rest = (_pixels(plane, dtype) for plane in source.planes)
        colours = tuple(_pixels(target.planes[i]) for i in (2, 0, 1))
        if self.mapped is None:
            for plane, values in zip(colours, (red, green, blue), strict=True):
                plane[:] = values
        else:
            map_to_srgb((red, green, blue), colours, *self.mapped, white=white)
        for alpha in rest:
            level = (alpha >> 8 if self.mapped else alpha).astype(np.uint16)
            for plane in colours:
                plane[:] = (plane * level + _WHITE * (255 - level) + 127) // 255
        return target


def _white_code(picture: Any) -> int:
    """What swscale makes of white in 16 bits: it shifts, and scales narrow range like 8 bits."""
    bits = picture.format.components[0].bits
    full = picture.format.is_rgb or picture.color_range == _FULL or "yuvj" in picture.format.name
    return ((1 << bits) - 1) << (16 - bits) if full else 255 << 8


def _pixels(plane: Any, dtype: Any = np.uint8) -> npt.NDArray[Any]:
    """A plane's pixels, (H, W), in its own memory."""
    rows = np.frombuffer(plane, dtype).reshape(plane.height, -1)
    return rows[:, : plane.width]


def _rgb(
    picture: Any, size: tuple[int, int] | None, look: _Look, steps: tuple[Any, ...]
) -> UInt8Array:
    """A picture in sRGB as it is stored; (H, W, 3) uint8, of a size or its own."""
    width, height = size or (picture.width, picture.height)
    colour, shape, pack = steps
    larger = width > picture.width or height > picture.height
    if larger or size is None or not look.plain:
        # Colours first, at full size, as for a saved picture. Planes cost half of
        # packed pixels; enlarged, they would be a level off at the edges.
        planar = look.planes(picture, colour)
        layout = "rgb24" if larger else "gbrp"
        made = shape.reformat(planar, width, height, layout, **look.own)
    else:
        # Together it costs a quarter. Chroma is then squashed from its own planes,
        # which is where the views differ from a saved picture's.
        made = colour.reformat(picture, width, height, "gbrp", **look.options)
    found: UInt8Array = pack.reformat(made, format="rgb24", **look.own).to_ndarray()
    return found


@contextmanager
def _told(picture: Any) -> Iterator[None]:
    """FFmpeg's errors as ours."""
    from av.error import FFmpegError

    try:
        yield
    except (FFmpegError, ValueError) as e:
        raise UnsupportedCodecError(
            f"{picture.format.name} of colour matrix {int(picture.colorspace)} cannot be "
            f"converted: {str(e)[:120]}"
        ) from e


def _stored_boxes(picture: Any, turned: int, manifest: Manifest) -> BoxArray:
    """`tile_boxes` of the upright picture, in pixels of the stored one."""
    width, height = picture.width, picture.height
    if turned % 2:
        width, height = height, width
    found = tile_boxes(width, height, manifest.profiles["fast"], manifest.tensors.local_side)
    for _ in range(turned % 4):  # back, a quarter of a turn each
        x0, y0, x1, y1 = found.T
        found = np.stack([height - y1, x0, height - y0, x1], 1)
        width, height = height, width
    return found


def has_alpha(picture: Any) -> bool:
    """Whether a picture's layout has transparency.

    Args:
        picture: an `av.VideoFrame`.
    """
    return any(component.is_alpha for component in picture.format.components)


def is_combed(picture: Any) -> bool:
    """Whether a picture is of two moments, one in the even and one in the odd lines.

    What is flagged as interlaced often is not, or stands still: then both fields together are the
    picture. Where something moved, neighbouring lines differ more than those of the same field.
    It is told from this picture alone: it does not depend on where reading began.

    Args:
        picture: an `av.VideoFrame`.
    """
    if not picture.interlaced_frame:
        return False
    luma = picture.reformat(format="gray", threads=1).to_ndarray()[:, ::4].astype(np.int16)
    between = np.abs(luma[1:-3] + luma[3:-1] - 2 * luma[2:-2])
    within = np.abs(luma[:-4] + luma[4:] - 2 * luma[2:-2])
    rows, columns = (n // _BLOCK * _BLOCK for n in between.shape)
    if not rows or not columns:
        return True
    sums = [
        part[:rows, :columns].reshape(rows // _BLOCK, _BLOCK, -1, _BLOCK).sum((1, 3))
        for part in (between, within)
    ]
    combed = sums[0] > 2 * sums[1] + _BLOCK**2 * _LEVELS
    return bool(combed.mean() > _SHARE)


def _progressive(picture: Any) -> Any:
    """Without fields: FFmpeg would change the size of each by itself, whatever they show."""
    if not picture.interlaced_frame:
        return picture
    combed = is_combed(picture)
    return _filtered(picture, *(("estdif", "mode=frame") if combed else ("setfield", "mode=prog")))


def _ranged(picture: Any) -> Any:
    """Grey of limited range with colourless chroma: FFmpeg takes any grey for full range."""
    name = picture.format.name
    if not name.startswith("gray") or picture.color_range != _LIMITED:
        return picture
    from av import VideoFrame

    bits = picture.format.components[0].bits
    suffix, dtype = ("", np.uint8) if bits == 8 else (f"{bits}le", np.uint16)
    if name != f"gray{suffix}":  # the other order of bytes
        picture = picture.reformat(format=f"gray{suffix}", threads=1)
    found: Any = VideoFrame(picture.width, picture.height, f"yuv420p{suffix}")
    luma, *chroma = (_pixels(plane, dtype) for plane in found.planes)
    luma[:] = _pixels(picture.planes[0], dtype)
    for plane in chroma:
        plane[:] = 1 << bits - 1
    found.color_range = _LIMITED
    return found


def _filtered(picture: Any, name: str, options: str) -> Any:
    """A picture through one filter of FFmpeg's.

    It looks at this picture alone: the result does not depend on where reading began.
    """
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(
        width=picture.width,
        height=picture.height,
        format=picture.format,
        time_base=picture.time_base or Fraction(1, 25),
    )
    filtered, sink = graph.add(name, options), graph.add("buffersink")
    source.link_to(filtered)
    filtered.link_to(sink)
    graph.configure()
    graph.push(picture)
    graph.push(None)
    result: Any = graph.pull()
    result.colorspace, result.color_range = picture.colorspace, picture.color_range
    return result
