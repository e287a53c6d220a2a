"""The probe itself: Pillow's lazy headers, bounded and translated into our codes."""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from giqa.decode._deep import deep_jpeg
from giqa.decode._ends import DAMAGE, check_end, check_extent, heard, jpeg_process, whole_jpeg
from giqa.decode._formats import format_of
from giqa.decode._icc import Icc, icc_kind
from giqa.decode._jxl import jxl_header
from giqa.decode._lazy import count_frames, open_lazily
from giqa.decode._light import HDR, is_mapped
from giqa.decode._quiet import unheard
from giqa.decode._route import dali_decodes
from giqa.decode._signal import Signal, exif_orientation, jpeg_orientation, png_signal, still
from giqa.decode._tiff import Tiff
from giqa.errors import (
    CorruptError,
    EmptyError,
    GiqaError,
    TooManyBytesError,
    TooManyPixelsError,
    TruncatedError,
    UnsupportedFormatError,
)
from giqa.types import Limits

_EXTREME = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probe:
    """What a header says.

    Attributes:
        format: `JPEG`, `PNG`, `WEBP`, `BMP`, `TIFF`, `JPEG2000`, `PPM`, `GIF`, `AVIF`, `HEIF`,
            `JXL`.
        width: width in pixels of what is visible, as it is stored.
        height: its height.
        frames: frames or pages; the first is scored.
        orientation: EXIF orientation, 1..8; 1 if there is none or it makes no sense.
        mode: Pillow's mode of the stored pixels.
        has_alpha: transparency, a palette's included.
        icc: whether an embedded profile changes colours.
        signal: colours that have to be mapped, by the numbers of H.273; None: sRGB's, or a
            profile's.
        crop: left, top, right, bottom of what is visible; None: all.
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
    signal: Signal | None = None
    crop: tuple[int, int, int, int] | None = None

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height after the EXIF orientation."""
        turned = self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)


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
    kind = format_of(raw[:256])
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


def _read(kind: str, raw: bytes, limits: Limits) -> Probe:
    if kind == "TIFF":
        return _tiff(raw, limits)
    if kind == "JXL":
        return _jxl(raw, limits)
    if kind == "JPEG":
        check_end(kind, raw)  # Pillow reads a JPEG without frame header as 0x0
    if kind == "PNG" and raw[12:16] == b"CgBI":
        raise UnsupportedFormatError("Apple's PNG (CgBI) is not read", remedy="convert it to PNG")
    if kind == "JPEG" and (odd := jpeg_process(raw)):
        return _odd_jpeg(raw, odd, limits)
    picture = open_lazily(kind, raw)
    width, height = picture.size
    _check_pixels(kind, width, height, limits)
    check_end(kind, raw)
    check_extent(kind, raw, picture)
    frames = count_frames(kind, raw, picture, limits.max_frames)
    orientation, agreed = _orientation(kind, raw, picture)
    icc = icc_kind(picture.info.get("icc_profile"), picture.mode)
    has_alpha = picture.has_transparency_data
    signal, crop = _beside(kind, raw, icc, (width, height))
    if crop:
        width, height = crop[2] - crop[0], crop[3] - crop[1]
    made_whole = kind == "JPEG" and whole_jpeg(raw) is not raw
    simple = agreed and not made_whole and dali_decodes(kind, raw, picture, frames)
    return _found(
        *(kind, (width, height), orientation, picture.mode, icc, has_alpha, frames, simple),
        signal=signal,
        crop=crop,
        notes=("damaged",) if made_whole else (),
    )


def listen(found: Probe, data: bytes | npt.NDArray[np.uint8]) -> Probe:
    """Hear what a decoder says of damage that it goes over in silence: JPEG's does.

    Args:
        found: what the header says.
        data: the whole file.

    Returns:
        The same, with the note `damaged` where something is missing or made up; what the decoder
        says anything of is not given to DALI's, which says it on the user's terminal.
    """
    if found.format != "JPEG" or "damaged" in found.notes:
        return found
    said = heard(data if isinstance(data, bytes) else data.tobytes())
    if said is None:
        return found
    _log.debug("libjpeg: %s", said)
    damaged = ("damaged",) if said.startswith(DAMAGE) else ()
    notes = [note for note in (*damaged, "pillow_decoded") if note not in found.notes]
    return replace(found, notes=(*found.notes, *notes), route="pillow")


def _found(
    kind: str,
    size: tuple[int, int],
    orientation: int,
    mode: str,
    icc: Icc,
    has_alpha: bool,
    frames: int,
    simple: bool,
    *,
    signal: Signal | None = None,
    crop: tuple[int, int, int, int] | None = None,
    notes: tuple[str, ...] = (),
) -> Probe:
    simple = simple and icc != "other" and not has_alpha and signal is None and crop is None
    hdr = signal is not None and signal.transfer in HDR
    said = (
        ("first_frame", frames > 1),
        ("hdr_mapped", hdr),
        ("icc_converted", (icc == "other" or signal is not None) and not hdr),
        ("icc_ignored", icc == "broken"),
        ("alpha_flattened", has_alpha),
        ("extreme_aspect", max(size) > _EXTREME * min(size)),
        ("pillow_decoded", not simple),
    )
    return Probe(
        format=kind,
        width=size[0],
        height=size[1],
        frames=frames,
        orientation=orientation,
        mode=mode,
        has_alpha=has_alpha,
        icc=icc,
        route="dali" if simple else "pillow",
        notes=(*notes, *(note for note, holds in said if holds)),
        signal=signal,
        crop=crop,
    )


def _check_pixels(kind: str, width: int, height: int, limits: Limits) -> None:
    if width < 1 or height < 1:
        raise CorruptError(f"{kind} announces {width}x{height} pixels")
    if width * height > limits.max_pixels:
        raise TooManyPixelsError(
            f"{width}x{height} = {width * height} pixels, the limit is {limits.max_pixels}"
        )


def _tiff(raw: bytes, limits: Limits) -> Probe:
    tiff = Tiff(raw, limits.max_frames)
    size = int(tiff.page.imagewidth), int(tiff.page.imagelength)
    _check_pixels("TIFF", *size, limits)
    orientation, _ = tiff.orientation
    return _found(
        *("TIFF", size, orientation, tiff.mode, icc_kind(tiff.icc, tiff.mode), tiff.has_alpha),
        # DALI's decoder crashes and hangs at damaged ones.
        *(1 if tiff.preview else tiff.frames, False),
        notes=("raw_preview",) if tiff.preview else (),
    )


def _jxl(raw: bytes, limits: Limits) -> Probe:
    try:
        head = jxl_header(raw)
    except struct.error as e:
        raise TruncatedError(f"JXL: {e}") from e
    _check_pixels("JXL", head.width, head.height, limits)
    check_end("JXL", raw)
    signal = head.signal
    icc: Icc = "broken" if signal is None else "none"
    if signal is not None and not is_mapped(signal.transfer, signal.primaries):
        signal = None
    return _found(
        *("JXL", (head.width, head.height), head.orientation, head.mode, icc),
        *("A" in head.mode, 2 if head.animated else 1, False),
        signal=signal,
    )


def _odd_jpeg(raw: bytes, odd: tuple[str, int, int, int], limits: Limits) -> Probe:
    """A JPEG of 12 or 16 bits, or without loss, which Pillow does not read."""
    name, width, height, channels = odd
    _check_pixels("JPEG", width, height, limits)
    if not deep_jpeg(name):
        raise UnsupportedFormatError(f"{name} JPEG is not read", remedy="convert it to PNG")
    mode = "L" if channels == 1 else "RGB"
    orientation, _ = jpeg_orientation(raw)
    return _found("JPEG", (width, height), orientation, mode, "none", False, 1, False)


def _beside(
    kind: str, raw: bytes, icc: Icc, size: tuple[int, int]
) -> tuple[Signal | None, tuple[int, int, int, int] | None]:
    """Colour signal and crop that stand beside a picture and have to be applied."""
    signal, crop = None, None
    if kind == "PNG":
        signal = png_signal(raw)
    elif kind in ("AVIF", "HEIF"):
        signal, crop = still(raw)
        if kind == "HEIF":
            crop = None  # libheif crops and turns
    if signal is not None and (
        not is_mapped(signal.transfer, signal.primaries)
        or (icc in ("srgb", "other") and kind != "PNG" and signal.transfer not in HDR)
    ):
        signal = None
    if crop == (0, 0, *size):
        crop = None
    return signal, crop


def _orientation(kind: str, raw: bytes, picture: Image.Image) -> tuple[int, bool]:
    """The orientation, and whether DALI reads the same."""
    if kind == "JPEG":
        return jpeg_orientation(raw)
    if kind == "HEIF":  # libheif turned it; what is left is what the plugin makes of it
        return 1, True
    return exif_orientation(picture.info.get("exif") or b"")
