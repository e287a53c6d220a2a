"""From whatever holds a picture in a program to items.

Everything is taken over when it is pulled: an array that is filled again afterwards, or a file that
is closed, changes nothing. Only paths and URLs are read later, when their turn comes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from giqa.errors import (
    CorruptError,
    EmptyError,
    GiqaError,
    OutOfMemoryError,
    ShapeMismatchError,
    TooManyPixelsError,
    UnreadableError,
    UnsupportedFormatError,
)
from giqa.types import Item, Limits, Source, UInt8Array

_TAKEN = "give a path, bytes, a file, a PIL image, an array, a tensor or a URL"
_CHANNELS = (1, 3, 4)
_CHUNK = 1 << 24
_OTHER = {
    **{"La": "LA", "PA": "RGBA", "RGBa": "RGBA"},
    **dict.fromkeys(("HSV", "LAB", "RGBX", "YCbCr"), "RGB"),
}
"""What PIL modes that no file has become."""
_PIXELS = (
    "give (H, W) or (H, W, 1 | 3 | 4): uint8, uint16 (65535 is white) or floats in 0..1, RGB in "
    "this order"
)


def is_one(sources: object) -> bool:
    """Whether this is one thing to score and not an iterable of them."""
    try:
        return _is_one(sources)
    except Exception:  # an object that cannot even be asked what it is; its row says so
        return True


def _is_one(sources: object) -> bool:
    if isinstance(sources, str | os.PathLike | Item | Image.Image) or _is_buffer(sources):
        return True
    if hasattr(sources, "detach"):  # a tensor
        return True
    if _is_array(sources):  # of pixels, or a column of paths
        kind = getattr(getattr(sources, "dtype", None), "kind", None)
        return kind not in (*"OUST", None) or len(getattr(sources, "shape", ())) > 1
    return _is_file(sources) or not isinstance(sources, Iterable)


def items(sources: Source | Iterable[Source], limits: Limits) -> Iterator[Item]:
    """Turn what can be scored into items, lazily, one for each; what cannot carries its error.

    Args:
        sources: one, or many.
        limits: hold before pixels are copied, and for what is read from open files.

    Yields:
        One item a source.
    """
    for source in [sources] if is_one(sources) else sources:  # type: ignore[union-attr]
        yield to_item(source, limits)


def to_item(source: object, limits: Limits) -> Item:
    """Turn one thing into an item; see `items`."""
    name = f"<{type(source).__name__}>"
    try:
        name = _name(source)
        if isinstance(source, str | os.PathLike | bytes | Item):
            return Item.of(source)
        if isinstance(source, Image.Image):
            return Item(name, data=_picture(source, limits), pixels=True)
        if _is_array(source):
            return Item(name, data=_encode(_pixels(source, limits)), pixels=True)
        if _is_buffer(source):
            return Item(name, data=bytes(source))  # type: ignore[call-overload]
        if _is_file(source):
            return Item(name, data=_read(source, limits))
        raise UnsupportedFormatError("is nothing that can be scored", remedy=_TAKEN)
    except GiqaError as e:
        e.item = e.item or name
        return Item(name, error=e)
    except MemoryError:
        return Item(name, error=OutOfMemoryError("does not fit into memory", item=name))
    except Exception as e:  # whatever a foreign object raises when it is asked for its content
        text = f"cannot be read: {type(e).__name__}: {str(e)[:120]}"
        return Item(name, error=UnreadableError(text, item=name, remedy=_TAKEN))


def _name(source: object) -> str:
    if isinstance(source, Item):
        return source.name
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "<image>")
    if _is_array(source):
        return "<array>"
    if _is_buffer(source):
        return "<bytes>"
    if _is_file(source):
        name = getattr(source, "name", None)
        return name if isinstance(name, str) and name else "<file>"
    return f"<{type(source).__name__}>"


def _is_array(source: object) -> bool:
    """NumPy's, PyTorch's (which need not be imported for that) or another's."""
    known = hasattr(source, "__array__") or hasattr(source, "__array_interface__")
    return known and not isinstance(source, type)


def _is_buffer(source: object) -> bool:
    if isinstance(source, bytes | bytearray | memoryview):
        return True
    if _is_array(source):
        return False
    try:
        memoryview(source).release()  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def _is_file(source: object) -> bool:
    return hasattr(source, "read") and not isinstance(source, type)


def _read(file: Any, limits: Limits) -> bytes:
    parts = bytearray()
    # Raw files and pipes give what is there; a byte more than the limit shows that it is too large.
    while (left := limits.max_bytes + 1 - len(parts)) > 0:
        if not (data := file.read(min(left, _CHUNK))):
            break
        if isinstance(data, str):
            raise UnreadableError("is open as text", remedy="open it with mode 'rb'")
        if not isinstance(data, bytes | bytearray | memoryview):
            raise UnreadableError(f"its read() gives {type(data).__name__}", remedy=_TAKEN)
        parts += data
    if not parts and data is None:
        raise UnreadableError("has nothing to read yet, or is no file", remedy=_TAKEN)
    if not parts:
        raise EmptyError("no bytes from where it stands", remedy="after writing: file.seek(0)")
    return bytes(parts)


def _pixels(source: Any, limits: Limits) -> UInt8Array:
    """(H, W) or (H, W, C) uint8 of an array or tensor."""
    tensor = hasattr(source, "detach")
    if tensor:
        source = source.detach().cpu()
        if "bfloat16" in str(source.dtype):
            source = source.float()
    array = np.asarray(source)
    if tensor and array.ndim == 3 and array.shape[0] in _CHANNELS:  # PyTorch's own order
        array = array.transpose(1, 2, 0)
    said = f"{array.dtype} {array.shape}"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _CHANNELS):
        remedy = _PIXELS
        if array.ndim == 4:
            remedy = "several pictures: give them one by one, such as list(array)"
        elif array.ndim == 3 and array.shape[0] in _CHANNELS:
            remedy = "give (H, W, C), such as array.transpose(1, 2, 0)"
        raise ShapeMismatchError(f"{said} is no picture", remedy=remedy)
    if not array.size:
        raise EmptyError(f"{said} has no pixels", remedy="")
    height, width = array.shape[:2]
    check_pixels(width, height, limits)
    if array.dtype == np.uint8:
        return np.asarray(array, np.uint8)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return np.asarray((array.astype(np.uint32) * 255 + 32767) // 65535, np.uint8)
    if array.dtype.kind != "f":
        raise ShapeMismatchError(f"{said} is no picture", remedy=_PIXELS)
    levels = array * array.dtype.type(255)
    low, high = float(levels.min()), float(levels.max())
    if not -0.5 <= low <= high <= 255.5:  # NaN, too
        raise ShapeMismatchError(
            f"{said} has values from {low / 255:.4g} to {high / 255:.4g}", remedy=_PIXELS
        )
    return np.asarray(np.clip(np.rint(levels), 0, 255), np.uint8)


def check_pixels(width: int, height: int, limits: Limits) -> None:
    """Hold the limit on pixels.

    Raises:
        TooManyPixelsError: it has more.
    """
    if width * height > limits.max_pixels:
        raise TooManyPixelsError(
            f"{width}x{height} = {width * height} pixels, the limit is {limits.max_pixels}"
        )


def _encode(pixels: UInt8Array) -> bytes:
    """A file of just these pixels: PNM, or PNG where there is transparency."""
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        return _file(Image.fromarray(np.ascontiguousarray(pixels)))
    height, width = pixels.shape[:2]
    kind = 6 if pixels.ndim == 3 and pixels.shape[2] == 3 else 5
    return b"P%d %d %d 255\n" % (kind, width, height) + pixels.tobytes()


def _picture(picture: Image.Image, limits: Limits) -> bytes:
    """A file of what a PIL image shows: its frame at this moment, upright, with its profile."""
    check_pixels(*picture.size, limits)
    if not all(picture.size):
        raise EmptyError("has no pixels", remedy="")
    try:
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    except MemoryError:
        raise
    except Exception as e:  # Pillow's plugins raise whatever their codecs do
        if _was_closed(picture, e):
            text = "was closed before its pixels were read"
            raise UnreadableError(text, remedy="score it, or load() it, while it is open") from e
        raise CorruptError(f"cannot be decoded: {str(e)[:120]}") from e
    if upright.mode in ("I", "F"):  # without a type's own range: that of Pillow's conversions
        top = 65535 if upright.mode == "I" else 255
        return _encode(_pixels(np.asarray(upright, np.float64) / top, limits))
    plain = upright.mode in ("L", "RGB") and not upright.has_transparency_data
    if plain and not upright.info.get("icc_profile"):
        return _encode(np.asarray(upright))
    return _file(upright)


def _was_closed(picture: Image.Image, error: Exception) -> bool:
    """Whether Pillow fails because the image, or the file that it reads, is closed."""
    if isinstance(error, AssertionError):  # a file of its own, closed by `with`
        return getattr(picture, "fp", None) is None
    return isinstance(error, ValueError) and "closed" in str(error)


def _file(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    extra: dict[str, Any] = {}
    if profile := picture.info.get("icc_profile"):
        extra["icc_profile"] = profile
    if picture.mode in _OTHER:
        picture = picture.convert(_OTHER[picture.mode])
    if (clear := picture.info.get("transparency")) is not None:
        extra["transparency"] = clear
    if picture.mode == "CMYK":
        picture.save(buffer, "TIFF", **extra)
    else:
        picture.save(buffer, "PNG", compress_level=1, **extra)
    return buffer.getvalue()
