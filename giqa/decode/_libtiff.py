"""TIFF's strips and tiles through libtiff: what imagecodecs does not read, or not safely.

imagecodecs' LZW decoder crashes the process at some damaged streams, and it has none for faxes.
Pillow unpacks each strip as a small TIFF of its own; tifffile makes pixels of what comes out.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

LZW = 5
FAX = (2, 3, 4)
"""CCITT's compressions: modified Huffman, group 3, group 4."""

_T4_OPTIONS, _SHORT, _LONG = 292, 3, 4


def unpacked(page: Any, raw: bytes) -> npt.NDArray[Any]:
    """Decode a page.

    Args:
        page: tifffile's page, of one of the compressions above; it counts as not compressed
            afterwards.
        raw: the whole file.

    Returns:
        Its samples, in the shape that tifffile gives.

    Raises:
        Exception: whatever Pillow and tifffile do at damage.
    """
    apart = page.samplesperpixel if page.planarconfig == 2 else 1
    wide, high = page.imagewidth, page.imagelength
    step = page.tilelength if page.is_tiled else min(page.rowsperstrip, high)
    across = page.tilewidth if page.is_tiled else wide
    samples = across * page.samplesperpixel // apart
    row = (samples * page.bitspersample + 7) // 8
    down = -(-high // step)
    kind, options = int(page.compression), int(page.tags.valueof(_T4_OPTIONS) or 0)
    fill = int(page.fillorder)
    found = np.zeros(page.shaped, page.dtype)
    page.compression, page.fillorder = type(page.compression)(1), type(page.fillorder)(1)
    for i, (at, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False)):
        rows = step if page.is_tiled else min(step, high - i % down * step)
        data = raw[at : at + size]
        if data and kind == LZW:
            data = _unpack(data, kind, row, rows, 8, fill, 0)
        elif data:
            data = _unpack(data, kind, samples, rows, 1, fill, options)
        part, (plane, depth, top, left, _), _ = page.decode(data or None, i)
        if part is not None:
            here = found[plane, depth : depth + 1, top:, left:]
            part = part[:1, : here.shape[1], : here.shape[2]]
            here[:, : part.shape[1], : part.shape[2]] = part
    found.shape = page.shape
    return found


def _unpack(
    data: bytes, kind: int, width: int, height: int, bits: int, fill: int, options: int
) -> bytes:
    """A strip's bytes: Pillow's view of a TIFF that holds nothing else."""
    from PIL import TiffImagePlugin

    entries = [
        (256, _LONG, width),
        (257, _LONG, height),
        (258, _SHORT, bits),
        (259, _SHORT, kind),
        (262, _SHORT, 1),
        (266, _SHORT, fill),
        (273, _LONG, 0),
        (277, _SHORT, 1),
        (278, _LONG, height),
        (279, _LONG, len(data)),
        *([(_T4_OPTIONS, _LONG, options)] if kind == 3 else []),
    ]
    start = 8 + 2 + 12 * len(entries) + 4
    directory = struct.pack("<H", len(entries))
    for tag, form, value in entries:
        value = start if tag == 273 else value
        directory += struct.pack("<HHI", tag, form, 1)
        directory += struct.pack("<H2x" if form == _SHORT else "<I", value)
    made = b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + data
    picture = TiffImagePlugin.TiffImageFile(io.BytesIO(made))
    picture.load()
    return picture.tobytes()
