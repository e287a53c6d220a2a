"""The colours of bands and maps: told apart with any colour vision, and never without words."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from giqa.contract import Band
from giqa.report._charts import strips

Colour = tuple[int, int, int]

COLOURS: Final[dict[Band, Colour]] = {
    "bad": (178, 58, 30),
    "poor": (240, 149, 58),
    "fair": (235, 218, 114),
    "good": (116, 179, 216),
    "excellent": (44, 112, 176),
}
"""sRGB: warm is bad, cold is good; the lightest is in the middle."""


def css(colour: Colour) -> str:
    """A colour as CSS writes it, `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def colourize(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Colour scores: a band's own colour in its middle, in between a mixture.

    Args:
        values: (...) scores; NaN stands for "not looked at".

    Returns:
        (..., 4) uint8 RGBA; transparent where NaN, opaque elsewhere.
    """
    middles = [(strip.low + strip.high) / 2 for strip in strips()]
    table = np.array([COLOURS[strip.name] for strip in strips()], np.float64)
    seen = np.isfinite(values)
    safe = np.where(seen, values, 0.0)
    channels = [np.interp(safe, middles, table[:, c]) for c in range(3)]
    rgba = np.stack([*channels, 255.0 * seen], axis=-1)
    return np.asarray(np.rint(rgba), np.uint8)
