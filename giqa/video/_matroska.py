"""Holes in Matroska and WebM files, over which FFmpeg passes without a word."""

from __future__ import annotations

from typing import BinaryIO

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
