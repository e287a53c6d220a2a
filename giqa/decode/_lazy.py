"""Pillow's pictures before they are decoded: opened by one plugin, their frames counted."""

from __future__ import annotations

import io
import struct

from PIL import Image, UnidentifiedImageError

from giqa.decode._ends import whole_jpeg, without_text
from giqa.errors import (
    TooManyFramesError,
    TooManyPixelsError,
    TruncatedError,
    UnsupportedFormatError,
)


def open_lazily(kind: str, raw: bytes) -> Image.Image:
    """Open with the one plugin of a format; nothing is decoded yet.

    Args:
        kind: Pillow's name of the format.
        raw: the whole file.

    Returns:
        The lazy image.

    Raises:
        UnsupportedFormatError: the format needs an extra that is not installed.
    """
    if kind == "HEIF":
        try:
            from pi_heif import HeifImagePlugin  # noqa: F401  (registers with Pillow)
        except ImportError as e:
            raise UnsupportedFormatError(
                "HEIC needs an extra", remedy="pip install 'giqa[heif]'"
            ) from e
    if kind == "PNG":
        raw = without_text(raw)
    elif kind == "JPEG":
        raw = whole_jpeg(raw)
    if kind not in Image.OPEN:
        Image.init()
    plugin, accepts = Image.OPEN[kind]
    if accepts is not None and accepts(raw[:16]) is not True:
        raise UnidentifiedImageError(f"not {kind}")
    try:
        # Not by Image.open, whose limit on pixels is one of the process: ours was given.
        return plugin(io.BytesIO(raw), "")
    except Image.DecompressionBombError as e:  # some plugins ask for it themselves
        raise TooManyPixelsError(str(e), remedy="raise PIL.Image.MAX_IMAGE_PIXELS, too") from e
    except (SyntaxError, IndexError, TypeError, struct.error) as e:
        raise UnidentifiedImageError(f"not {kind}") from e


def count_frames(kind: str, raw: bytes, picture: Image.Image, most: int) -> int:
    """Count frames, but not further than is needed to refuse."""
    gif = kind == "GIF"
    count = _gif_frames(raw, most) if gif else int(getattr(picture, "n_frames", 1))
    if count > most:
        raise TooManyFramesError(f"more than {most} frames")
    return max(count, 1)


def _gif_frames(raw: bytes, most: int) -> int:
    """Image descriptors of a GIF; Pillow decodes every frame to count them."""

    def skip_blocks(at: int) -> int:
        while at < len(raw) and raw[at]:
            at += raw[at] + 1
        return at + 1

    at = 13 + (3 << (raw[10] & 7) + 1 if raw[10] & 0x80 else 0)
    count = 0
    while at < len(raw) and count <= most:
        if raw[at] == 0x3B:
            return count
        if raw[at] == 0x21:
            at = skip_blocks(at + 2)
        elif raw[at] == 0x2C and at + 10 <= len(raw):
            count += 1
            packed = raw[at + 9]
            table = 3 << (packed & 7) + 1 if packed & 0x80 else 0
            at = skip_blocks(at + 11 + table)
        else:
            break
    if count <= most:
        raise TruncatedError("GIF ends within a frame")
    return count
