"""Pictures that Pillow does not read, or in 8 bits only, through imagecodecs (extra `formats`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from giqa.errors import CorruptError, GiqaError, UnsupportedFormatError


def _codecs(what: str) -> Any:
    try:
        import imagecodecs
    except ImportError as e:
        raise UnsupportedFormatError(
            f"{what} needs an extra", remedy="pip install 'giqa[formats]'"
        ) from e
    return imagecodecs


def deep_jpeg(name: str) -> bool:
    """Whether a JPEG of such a name (`jpeg_process`) is read.

    Raises:
        UnsupportedFormatError: an extra is needed.
    """
    return name != "hierarchical" and bool(_codecs(f"{name} JPEG"))


def decode_deep(kind: str, raw: bytes, bits: int = 0) -> npt.NDArray[Any]:
    """Decode at full depth.

    Args:
        kind: `JPEG` (not of 8 bits), `JXL`, `AVIF`, `PNG` or `HEIF`.
        raw: the whole file.
        bits: bits of a sample, where the decoder does not tell.

    Returns:
        (H, W, C) uint8 or uint16, full range: 255 or 65535 is white.

    Raises:
        CorruptError: it cannot be decoded.
        UnsupportedFormatError: an extra is needed, or samples are of no known range.
    """
    try:
        values, top = _decoded(kind, raw, bits)
    except GiqaError:
        raise
    except Exception as e:  # each codec has its own
        raise CorruptError(f"cannot be decoded: {str(e)[:120]}") from e
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim == 4:  # an animation
        values = values[0]
    if values.dtype.kind == "f":
        values, top = np.clip(values, 0, 1) * 65535 + 0.5, 65535
    if values.dtype == np.uint8 and top == 255:
        return values
    if top not in (255, 65535):
        values = values.astype(np.uint32) * 65535 // top
    return values.astype(np.uint8 if top == 255 else np.uint16)


def _decoded(kind: str, raw: bytes, bits: int) -> tuple[npt.NDArray[Any], int]:
    if kind == "HEIF":
        import pi_heif

        picture = pi_heif.open_heif(raw, convert_hdr_to_8bit=False)
        found, deep = np.asarray(picture), picture.info["bit_depth"]
        if found.dtype == np.uint16:  # shifted to the top
            return found >> (16 - deep), (1 << deep) - 1
        return found, 255
    codecs = _codecs(kind)
    if kind == "JXL":
        found = codecs.jpegxl_decode(raw, index=0)
    elif kind == "AVIF":
        found = codecs.avif_decode(raw)
    elif kind == "PNG":
        found = codecs.png_decode(raw)
    else:
        found = codecs.jpeg8_decode(raw)
    if found.dtype == np.uint16 and bits:
        return found, (1 << bits) - 1
    return found, 65535 if found.dtype == np.uint16 else 255


def to_picture(values: npt.NDArray[Any]) -> Image.Image:
    """8 bits in Pillow's mode L, LA, RGB or RGBA, of what `decode_deep` gives.

    Args:
        values: (H, W, C) uint8 or uint16.
    """
    if values.dtype == np.uint16:
        values = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return Image.fromarray(
        np.ascontiguousarray(values[..., 0] if values.shape[-1] == 1 else values)
    )
