"""A known image under other bytes: what no cache has seen, and everybody knows the answer to."""

from __future__ import annotations

import zlib

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_HEADER_END = len(_PNG) + 25
"""Where the first chunk of a PNG, IHDR, ends."""


def with_comment(image: bytes, comment: str) -> bytes:
    """Put a comment into a JPEG or PNG; its pixels stay.

    Args:
        image: the file; one of another format stays as it is.
        comment: up to 64 letters and digits.

    Returns:
        The file with the comment.
    """
    text = b"giqa\0" + comment.encode("ascii")
    if image.startswith(_JPEG):
        length = (2 + len(text)).to_bytes(2, "big")
        return image[:2] + b"\xff\xfe" + length + text + image[2:]
    if image.startswith(_PNG):
        body = b"tEXt" + text
        chunk = len(text).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        return image[:_HEADER_END] + chunk + image[_HEADER_END:]
    return image
