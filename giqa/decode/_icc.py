"""ICC profiles: is it sRGB?"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Literal

from PIL import Image, ImageCms

Icc = Literal["none", "srgb", "other", "broken"]

_PATCHES = 5


@lru_cache(maxsize=64)
def icc_kind(profile: bytes | None, mode: str) -> Icc:
    """Tell whether an embedded profile changes colours.

    A profile counts as sRGB if it moves no patch of a 5x5x5 colour cube by more than 2 of 255
    levels: what it does matters, not what it calls itself.

    Args:
        profile: the ICC profile, or None.
        mode: Pillow's mode of the picture.

    Returns:
        `none`, `srgb`, `other`, or `broken` (unusable, or of another colour space).
    """
    if not profile:
        return "none"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space != {"L": "GRAY", "CMYK": "CMYK"}.get(_base(mode), "RGB"):
            return "broken"
        if space != "RGB":
            return "other"
        steps = [round(255 * i / (_PATCHES - 1)) for i in range(_PATCHES)]
        cube = bytes(v for r in steps for g in steps for b in steps for v in (r, g, b))
        patches = Image.frombytes("RGB", (_PATCHES**3, 1), cube)
        moved = ImageCms.profileToProfile(patches, source, srgb(), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "broken"
    assert moved is not None
    worst = max(abs(a - b) for a, b in zip(cube, moved.tobytes(), strict=True))
    return "srgb" if worst <= 2 else "other"


def _base(mode: str) -> str:
    """`L` for grey modes, `CMYK`, else `RGB`."""
    if mode in ("1", "L", "LA", "I", "F") or mode.startswith("I;16"):
        return "L"
    return "CMYK" if mode == "CMYK" else "RGB"


@lru_cache(maxsize=1)
def srgb() -> ImageCms.ImageCmsProfile:
    """LittleCMS's sRGB profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
