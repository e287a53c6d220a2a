"""Encoded images to views through Pillow: for what DALI's decoder does not do right.

The same views as `_dali` (upright, sRGB, antialiased squash, global view = mean of 2x2
local pixels): colour-managed where a profile asks for it, transparency flattened over white,
first frame of several.
"""

from __future__ import annotations

import io
import sys
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from giqa.decode._deep import decode_deep, to_picture
from giqa.decode._ends import jpeg_process
from giqa.decode._icc import srgb
from giqa.decode._lazy import open_lazily
from giqa.decode._light import map_to_srgb
from giqa.decode._probe import Probe
from giqa.decode._quiet import unheard
from giqa.decode._signal import Signal, depth
from giqa.decode._tiff import Tiff
from giqa.errors import CorruptError, GiqaError
from giqa.types import BoxArray, Views

BACKGROUND = (255, 255, 255)
"""What transparency is flattened over: white, as browsers and viewers do."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each EXIF orientation upright."""


def views_by_pillow(
    data: bytes | npt.NDArray[np.uint8],
    found: Probe,
    boxes: npt.NDArray[Any] | None,
    tiles: BoxArray | None = None,
    *,
    global_side: int,
    local_side: int,
) -> Views:
    """Decode and resize one image.

    Args:
        data: the encoded file.
        found: what the probe said of it.
        boxes: (V, 4) regions x0, y0, x1, y1 in pixels of the upright picture; None: the frame.
        tiles: (T, 4) regions that follow them in the local view; None: none.
        global_side: side of the global view in pixels.
        local_side: side of the local view in pixels; equal to or twice `global_side`.

    Returns:
        The views.

    Raises:
        CorruptError: it cannot be decoded.
    """
    whole = decode_picture(data, found)
    frame = [[0, 0, *whole.size]]
    local = [
        whole.resize((local_side, local_side), Image.Resampling.BILINEAR, box=tuple(box))
        for box in (frame if boxes is None else boxes.tolist())
    ]
    coarse = [view.reduce(local_side // global_side) for view in local]
    for x0, y0, x1, y1 in [] if tiles is None else tiles.tolist():
        tile = (
            whole.crop((x0, y0, x1, y1))
            if x1 - x0 == local_side
            else whole.resize(
                (local_side, local_side), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1)
            )
        )
        local.append(tile)
    return Views(*(np.stack([np.asarray(v) for v in part]) for part in (coarse, local)))


def decode_picture(
    data: bytes | npt.NDArray[np.uint8], found: Probe, *, side: int | None = None
) -> Image.Image:
    """Decode one image.

    Args:
        data: the encoded file.
        found: what the probe said of it.
        side: a short side that is enough, in pixels: JPEG is decoded at 1/2, 1/4 or 1/8 of its
            size where that leaves it. None: at its own size, always.

    Returns:
        8-bit sRGB without transparency, upright.

    Raises:
        CorruptError: it cannot be decoded.
    """
    raw = data if isinstance(data, bytes) else data.tobytes()
    try:
        whole = unheard(partial(_decode, raw, found, side))
        if found.orientation in _UPRIGHT:
            whole = whole.transpose(_UPRIGHT[found.orientation])
    except (GiqaError, MemoryError):
        raise
    except Exception as e:  # Pillow's plugins raise whatever their codecs do
        raise CorruptError(f"cannot be decoded: {str(e)[:120]}") from e
    return whole


def _decode(raw: bytes, found: Probe, side: int | None) -> Image.Image:
    picture, profile = _opened(raw, found, side)
    return _rgb(picture.crop(found.crop) if found.crop else picture, profile, found)


def _opened(raw: bytes, found: Probe, side: int | None) -> tuple[Image.Image, bytes]:
    """The picture as it is stored, and its profile."""
    if found.format == "TIFF":
        tiff = Tiff(raw, sys.maxsize)  # the probe has counted
        return tiff.picture(), tiff.icc or b""
    if found.signal is not None:
        picture = _mapped(raw, found, found.signal)
    elif found.format == "JXL":
        picture = to_picture(decode_deep("JXL", raw))
    else:
        return _by_plugin(raw, found, side)
    if found.format == "JXL":
        picture = _turned_back(picture, found.orientation)
    return picture, b""


def _by_plugin(raw: bytes, found: Probe, side: int | None) -> tuple[Image.Image, bytes]:
    if found.format == "JPEG" and (odd := jpeg_process(raw)):
        bits = int("".join(c for c in odd[0] if c.isdigit()))
        return to_picture(decode_deep("JPEG", raw, 0 if bits == 8 else bits)), b""
    lazy = open_lazily(found.format, raw)
    if side is not None:
        lazy.draft(None, (side, side))
    lazy.load()
    return lazy, lazy.info.get("icc_profile") or b""


def _turned_back(picture: Image.Image, orientation: int) -> Image.Image:
    """As it was stored: libjxl has made it upright, and `decode_picture` does so for all."""
    back = {6: 8, 8: 6}.get(orientation, orientation)
    return picture.transpose(_UPRIGHT[back]) if back in _UPRIGHT else picture


def _mapped(raw: bytes, found: Probe, signal: Signal) -> Image.Image:
    """A picture of HDR or a wide gamut in sRGB."""
    bits = depth(raw) if found.format == "AVIF" else 0
    values = decode_deep(found.format, raw, bits)
    if values.dtype == np.uint8:
        values = values.astype(np.uint16) * 257
    height, width, channels = values.shape
    coloured = channels - (1 if channels in (2, 4) else 0)
    made = np.empty((height, width, 3 + channels - coloured), np.uint8)
    source = tuple(values[..., i if coloured == 3 else 0] for i in range(3))
    map_to_srgb(source, tuple(made[..., i] for i in range(3)), signal.transfer, signal.primaries)
    if channels != coloured:
        made[..., 3] = values[..., -1] >> 8
    return Image.fromarray(made)


def _rgb(picture: Image.Image, profile: bytes, found: Probe) -> Image.Image:
    """8-bit sRGB without transparency."""
    has_alpha = picture.has_transparency_data
    alpha = picture.convert("RGBA").getchannel("A") if has_alpha else None
    if picture.mode.startswith("I"):  # 16 bits
        values = np.asarray(picture, np.float32)
        picture = Image.fromarray(np.clip(values * 255 / 65535 + 0.5, 0, 255).astype(np.uint8))
    if found.icc == "other":
        base = "L" if picture.mode in ("1", "L", "LA") else picture.mode
        base = base if base in ("L", "CMYK") else "RGB"
        converted = ImageCms.profileToProfile(
            picture.convert(base),
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            srgb(),
            outputMode="RGB",
        )
        assert converted is not None
        picture = converted
    elif picture.mode == "LAB":
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        converted = ImageCms.profileToProfile(picture, lab, srgb(), outputMode="RGB")
        assert converted is not None
        picture = converted
    picture = picture.convert("RGB")
    if alpha is not None:
        flat = Image.new("RGB", picture.size, BACKGROUND)
        flat.paste(picture, mask=alpha)
        picture = flat
    return picture
