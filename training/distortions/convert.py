"""Pictures as floats, and the conversions of colour that several distortions need."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# IEC 61966-2-1: linear sRGB to XYZ, rows X, Y, Z. Dividing by the rows' sums makes white (1, 1, 1).
_RGB_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_TO_XYZ = (_RGB_TO_XYZ / _RGB_TO_XYZ.sum(1, keepdims=True)).astype(np.float32)
_FROM_XYZ = np.linalg.inv(_TO_XYZ).astype(np.float32)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_EDGE = 6 / 29  # where CIE's cube root turns into a line


def to_float(image: Pixels) -> Floats:
    """(H, W, 3) uint8 as float32 in 0..1."""
    return image.astype(np.float32) / np.float32(255)


def to_uint8(image: Floats) -> Pixels:
    """(H, W, 3) float, clipped to 0..1, as the nearest uint8."""
    return np.rint(np.clip(image, 0, 1) * np.float32(255)).astype(np.uint8)


def luma(image: Floats) -> Floats:
    """Brightness (H, W) in 0..1 of sRGB (H, W, 3), weights of ITU-R BT.601."""
    return np.asarray(image @ _LUMA, np.float32)


def rgb_to_lab(image: Floats) -> Floats:
    """SRGB in 0..1 to CIE L*a*b* (CIE 15), white point D65.

    Args:
        image: (H, W, 3).

    Returns:
        (H, W, 3) float32: L 0..100, a and b about -110..110.
    """
    linear = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    xyz = linear.astype(np.float32) @ _TO_XYZ.T
    f = np.where(xyz > _EDGE**3, np.cbrt(xyz), xyz / (3 * _EDGE**2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1).astype(np.float32)


def lab_to_rgb(lab: Floats) -> Floats:
    """CIE L*a*b* to sRGB; what no screen can show is cut per channel.

    Args:
        lab: (H, W, 3): L 0..100, a, b; values out of range are allowed.

    Returns:
        (H, W, 3) float32 in 0..1.
    """
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], -1)
    xyz = np.where(f > _EDGE, f**3, 3 * _EDGE**2 * (f - 4 / 29))
    linear = np.clip(xyz.astype(np.float32) @ _FROM_XYZ.T, 0, 1)
    gamma = 1.055 * linear ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, linear * 12.92, gamma).astype(np.float32)
