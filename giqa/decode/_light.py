"""Colours of HDR and of wide gamuts as an sRGB display shows them: in stills and in videos.

Light is computed as ITU-R BT.2100 says, white is 203 cd/m2 (BT.2408), primaries are converted in
linear light, and what an sRGB display has not is clipped. Numbers are those of ITU-T H.273, which
videos, AVIF, HEIC (nclx) and PNG (cICP) have in common.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from giqa.types import FloatArray

PQ, HLG = 16, 18
HDR = {PQ: "smpte2084", HLG: "arib-std-b67"}
"""FFmpeg's names of the transfers of HDR."""

_LINEAR, _SRGB = 8, 13
_PRIMARIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""Red, green, blue (x, y): BT.709, BT.2020, DCI-P3, Display P3. Those of SD are near BT.709's."""

_WHITE = (0.3127, 0.3290)
_PAPER = 203.0
_PEAK = 1000.0
"""HLG's nominal display, cd/m2."""

_TOP = 65535
_CHUNK = 1 << 18
"""Pixels at a time: they stay in the cache."""


def is_mapped(transfer: int, primaries: int) -> bool:
    """Whether such colours are not those of sRGB.

    Args:
        transfer: TransferCharacteristics of H.273.
        primaries: ColourPrimaries of H.273.
    """
    wide = primaries in _PRIMARIES and primaries != 1
    return transfer in HDR or transfer == _LINEAR or wide


def map_to_srgb(
    source: tuple[npt.NDArray[Any], ...],
    target: tuple[npt.NDArray[Any], ...],
    transfer: int,
    primaries: int,
    *,
    white: int = 65535,
) -> None:
    """Map a picture.

    Args:
        source: red, green, blue, each (H, W) uint16, full range.
        target: where to write them, each (H, W) uint8.
        transfer: TransferCharacteristics of H.273; what is neither HDR nor sRGB's counts as shown
            on a display of BT.1886.
        primaries: ColourPrimaries of H.273.
        white: the source's code of a signal of 1.
    """
    decode, encode = _tables(transfer, white)
    # HDR is BT.2020's unless it says otherwise.
    gamut = primaries if primaries in _PRIMARIES else (9 if transfer in HDR else 1)
    matrix = _matrix(gamut)
    luminance = _to_xyz(gamut)[1].astype(np.float32)
    height, width = source[0].shape
    rows = max(1, _CHUNK // max(width, 1))
    for top in range(0, height, rows):
        part = slice(top, top + rows)
        light = np.stack([decode[channel[part]].ravel() for channel in source])
        if transfer == HLG:  # its display's gamma, 1.2, works on luminance
            light *= np.maximum(luminance @ light, 1e-9) ** np.float32(0.2)
        light = matrix @ light
        np.clip(light, 0, 1, out=light)
        np.sqrt(light, out=light)  # so that dark levels have enough entries
        codes = encode[(light * np.float32(_TOP) + np.float32(0.5)).astype(np.uint16)]
        for plane, values in zip(target, codes, strict=True):
            plane[part] = values.reshape(-1, width)


@lru_cache(maxsize=8)
def _tables(transfer: int, white: int) -> tuple[FloatArray, npt.NDArray[np.uint8]]:
    """What each code is in linear light, 1 being white; which level the square of each root is."""
    light = (np.arange(_TOP + 1) / _TOP) ** 2
    code = np.minimum(np.arange(_TOP + 1) / white, 1)
    shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    if transfer == PQ:
        root = code ** (1 / 78.84375)
        ratio = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
        linear = ratio ** (1 / 0.1593017578125) * 10_000 / _PAPER
    elif transfer == HLG:
        scene = np.where(
            code <= 0.5, code**2 / 3, (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12
        )
        linear = scene * (_PEAK / _PAPER)
        # The gain of luminance is taken of scene light: see the factor in `map_to_srgb`.
        linear /= (_PEAK / _PAPER) ** (0.2 / 1.2)
    elif transfer == _SRGB:
        linear = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    elif transfer == _LINEAR:
        linear = code
    else:
        linear, shown = code**2.4, light ** (1 / 2.4)
    return linear.astype(np.float32), np.round(shown * 255).astype(np.uint8)


def _to_xyz(primaries: int) -> npt.NDArray[np.float64]:
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in _PRIMARIES[primaries]]).T
    x, y = _WHITE
    scale = np.linalg.solve(columns, np.array([x / y, 1.0, (1 - x - y) / y]))
    return np.asarray(columns * scale, np.float64)


@lru_cache(maxsize=8)
def _matrix(primaries: int) -> FloatArray:
    """Linear light of primaries to that of sRGB's."""
    found = np.linalg.solve(_to_xyz(1), _to_xyz(primaries))
    return found.astype(np.float32)
