"""Cameras' RAW files made by code: directories of TIFF, and JPEGs as previews."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np

_FORMS = {1: "B", 2: "s", 3: "H", 4: "I"}
Tag = tuple[int, int, "int | bytes | tuple[int, ...]"]


class Writer:
    """A TIFF of directories that are written last to first.

    Args:
        order: `<` or `>`.
        mark: what stands behind the header.
    """

    def __init__(self, order: str, mark: bytes = b"") -> None:
        self._order = order
        head = b"II*\0" if order == "<" else b"MM\0*"
        self.data = bytearray(head + bytes(4) + mark)

    def put(self, part: bytes) -> int:
        """Append; where it begins."""
        self.data += bytes(len(self.data) % 2)
        at = len(self.data)
        self.data += part
        return at

    def directory(self, *tags: Tag, following: int = 0) -> int:
        """Append a directory of (tag, kind, value); where it begins."""
        out = b""
        for tag, kind, value in sorted(tags):
            if isinstance(value, bytes):
                count, packed = len(value), value
            else:
                values = value if isinstance(value, tuple) else (value,)
                count = len(values)
                packed = struct.pack(self._order + _FORMS[kind] * count, *values)
            if len(packed) > 4:
                packed = struct.pack(self._order + "I", self.put(packed))
            out += struct.pack(self._order + "HHI", tag, kind, count) + packed.ljust(4, b"\0")
        count = struct.pack(self._order + "H", len(tags))
        return self.put(count + out + struct.pack(self._order + "I", following))

    def file(self, first: int) -> bytes:
        """The whole, its first directory being there."""
        struct.pack_into(self._order + "I", self.data, 4, first)
        return bytes(self.data)


def _sensor(writer: Writer, width: int, height: int) -> list[Tag]:
    at = writer.put(bytes(width * height * 2))
    layout: list[Tag] = [(254, 4, 0), (256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, 1)]
    return [*layout, (262, 3, 32803), (273, 4, at), (277, 3, 1), (279, 4, width * height * 2)]


def _thumbnail(writer: Writer) -> list[Tag]:
    at = writer.put(bytes(range(256)) * 6)
    layout: list[Tag] = [(254, 4, 1), (256, 4, 32), (257, 4, 16), (258, 3, (8, 8, 8)), (259, 3, 1)]
    return [*layout, (262, 3, 2), (273, 4, at), (277, 3, 3), (279, 4, 1536)]


def nef(preview: bytes, width: int, height: int, turn: int = 1) -> bytes:
    """Nikon's: thumbnail; below it a JPEG that only its place is told of, and the sensor's data."""
    writer = Writer(">")
    jpeg = writer.put(preview)
    shown = writer.directory((254, 4, 1), (259, 3, 6), (513, 4, jpeg), (514, 4, len(preview)))
    sensor = writer.directory(*_sensor(writer, width, height))
    first = _thumbnail(writer)
    first += [(271, 2, b"NIKON CORPORATION\0"), (274, 3, turn), (330, 4, (shown, sensor))]
    return writer.file(writer.directory(*first))


def arw(preview: bytes, width: int, height: int, turn: int = 1, small: bytes = b"") -> bytes:
    """Sony's: a middling JPEG, sensor data below it, the large JPEG in a third directory."""
    writer = Writer("<")
    large = writer.put(preview)
    third = writer.directory((254, 4, 1), (259, 3, 6), (513, 4, large), (514, 4, len(preview)))
    at = writer.put(small or preview)
    second = writer.directory(
        (254, 4, 1), (259, 3, 6), (513, 4, at), (514, 4, len(small or preview)), following=third
    )
    sensor = writer.directory(*_sensor(writer, width, height))
    first: list[Tag] = [(254, 4, 1), (259, 3, 6), (271, 2, b"SONY\0"), (274, 3, turn)]
    first += [(330, 4, sensor), (513, 4, at), (514, 4, len(small or preview))]
    return writer.file(writer.directory(*first, following=second))


def cr2(preview: bytes, size: tuple[int, int], width: int, height: int, turn: int = 1) -> bytes:
    """Canon's: a JPEG as strip, a small one, a small plain picture, lossless JPEG of the sensor."""
    writer = Writer("<", b"CR\2\0" + bytes(4))
    # Two samples of half as many columns: the header of its frame says so.
    coded = bytearray(imagecodecs.ljpeg_encode(np.zeros((height, width // 2), np.uint16)))
    at = coded.index(b"\xff\xc3")
    coded[at + 9] = 2
    raw = writer.put(bytes(coded))
    last = writer.directory((259, 3, 6), (273, 4, raw), (279, 4, len(coded)))
    plain = _thumbnail(writer)
    third = writer.directory(*plain, following=last)
    at = writer.put(preview)
    second = writer.directory((513, 4, at), (514, 4, len(preview)), following=third)
    first: list[Tag] = [(256, 4, size[0]), (257, 4, size[1]), (258, 3, (8, 8, 8)), (259, 3, 6)]
    first += [(271, 2, b"Canon\0"), (273, 4, at), (274, 3, turn), (279, 4, len(preview))]
    return writer.file(writer.directory(*first, following=second))


def dng(preview: bytes, size: tuple[int, int], width: int, height: int, turn: int = 1) -> bytes:
    """Adobe's: thumbnail; below it the sensor's data, and a JPEG in a strip."""
    writer = Writer("<")
    sensor = writer.directory(*_sensor(writer, width, height))
    at = writer.put(preview)
    layout: list[Tag] = [(254, 4, 1), (256, 4, size[0]), (257, 4, size[1]), (258, 3, (8, 8, 8))]
    layout += [(259, 3, 7), (262, 3, 6), (273, 4, at), (277, 3, 3), (278, 4, size[1])]
    shown = writer.directory(*layout, (279, 4, len(preview)))
    first = _thumbnail(writer)
    first += [(274, 3, turn), (330, 4, (sensor, shown)), (50706, 1, b"\1\4\0\0")]
    return writer.file(writer.directory(*first))
