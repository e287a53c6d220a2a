"""Which files DALI's CPU decoder reads rightly.

Found by comparing it with Pillow over files made by code and public corpora of odd files: what
differed or failed goes through Pillow.
"""

from __future__ import annotations

from PIL import Image

from giqa.decode._ends import maxval


def dali_decodes(kind: str, raw: bytes, picture: Image.Image, frames: int) -> bool:
    """Tell whether DALI gives the same pixels as Pillow for such a file.

    Args:
        kind: Pillow's name of the format.
        raw: the whole file.
        picture: the lazily opened image.
        frames: frames or pages.

    Returns:
        True if it does; transparency and colour profiles are looked at elsewhere.
    """
    if kind == "PNG":
        return frames == 1  # an animation's first frame need not be its default image
    if kind == "WEBP":
        return raw[12:16] != b"VP8X"  # extended files: EXIF and animation make it fail
    if kind == "PPM":  # it takes 255 for white, whatever the header says
        return picture.mode in ("L", "RGB") and raw[1:2] in b"56" and maxval(raw) == 255
    # JPEG 2000: damaged files crash the process (tests/reliability/fuzz_probe.py). BMP's many
    # variants (1, 16 and 32 bits, RLE) are mostly wrong; GIF, AVIF and HEIF fail.
    return kind == "JPEG"
