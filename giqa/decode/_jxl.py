"""JPEG XL's header (ISO/IEC 18181-1, annexes D and E): size, orientation, colours.

libjxl's bindings give pixels and say nothing of them.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from giqa.decode._signal import Signal, boxes_of

_HEAD = 4096
"""Most bytes of a codestream that are looked at."""
_SIZES = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_COUNTS = (0, 1, (2, 4), (1, 12))
_ENUM = (0, 1, (2, 4), (18, 6))
_GREY, _XYB, _CUSTOM, _UNKNOWN = 1, 2, 2, 2
_ALPHA, _SPOT, _CFA = 0, 2, 5
_SRGB, _LINEAR, _P3, _P3_D65, _DCI_WHITE = 13, 8, 11, 12, 11
_Choice = int | tuple[int, int]


class JxlHeader(NamedTuple):
    """What a JPEG XL says before its pixels.

    Attributes:
        width: stored width.
        height: stored height.
        orientation: as EXIF's, 1..8.
        mode: Pillow's mode: `L`, `LA`, `RGB` or `RGBA`.
        animated: whether there may be several frames.
        signal: the colours that libjxl gives; None if its header does not say it in numbers.
    """

    width: int
    height: int
    orientation: int
    mode: str
    animated: bool
    signal: Signal | None


class _Bits:
    """Bits from the lowest of the first byte on."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise struct.error("JPEG XL ends within its header")
        found = self._bits & ((1 << count) - 1)
        self._bits >>= count
        return found

    def choose(self, *choices: _Choice) -> int:
        """One of four: a number, or a least one and how many bits are added."""
        one = choices[self.take(2)]
        return one if isinstance(one, int) else one[0] + self.take(one[1])


def jxl_header(data: bytes) -> JxlHeader:
    """Read a JPEG XL's header.

    Args:
        data: the whole file.

    Returns:
        What it says.

    Raises:
        struct.error: the file ends before it does.
    """
    bits = _Bits(_codestream(data)[2:])
    width, height = _size(bits)
    orientation, animated, mode = 1, False, "RGB"
    if bits.take(1):  # all as usual
        return JxlHeader(width, height, orientation, mode, animated, Signal(1, _SRGB))
    if bits.take(1):
        orientation = bits.take(3) + 1
        if bits.take(1):  # the size that it is to be shown at
            _size(bits)
        if bits.take(1):
            _preview(bits)
        if animated := bool(bits.take(1)):
            bits.choose(100, 1000, (1, 10), (1, 30))
            bits.choose(1, 1001, (1, 8), (1, 10))
            bits.choose(0, (0, 3), (0, 16), (0, 32))
            bits.take(1)
    _depth(bits)
    bits.take(1)
    alpha = [_extra(bits) for _ in range(bits.choose(*_COUNTS))]
    grey, signal = _colours(bits, xyb=bool(bits.take(1)))
    mode = ("L" if grey else "RGB") + ("A" if any(alpha) else "")
    return JxlHeader(width, height, orientation, mode, animated, signal)


def _codestream(data: bytes) -> bytes:
    """The beginning of the codestream, which may lie in several boxes."""
    if data[:2] == b"\xff\x0a":
        return data[:_HEAD]
    boxes = boxes_of(data, 0, len(data))
    found = b"".join(data[a : min(b, a + _HEAD)] for a, b in boxes.get(b"jxlc", []))
    found = found or b"".join(data[a + 4 : min(b, a + _HEAD)] for a, b in boxes.get(b"jxlp", []))
    if not found:
        raise struct.error("no codestream")
    return found[:_HEAD]


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)

    def side() -> int:
        return (bits.take(5) + 1) * 8 if small else bits.take(_SIZES[bits.take(2)]) + 1

    height = side()
    return _width(bits.take(3), height) or side(), height


def _width(ratio: int, height: int) -> int:
    """The width that one of the usual ratios gives; 0: it is told apart."""
    return height * _RATIOS[ratio - 1][0] // _RATIOS[ratio - 1][1] if ratio else 0


def _preview(bits: _Bits) -> None:
    choices: tuple[_Choice, ...] = ((1, 6), (65, 8), (321, 10), (1345, 12))
    if bits.take(1):
        choices = (16, 32, (1, 5), (33, 9))
    bits.choose(*choices)
    if not bits.take(3):
        bits.choose(*choices)


def _depth(bits: _Bits) -> None:
    if bits.take(1):  # float
        bits.choose(32, 16, 24, (1, 6))
        bits.take(4)
    else:
        bits.choose(8, 10, 12, (1, 6))


def _extra(bits: _Bits) -> bool:
    """Pass an extra channel; whether it is transparency."""
    if bits.take(1):
        return True
    kind = bits.choose(*_ENUM)
    _depth(bits)
    bits.choose(0, 3, 4, (1, 3))
    bits.take(8 * bits.choose(0, (0, 4), (16, 5), (48, 10)))
    if kind == _ALPHA:
        bits.take(1)
    elif kind == _SPOT:
        bits.take(64)
    elif kind == _CFA:
        bits.choose(1, (0, 2), (3, 4), (19, 8))
    return kind == _ALPHA


def _colours(bits: _Bits, *, xyb: bool) -> tuple[bool, Signal | None]:
    """Whether the picture is grey, and what its values mean."""
    if bits.take(1):
        return False, Signal(1, _SRGB)
    profile, space = bits.take(1), bits.choose(*_ENUM)
    if profile:  # libjxl gives linear light of sRGB's primaries where it knows nothing better
        return space == _GREY, Signal(1, _LINEAR) if xyb else None
    white, primaries = 1, 1
    if space != _XYB and (white := bits.choose(*_ENUM)) == _CUSTOM:
        _point(bits)
    if space not in (_XYB, _GREY) and (primaries := bits.choose(*_ENUM)) == _CUSTOM:
        for _ in range(3):
            _point(bits)
    if space == _XYB:
        return False, None
    if bits.take(1):  # a gamma, by its reciprocal
        transfer = _LINEAR if bits.take(24) > 7_000_000 else _SRGB
    elif (transfer := bits.choose(*_ENUM)) == _UNKNOWN:
        return space == _GREY, None
    if primaries == _CUSTOM or white == _CUSTOM:
        return space == _GREY, None
    if primaries == _P3 and white != _DCI_WHITE:
        primaries = _P3_D65
    return space == _GREY, Signal(primaries, transfer)


def _point(bits: _Bits) -> None:
    for _ in range(2):
        bits.choose((0, 19), (524288, 19), (1048576, 20), (2097152, 21))
