"""The probe itself: Pillow's lazy headers, bounded and translated into our codes."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from giqa.decode._ends import check_end, check_extent, without_text
from giqa.decode._icc import Icc, icc_kind
from giqa.decode._quiet import unheard
from giqa.decode._route import dali_decodes
from giqa.errors import (
    CorruptError,
    EmptyError,
    GiqaError,
    TooManyBytesError,
    TooManyFramesError,
    TooManyPixelsError,
    TruncatedError,
    UnsupportedFormatError,
)
from giqa.types import Limits

_EXTREME = 8
_PACKET = 188
"""Bytes of a packet in an MPEG transport stream."""
_ORIENTATION = 0x0112
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


@dataclass(frozen=True)
class Probe:
    """What a header says.

    Attributes:
        format: `JPEG`, `PNG`, `WEBP`, `BMP`, `TIFF`, `JPEG2000`, `PPM`, `GIF`, `AVIF`, `HEIF`.
        width: stored width in pixels.
        height: stored height in pixels.
        frames: frames or pages; the first is scored.
        orientation: EXIF orientation, 1..8; 1 if there is none or it makes no sense.
        mode: Pillow's mode of the stored pixels.
        has_alpha: transparency, a palette's included.
        icc: whether an embedded profile changes colours.
        route: `dali`, or `pillow` for what DALI's decoder does not do right.
        notes: remarks for the row.
    """

    format: str
    width: int
    height: int
    frames: int
    orientation: int
    mode: str
    has_alpha: bool
    icc: Icc
    route: Literal["dali", "pillow"]
    notes: tuple[str, ...]

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height after the EXIF orientation."""
        turned = self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)


def _sniff(head: bytes) -> str:
    """Pillow's name of the format, by magic bytes."""
    for magic, kind in (
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF87a", "GIF"),
        (b"GIF89a", "GIF"),
        (b"BM", "BMP"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
        (b"\xff\x4f\xff\x51", "JPEG2000"),
    ):
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PPM"
    if head[4:8] == b"ftyp":
        brands = [head[i : i + 4] for i in (8, *range(16, 48, 4))]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if any(b in _HEIF_BRANDS for b in brands):
            return "HEIF"
    if _is_video(head):
        raise UnsupportedFormatError("is a video", remedy="score it with `giqa video`")
    raise UnsupportedFormatError("not an image of a known format")


def _is_video(head: bytes) -> bool:
    """A container of moving pictures: MP4 and its kin, Matroska, AVI, MPEG."""
    return (
        head[4:8] == b"ftyp"
        or head.startswith((b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"FLV\x01"))
        or (head[:4] == b"RIFF" and head[8:11] == b"AVI")
        or (len(head) > _PACKET and head[0] == head[_PACKET] == ord("G"))
    )


def probe(data: bytes | memoryview | npt.NDArray[np.uint8], limits: Limits | None = None) -> Probe:
    """Read an encoded image's header.

    Args:
        data: the whole file.
        limits: what is refused.

    Returns:
        The header's facts.

    Raises:
        EmptyError: no bytes.
        UnsupportedFormatError: not an image of a known format.
        TruncatedError: the file ends before its image does.
        CorruptError: the header makes no sense.
        TooManyBytesError: over `limits.max_bytes`.
        TooManyPixelsError: over `limits.max_pixels`.
        TooManyFramesError: over `limits.max_frames`.
    """
    limits = limits or Limits()
    raw = data if isinstance(data, bytes) else bytes(data)
    if not raw:
        raise EmptyError("no bytes")
    if len(raw) > limits.max_bytes:
        raise TooManyBytesError(f"{len(raw)} bytes, the limit is {limits.max_bytes}")
    kind = _sniff(raw[: _PACKET + 1])
    try:
        return unheard(partial(_read, kind, raw, limits))
    except (GiqaError, MemoryError):
        raise
    except UnidentifiedImageError as e:
        check_end(kind, raw)
        raise CorruptError(f"{kind} header cannot be read") from e
    except Exception as e:  # Pillow's plugins raise whatever struct, zlib or their own code does
        check_end(kind, raw)
        raise CorruptError(f"{kind} header cannot be read: {str(e)[:120]}") from e


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


def _read(kind: str, raw: bytes, limits: Limits) -> Probe:
    if kind == "JPEG":
        check_end(kind, raw)  # Pillow reads a JPEG without frame header as 0x0
    picture = open_lazily(kind, raw)
    width, height = picture.size
    if width < 1 or height < 1:
        raise CorruptError(f"{kind} announces {width}x{height} pixels")
    if width * height > limits.max_pixels:
        raise TooManyPixelsError(
            f"{width}x{height} = {width * height} pixels, the limit is {limits.max_pixels}"
        )
    check_end(kind, raw)
    check_extent(kind, raw, picture)
    frames = _frames(kind, raw, picture, limits.max_frames)
    orientation = _orientation(picture)
    if kind == "TIFF" and orientation >= 5:
        width, height = height, width  # Pillow gives the upright size for this format alone
    icc = icc_kind(picture.info.get("icc_profile"), picture.mode)
    has_alpha = picture.has_transparency_data
    notes = []
    if frames > 1:
        notes.append("first_frame")
    if icc == "other":
        notes.append("icc_converted")
    elif icc == "broken":
        notes.append("icc_ignored")
    if has_alpha:
        notes.append("alpha_flattened")
    if max(width, height) > _EXTREME * min(width, height):
        notes.append("extreme_aspect")
    simple = icc != "other" and not has_alpha and dali_decodes(kind, raw, picture, frames)
    if not simple:
        notes.append("pillow_decoded")
    return Probe(
        format=kind,
        width=width,
        height=height,
        frames=frames,
        orientation=orientation,
        mode=picture.mode,
        has_alpha=has_alpha,
        icc=icc,
        route="dali" if simple else "pillow",
        notes=tuple(notes),
    )


def _orientation(picture: Image.Image) -> int:
    try:
        found: Any = picture.getexif().get(_ORIENTATION, 1)
    except Warning:
        raise
    except Exception:  # EXIF is decoration: broken, it counts as absent
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _frames(kind: str, raw: bytes, picture: Image.Image, most: int) -> int:
    """Count frames, but not further than is needed to refuse."""
    if kind == "GIF":
        count = _gif_frames(raw, most)
    elif kind == "TIFF":
        count = 1
        try:
            while count <= most:
                picture.seek(count)
                count += 1
        except EOFError:
            pass
        picture.seek(0)
    else:
        count = int(getattr(picture, "n_frames", 1))
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
