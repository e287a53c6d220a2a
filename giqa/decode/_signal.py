"""What files say of their pixels beside the pixels: orientation, colour signals, a crop.

Each is read here and nowhere else, so that row, boxes and pixels agree.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import NamedTuple

_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4


class Signal(NamedTuple):
    """Colours by the numbers of ITU-T H.273.

    Attributes:
        primaries: ColourPrimaries.
        transfer: TransferCharacteristics.
    """

    primaries: int
    transfer: int


def exif_orientation(exif: bytes) -> tuple[int, bool]:
    """Read the orientation of EXIF data, as browsers do: that of IFD0.

    Args:
        exif: EXIF data, with or without its `Exif` mark.

    Returns:
        1..8, 1 if there is none that makes sense; and whether every reader agrees on it, which is
        so of one number of 16 bits.
    """
    data = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    try:
        if order is None:
            return 1, True
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, length = struct.unpack_from(order + "HHI", data, entry)
            if tag == _ORIENTATION:
                form = {_SHORT: "H", _LONG: "I"}.get(kind)
                if form is None or length != 1:
                    return 1, False
                (value,) = struct.unpack_from(order + form, data, entry + 8)
                sound = 1 <= value <= 8
                return (value if sound else 1), sound and kind == _SHORT
    except struct.error:  # EXIF is decoration: broken, it counts as absent
        return 1, False
    return 1, True


def jpeg_orientation(data: bytes) -> tuple[int, bool]:
    """Read a JPEG's orientation: that of its first EXIF segment; XMP turns nothing.

    Args:
        data: a JPEG whose segments lie within it.

    Returns:
        As `exif_orientation`; readers do not agree where there are two segments.
    """
    found: list[bytes] = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xFF:
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            found.append(data[at + 4 : at + 2 + length])
        at += 2 + length
    if not found:
        return 1, True
    value, agreed = exif_orientation(found[0])
    return value, agreed and len(found) == 1


def png_signal(data: bytes) -> Signal | None:
    """A PNG's cICP chunk."""
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"cICP" and length == 4:
            return Signal(data[at + 8], data[at + 9])
        if kind == b"IDAT":
            break
        at += 12 + length
    return None


class Still(NamedTuple):
    """What the boxes of an AVIF or HEIC file say of its primary picture.

    Attributes:
        signal: its `colr` of kind nclx; None if there is none.
        crop: its `clap`, left, top, right, bottom in stored pixels; None if there is none.
    """

    signal: Signal | None
    crop: tuple[int, int, int, int] | None


def still(data: bytes) -> Still:
    """Read the properties of an AVIF's or HEIC's primary picture.

    Args:
        data: the whole file.

    Returns:
        What they say; nothing of what cannot be read.
    """
    try:
        return _still(data)
    except (struct.error, IndexError, KeyError, ZeroDivisionError):
        return Still(None, None)


def _still(data: bytes) -> Still:
    meta = boxes_of(data, 0, len(data))[b"meta"][0]
    inside = boxes_of(data, meta[0] + 4, meta[1])
    start = inside[b"pitm"][0][0]
    primary = struct.unpack_from(">I" if data[start] else ">H", data, start + 4)[0]
    where = inside[b"iprp"][0]
    holders = boxes_of(data, *where)
    store = holders[b"ipco"][0]
    properties = list(_each(data, *store))
    size: tuple[int, int] | None = None
    signal: Signal | None = None
    clap: tuple[int, ...] | None = None
    for index in _associated(data, holders[b"ipma"][0][0], primary):
        kind, at, _ = properties[index - 1]
        if kind == b"ispe":
            size = struct.unpack_from(">II", data, at + 4)
        elif kind == b"colr" and data[at : at + 4] == b"nclx":
            signal = Signal(*struct.unpack_from(">HH", data, at + 4))
        elif kind == b"clap":
            clap = struct.unpack_from(">IIIIiIiI", data, at)
    crop = _crop(clap, size) if clap and size else None
    return Still(signal, crop)


def depth(data: bytes) -> int:
    """Bits of a sample of an AVIF's primary picture, by its `av1C`; 0 if that is not there."""
    at = data.find(b"av1C")
    if at < 0 or at + 7 > len(data):
        return 0
    flags = data[at + 6]
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


def _crop(clap: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """The box of a clean aperture (ISO/IEC 14496-12, 12.1.4); None if it lies outside."""
    sides = []
    for length, (n, d, offset_n, offset_d) in zip(
        size, ((*clap[0:2], *clap[4:6]), (*clap[2:4], *clap[6:8])), strict=True
    ):
        wide, offset = Fraction(n, d), Fraction(offset_n, offset_d)
        low = offset + Fraction(length - 1, 2) - (wide - 1) / 2
        start, end = round(low), round(low + wide)
        if not 0 <= start < end <= length:
            return None
        sides.append((start, end))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom


def _associated(data: bytes, at: int, item: int) -> list[int]:
    """Numbers of the properties of an item, from 1."""
    version, flags = data[at], data[at + 3]
    (count,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(count):
        form = ">I" if version else ">H"
        (number,) = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        length = data[at]
        at += 1
        found = []
        for _ in range(length):
            if flags & 1:
                found.append(struct.unpack_from(">H", data, at)[0] & 0x7FFF)
                at += 2
            else:
                found.append(data[at] & 0x7F)
                at += 1
        if number == item:
            return [index for index in found if index]
    return []


def _each(data: bytes, at: int, end: int) -> list[tuple[bytes, int, int]]:
    """Kind, start and end of the contents of each box of a row of them."""
    found = []
    while at + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        length = length or end - at
        if length < head:
            break
        found.append((kind, at + head, min(at + length, end)))
        at += length
    return found


def boxes_of(data: bytes, at: int, end: int) -> dict[bytes, list[tuple[int, int]]]:
    """Starts and ends of the contents of a row of boxes, by kind.

    Args:
        data: the whole file.
        at: where the row begins.
        end: where it ends.
    """
    found: dict[bytes, list[tuple[int, int]]] = {}
    for kind, start, stop in _each(data, at, end):
        found.setdefault(kind, []).append((start, stop))
    return found
