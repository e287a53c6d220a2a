"""TIFF's strips and tiles through libtiff: what imagecodecs does not read, or not safely.

imagecodecs' LZW decoder crashes the process at some damaged streams, and it has none for faxes.
Pillow unpacks all strips, or all tiles, at once: as the strips of a TIFF of bytes made here. Then
tifffile makes pixels of what comes out.
"""

from __future__ import annotations

import ctypes
import io
import struct
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

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
    high = page.imagelength
    step = page.tilelength if page.is_tiled else min(page.rowsperstrip, high)
    across = page.tilewidth if page.is_tiled else page.imagewidth
    samples = across * page.samplesperpixel // apart
    row = (samples * page.bitspersample + 7) // 8
    kind, options = int(page.compression), int(page.tags.valueof(_T4_OPTIONS) or 0)
    fill = int(page.fillorder)
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    page.compression, page.fillorder = type(page.compression)(1), type(page.fillorder)(1)
    if page.is_tiled:
        groups, whole = [places], len(places) * step
    else:  # predictors work within rows: the strips of a plane are one
        down, whole = -(-high // step), high
        groups = [places[i * down : (i + 1) * down] for i in range(apart)]
        page.rowsperstrip = high
    width, bits = (row, 8) if kind == LZW else (samples, 1)
    found = np.zeros(page.shaped, page.dtype)
    for number, group in enumerate(groups):
        rows = np.zeros((whole, row), np.uint8)
        there = [i for i, (_, size) in enumerate(group) if size]
        if there:
            lines = [range(i * step, min((i + 1) * step, whole)) for i in there]
            parts = [raw[at : at + size] for at, size in (group[i] for i in there)]
            height = sum(map(len, lines))
            data = _unpack(parts, kind, width, height, step, bits, fill, options)
            rows[np.concatenate(lines)] = np.frombuffer(data, np.uint8).reshape(height, row)
        pieces = rows.reshape(len(places), step, row) if page.is_tiled else [rows]
        for i, piece in enumerate(pieces, number):
            part, (plane, depth, top, left, _), _ = page.decode(piece.tobytes(), i)
            here = found[plane, depth : depth + 1, top:, left:]
            part = part[:1, : here.shape[1], : here.shape[2]]
            here[:, : part.shape[1], : part.shape[2]] = part
    found.shape = page.shape
    return found


def _unpack(
    parts: list[bytes],
    kind: int,
    width: int,
    height: int,
    step: int,
    bits: int,
    fill: int,
    options: int,
) -> bytes:
    """Strips' bytes: Pillow's view of a TIFF that holds nothing else."""
    from PIL import TiffImagePlugin

    _hush()
    sizes = [len(part) for part in parts]
    entries: list[tuple[int, int, list[int]]] = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [bits]),
        (259, _SHORT, [kind]),
        (262, _SHORT, [1]),
        (266, _SHORT, [fill]),
        (273, _LONG, sizes),
        (277, _SHORT, [1]),
        (278, _LONG, [step]),
        (279, _LONG, sizes),
        *([(_T4_OPTIONS, _LONG, [options])] if kind == 3 else []),
    ]
    more = 8 + 2 + 12 * len(entries) + 4
    start = more + (8 * len(parts) if len(parts) > 1 else 0)
    starts = np.cumsum([start, *sizes[:-1]]).tolist()
    directory, behind = struct.pack("<H", len(entries)), b""
    for tag, form, values in entries:
        values = starts if tag == 273 else values
        directory += struct.pack("<HHI", tag, form, len(values))
        if len(values) > 1:
            directory += struct.pack("<I", more + len(behind))
            behind += struct.pack(f"<{len(values)}I", *values)
        else:
            directory += struct.pack("<H2x" if form == _SHORT else "<I", *values)
    head = b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + behind
    picture = TiffImagePlugin.TiffImageFile(io.BytesIO(head + b"".join(parts)))
    picture.load()
    return picture.tobytes()


@cache
def _hush() -> None:
    """Keep libtiff, in Pillow's wheel, from writing to the user's terminal: its errors are ours."""
    place = Path(PIL.__file__).parent
    for path in (*place.glob(".dylibs/libtiff*"), *place.parent.glob("pillow.libs/libtiff*")):
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(path))
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)
