"""End markers: is the file as long as its own structure says?

Small parsers, because no library answers this without decoding. Each takes the whole file and
raises; none looks at pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from PIL import Image, PpmImagePlugin

from giqa.errors import CorruptError, TruncatedError

_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_MAX_SCANS = 500
DAMAGE = ("Corrupt JPEG data", "Premature end")
"""How libjpeg's warnings of missing or made up parts begin."""


def _jpeg(data: bytes) -> None:
    try:
        _walk(data)
    except TruncatedError:
        if whole_jpeg(data) is data:
            raise


def _walk(data: bytes, scans: list[int] | None = None) -> None:
    """Walk the segments; entropy-coded data is skipped by searching for the next marker.

    Args:
        data: a JPEG.
        scans: takes the places of scans' headers, behind their markers.
    """
    scans = [] if scans is None else scans
    at, height = 2, -1
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            raise TruncatedError("JPEG without end marker (EOI)")
        marker = data[at + 1]
        if marker in (0x00, 0xFF):  # a stuffed byte, or fill
            at += 2 if marker == 0x00 else 1
            continue
        at += 2
        if marker == 0xD9:
            if height < 0:
                raise CorruptError("JPEG without frame header")
            return
        if marker in _STANDALONE or marker == 0xD8:
            continue
        if at + 2 > len(data):
            raise TruncatedError("JPEG ends within a segment")
        (length,) = struct.unpack_from(">H", data, at)
        if length < 2:
            raise CorruptError("JPEG segment without length")
        if at + length > len(data):
            raise TruncatedError("JPEG ends within a segment")
        if marker in _SOF and length >= 8:
            height, width = struct.unpack_from(">HH", data, at + 3)
            if not height or not width:
                raise CorruptError(f"JPEG announces {width}x{height} pixels")
        if marker == 0xDA:
            scans.append(at)
            if len(scans) > _MAX_SCANS:
                # Each scan of a progressive file makes the decoder walk all its blocks again.
                raise CorruptError(f"JPEG of more than {_MAX_SCANS} scans")
        at += length


def whole_jpeg(data: bytes) -> bytes:
    """A JPEG that has all of its picture, but no end marker, with one; `data` itself otherwise.

    Cameras and phones write such files, with or without something behind the picture.
    """
    try:
        _walk(data)
    except (TruncatedError, struct.error):
        pass
    except CorruptError:
        return data
    else:
        return data
    end = _end_of_scan(data)
    if end is None or _strict() is None or jpeg_process(data) is not None:
        return data  # nobody says whether it is whole
    made = data[:end] + b"\xff\xd9"
    said = heard(made)
    lost = said is not None and said.startswith(DAMAGE) and "extraneous" not in said
    return data if lost else made


def _end_of_scan(data: bytes) -> int | None:
    """Where the last scan's data ends: at the first marker that no scan can hold."""
    at = data.rfind(b"\xff\xda")
    while at >= 0 and not 6 <= int.from_bytes(data[at + 2 : at + 4], "big") <= 16:
        at = data.rfind(b"\xff\xda", 0, at)
    if at < 0:
        return None
    at += 4
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            return len(data) if at < 0 else at
        if data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7 and data[at + 1] != 0xFF:
            return at
        at += 1 if data[at + 1] == 0xFF else 2


def _strict() -> Any:
    """The decoder that says what libjpeg warns of; None without its extra."""
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def heard(data: bytes) -> str | None:
    """What a JPEG's decoder says of it, a warning or an error; None if nothing.

    Not at a smaller size, which would be faster: simplejpeg writes past its buffer where a file
    without loss, which cannot be made smaller, gets through.

    Args:
        data: a JPEG with an end marker.
    """
    decoder = _strict()
    if decoder is None or jpeg_process(data) is not None:
        return None
    try:
        decoder.decode_jpeg(data, colorspace="GRAY", strict=True)
    except ValueError as e:
        return str(e)
    return None if _has_all_scans(data) else f"{DAMAGE[1]}: scans are missing"


def _has_all_scans(data: bytes) -> bool:
    """Whether a progressive file's scans hold all bits of all coefficients (T.81, G.1.1).

    Where some are missing, decoders show what there is and say nothing.
    """
    marker, _, _, _, channels = jpeg_frame(data)
    if marker not in _PROGRESSIVE:
        return True
    scans: list[int] = []
    _walk(data, scans)
    left: dict[tuple[int, int], int] = {}
    for at in scans:
        end = at + 3 + 2 * int.from_bytes(data[at + 2 : at + 3])
        first, last, bits = data[end : end + 3].ljust(3, b"\xff")
        for part in data[at + 3 : end : 2]:
            left |= {(part, k): bits & 15 for k in range(first, min(last, 63) + 1)}
    return len(left) == 64 * channels and not any(left.values())


def jpeg_process(data: bytes) -> tuple[str, int, int, int] | None:
    """What a JPEG is where it is none of 8 bits with DCT.

    Args:
        data: a JPEG that passed `check_end`.

    Returns:
        Its name, width, height and channels; None for the usual ones.
    """
    marker, bits, width, height, channels = jpeg_frame(data)
    if marker in (0xC3, 0xCB):
        return f"lossless {bits}-bit", width, height, channels
    if marker in (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF):
        return "hierarchical", width, height, channels
    return (f"{bits}-bit", width, height, channels) if bits != 8 else None


def jpeg_frame(data: bytes) -> tuple[int, int, int, int, int]:
    """Marker, bits, width, height and channels of a JPEG's frame header.

    Args:
        data: a JPEG.

    Returns:
        They; 0, 8, 0, 0, 0 if there is none.
    """
    at = 2
    while at + 4 <= len(data):
        at = data.find(b"\xff", at)
        if at < 0 or at + 10 > len(data):
            break
        marker = data[at + 1]
        if marker in _SOF:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            return marker, bits, width, height, channels
        if marker in (0x00, 0xFF) or marker in _STANDALONE or marker == 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 8, 0, 0, 0


def _png(data: bytes) -> None:
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if kind == b"IEND" and at <= len(data):
            return
    raise TruncatedError("PNG without end chunk (IEND)")


def _gif(data: bytes) -> None:
    if b";" not in data[13:]:
        raise TruncatedError("GIF without trailer")


def _webp(data: bytes) -> None:
    (length,) = struct.unpack_from("<I", data, 4)
    if length + 8 > len(data):
        raise TruncatedError(f"WebP of {len(data)} bytes announces {length + 8}")


def _bmp(data: bytes) -> None:
    if len(data) < 14:
        raise TruncatedError("BMP ends within its header")
    (offset,) = struct.unpack_from("<I", data, 10)
    if offset >= len(data):
        raise TruncatedError("BMP ends before its pixels")


def _isobmff(data: bytes) -> None:
    """AVIF, HEIC, JP2: the top-level boxes must lie within the file."""
    at = 0
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if length == 0:
            return  # to the end of the file
        if length == 1:
            if at + 16 > len(data):
                break
            (length,) = struct.unpack_from(">Q", data, at + 8)
        if length < 8:
            raise CorruptError("box without length")
        at += length
    if at > len(data):
        raise TruncatedError("the last box is cut short")


def _jpeg2000(data: bytes) -> None:
    if data[:4] == b"\0\0\0\x0c":
        _isobmff(data)
    elif b"\xff\xd9" not in data[-4096:]:  # the codestream's end marker (EOC), or garbage after it
        raise TruncatedError("JPEG 2000 codestream without end marker (EOC)")


def _jxl(data: bytes) -> None:
    if data[:2] != b"\xff\x0a":  # a bare codestream has no end marker: decoding finds it
        _isobmff(data)


CHECKS: dict[str, Callable[[bytes], None]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "WEBP": _webp,
    "BMP": _bmp,
    "AVIF": _isobmff,
    "HEIF": _isobmff,
    "JPEG2000": _jpeg2000,
    "JXL": _jxl,
}


def check_end(kind: str, data: bytes) -> None:
    """Check that a file is as long as it says.

    Args:
        kind: Pillow's name of the format.
        data: the whole file.

    Raises:
        TruncatedError: it ends early.
        CorruptError: its structure makes no sense.
    """
    try:
        if kind in CHECKS:
            CHECKS[kind](data)
    except struct.error as e:
        raise TruncatedError(f"{kind} ends within its header") from e


def without_text(data: bytes) -> bytes:
    """A PNG less its text chunks, which may unpack to gigabytes and say nothing of the picture.

    Args:
        data: a PNG file that passed `check_end`, or any other bytes.

    Returns:
        The same picture; `data` itself if there is nothing to leave out.
    """
    kept, at = [data[:8]], 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind not in (b"tEXt", b"zTXt", b"iTXt"):
            kept.append(data[at : at + 12 + length])
        at += 12 + length
        if kind == b"IDAT":
            break
    kept.append(data[at:])
    return data if len(kept) == 2 else b"".join(kept)


def check_extent(kind: str, data: bytes, picture: Image.Image) -> None:
    """Check that the pixel data that a header points to lies within the file.

    Args:
        kind: Pillow's name of the format.
        data: the whole file.
        picture: the lazily opened image.

    Raises:
        TruncatedError: it does not.
    """
    end = 0
    if kind == "BMP" and len(data) >= 34 and data[14] >= 40:
        (offset,) = struct.unpack_from("<I", data, 10)
        bits, compression = struct.unpack_from("<HI", data, 28)
        if compression == 0:
            width, height = picture.size
            end = offset + (width * bits + 31) // 32 * 4 * height
    elif isinstance(picture, PpmImagePlugin.PpmImageFile) and data[1:2] in b"456" and picture.tile:
        width, height = picture.size
        samples = {"1": (width + 7) // 8, "RGB": 3 * width}.get(picture.mode, width)
        deep = data[1:2] != b"4" and maxval(data) > 255
        end = int(picture.tile[0].offset) + samples * height * (2 if deep else 1)
    if end > len(data):
        raise TruncatedError(f"{kind} of {len(data)} bytes points to data up to {end}")


def maxval(data: bytes) -> int:
    """What white is in a PNM file."""
    fields = [f for line in data[:512].splitlines() for f in line.split(b"#")[0].split()]
    return int(fields[3]) if len(fields) > 3 and fields[3].isdigit() else 255
