"""Containers as files: as FFmpeg reads them, and what their own structure says of where they end.

FFmpeg passes over much without a word.
"""

from __future__ import annotations

import errno
import io
import os
from typing import BinaryIO

_TAIL = 256
"""Bytes at a file's end among which an end mark is looked for."""
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid")
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_KNOWN = frozenset(
    {
        *(0x1A45DFA3, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770),
        *(0x1254C367, 0xEC, 0xBF),  # of a file and of a segment
        *(0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF),  # of a cluster
    }
)
"""Elements that stand beside each other (RFC 9559)."""


def is_torn(file: BinaryIO, size: int) -> bool:
    """Whether elements do not follow one another up to the file's end.

    Only their headers are read, each where the one before it says. A file that is merely cut off is
    not torn.

    Args:
        file: a Matroska or WebM file; its place is kept.
        size: its length in bytes.
    """
    before, at = file.tell(), 0
    try:
        while at < size:
            file.seek(at)
            head = file.read(12)
            wide = 9 - head[0].bit_length()
            kind = int.from_bytes(head[:wide], "big")
            if len(head) < wide <= 4:
                return False
            if wide > 4 or (kind not in _KNOWN and kind not in (_SEGMENT, _CLUSTER)):
                return True
            count = 9 - head[wide].bit_length() if len(head) > wide else 0
            if count > 8:
                return True
            if len(head) < wide + count or not count:
                return False
            length = int.from_bytes(head[wide : wide + count], "big") - (1 << 7 * count)
            at += wide + count
            if kind in (_SEGMENT, _CLUSTER):
                continue  # what is inside follows
            if length == (1 << 7 * count) - 1:
                return False  # nothing says where it ends
            at += length
        return False
    finally:
        file.seek(before)


class Part(io.RawIOBase):
    """A file from a position on, as FFmpeg expects one.

    A place that is told by damage is none to go to. Python's error for that would be taken for one
    of the disk, and end what FFmpeg can go on with.
    """

    def __init__(self, file: io.FileIO, start: int = 0) -> None:
        self._file, self._start = file, start
        file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size) or b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset + (0 if whence else self._start), whence) - self._start
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            return -1

    def tell(self) -> int:
        return self._file.tell() - self._start


def is_cut_short(file: io.FileIO, size: int) -> bool:
    """Whether a file is shorter than its structure says: RIFF, Matroska, MP4, GIF, APNG."""
    at = file.tell()
    try:
        file.seek(0)
        head = file.read(128)
        if head[:4] == b"RIFF":
            return int.from_bytes(head[4:8], "little") + 8 > size
        if (start := head.find(b"\x18\x53\x80\x67")) >= 0 and head[:4] == b"\x1a\x45\xdf\xa3":
            return _segment_end(head[start + 4 :], start + 4) > size
        if head[:4] == b"GIF8" or head[:4] == b"\x89PNG":
            file.seek(max(0, size - _TAIL))
            return (b"\0;" if head[:1] == b"G" else b"IEND") not in file.read()
        return head[4:8] in _BOXES and _boxes_end(file, size) > size
    finally:
        file.seek(at)


def _segment_end(head: bytes, at: int) -> int:
    """Where a Matroska segment ends by its length; 0 if that is unknown, as in live recordings."""
    width = 9 - head[0].bit_length() if head and head[0] else 9
    if width > min(8, len(head)):
        return 0
    length = int.from_bytes(head[:width], "big") - (1 << 7 * width)
    return 0 if length == (1 << 7 * width) - 1 else at + width + length


def _boxes_end(file: io.FileIO, size: int) -> int:
    """Where the last of an MP4 file's outermost boxes ends by its length."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if not head[4:8].isalnum():
            return 0  # garbage behind it
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:
            return 0
        at += length
    return at


def mp4_boxes(file: io.FileIO, size: int) -> set[bytes]:
    """Kinds of an MP4 file's outermost boxes; none if it is no such file."""
    found: set[bytes] = set()
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if kind not in _BOXES:
            break
        found.add(kind)
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:
            break
        at += length
    return found
