"""End markers: is the file as long as its own structure says?

Small parsers, because no library answers this without decoding. Each takes the whole file and
raises; none looks at pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from giqa.errors import CorruptError, TruncatedError

_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_MAX_SCANS = 500


def _jpeg(data: bytes) -> None:
    """Walk the segments; entropy-coded data is skipped by searching for the next marker."""
    at, scans, height = 2, 0, -1
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
            scans += 1
            if scans > _MAX_SCANS:
                # Each scan of a progressive file makes the decoder walk all its blocks again.
                raise CorruptError(f"JPEG of more than {_MAX_SCANS} scans")
        at += length


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


CHECKS: dict[str, Callable[[bytes], None]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "WEBP": _webp,
    "BMP": _bmp,
    "AVIF": _isobmff,
    "HEIF": _isobmff,
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
