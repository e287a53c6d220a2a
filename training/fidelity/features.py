"""What tells a damaged picture from its reference: a vector that is zero where they are equal.

At three scales, of luma Y' (ITU-R BT.601, 0..255), each half as large as the one before:

- `gmsd`, `gms`: standard deviation of the gradient magnitude similarity, and 1 less its mean.
  Prewitt's operator over 3, c = 170. W. Xue, L. Zhang, X. Mou, A. C. Bovik, "Gradient Magnitude
  Similarity Deviation", IEEE TIP 2014. They halve the picture first; here that is the second scale.
- `structure`, `luminance`: 1 less the mean of SSIM's contrast-structure and luminance terms.
  Gaussian window of 11 x 11, sigma 1.5, K1 = .01, K2 = .03. Z. Wang, A. C. Bovik, H. R. Sheikh,
  E. P. Simoncelli, "Image Quality Assessment", IEEE TIP 2004; at several scales as in Z. Wang,
  E. P. Simoncelli, A. C. Bovik, "Multiscale structural similarity", Asilomar 2003.
- `softer`, `harsher`: how far the mean gradient magnitude fell or rose, as a logarithm.
- `error`: logarithm of 1 + mean squared error.

Of the whole: distances of colour in CIELAB's a and b after averaging 4 x 4 pixels, mean and 95th
percentile; colourfulness lost and gained; mean and deviation of luma, lost and gained.

Borders are mirrored with the edge repeated (dcba|abcd), as SciPy's `reflect` does.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from giqa.errors import UsageError

Pixels = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]

SCALES = 3
_AT_SCALE = ("gmsd", "gms", "structure", "luminance", "softer", "harsher", "error")
_WHOLE = (
    *("colour", "colour_worst", "paler", "gaudier"),
    *("darker", "brighter", "flatter", "contrastier"),
)
NAMES = (*(f"{name}_{scale}" for scale in range(SCALES) for name in _AT_SCALE), *_WHOLE)
"""Names of the features, in the vector's order."""

_GMS_C = 170.0
_SSIM_C1 = (0.01 * 255) ** 2
_SSIM_C2 = (0.03 * 255) ** 2
_WINDOW, _SIGMA = 11, 1.5
_PREWITT = np.array([[1, 0, -1]] * 3, np.float32) / 3
_FAINT_GRADIENT = 0.5  # what a flat area has after rounding: below, ratios say nothing
_FAINT_COLOUR = 8.0  # a photograph has some 20; on a grey one, noise must not count as colour
_LUMA = 50.0  # brings differences of luma near the others' range


def features(reference: Pixels, damaged: Pixels) -> npt.NDArray[np.float64]:
    """Compare two pictures.

    Args:
        reference: (H, W, 3) uint8, sRGB, any size.
        damaged: the same shape.

    Returns:
        (len(NAMES),) float64, 0 or more; all 0 if the pictures are equal. About 100 bytes of memory
        a pixel are needed meanwhile.

    Raises:
        UsageError: the pictures are not of one shape, or not (H, W, 3) uint8.
    """
    for picture in (reference, damaged):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise UsageError(
                f"a picture of {picture.dtype}, {picture.shape}", remedy="give H x W x RGB of uint8"
            )
    if reference.shape != damaged.shape or not reference.size:
        raise UsageError(
            f"pictures of {reference.shape} and {damaged.shape}", remedy="give two of one size"
        )
    found: list[float] = []
    first, second = luma(reference), luma(damaged)
    tone = _tone(first, second)
    for scale in range(SCALES):
        if scale:
            first, second = halved(first), halved(second)
        found += at_scale(first, second)
    return np.array([*found, *_colour(reference, damaged), *tone], np.float64).clip(0)


def luma(picture: Pixels) -> Plane:
    """Luma of (H, W, 3) uint8 as (H, W) float32, 0..255."""
    weights = np.array([[0.299, 0.587, 0.114]], np.float32)
    return np.asarray(cv2.transform(picture.astype(np.float32), weights), np.float32)


def halved(plane: Plane) -> Plane:
    """Means over 2 x 2 pixels; an odd side's last line counts twice."""
    height, width = plane.shape[:2]
    even = cv2.copyMakeBorder(plane, 0, height % 2, 0, width % 2, cv2.BORDER_REFLECT)
    size = (even.shape[1] // 2, even.shape[0] // 2)
    return np.asarray(cv2.resize(even, size, interpolation=cv2.INTER_AREA), np.float32)


def halved_picture(picture: Pixels) -> Pixels:
    """(H, W, 3) uint8 at half its size, see `halved`."""
    return np.rint(halved(picture.astype(np.float32))).astype(np.uint8)


def at_scale(first: Plane, second: Plane) -> list[float]:
    """The features of one scale, see `_AT_SCALE`.

    Args:
        first: (H, W) float32, luma of the reference.
        second: the same of the damaged picture.
    """
    edges, other = _gradient(first), _gradient(second)
    similarity = (2 * edges * other + _GMS_C) / (edges * edges + other * other + _GMS_C)
    ratio = np.log((_mean(edges) + _FAINT_GRADIENT) / (_mean(other) + _FAINT_GRADIENT))
    luminance, structure = ssim_terms(first, second)
    return [
        float(similarity.std(dtype=np.float64)),
        1 - _mean(similarity),
        1 - _mean(structure),
        1 - _mean(luminance),
        max(0.0, ratio),
        max(0.0, -ratio),
        float(np.log1p(_mean((first - second) ** 2))),
    ]


def ssim_terms(first: Plane, second: Plane) -> tuple[Plane, Plane]:
    """SSIM's maps of luminance and of contrast and structure; their product is SSIM.

    Args:
        first: (H, W) float32, 0..255.
        second: the same shape.
    """
    mean_1, mean_2 = _smooth(first), _smooth(second)
    squares = mean_1 * mean_1, mean_2 * mean_2
    product = mean_1 * mean_2
    variance_1 = _smooth(first * first) - squares[0]
    variance_2 = _smooth(second * second) - squares[1]
    covariance = _smooth(first * second) - product
    luminance = (2 * product + _SSIM_C1) / (squares[0] + squares[1] + _SSIM_C1)
    structure = (2 * covariance + _SSIM_C2) / (variance_1 + variance_2 + _SSIM_C2)
    return luminance, structure


def _mean(plane: Plane) -> float:
    return float(plane.mean(dtype=np.float64))


def _smooth(plane: Plane) -> Plane:
    size = (_WINDOW, _WINDOW)
    smooth = cv2.GaussianBlur(plane, size, _SIGMA, borderType=cv2.BORDER_REFLECT)
    return np.asarray(smooth, np.float32)


def _gradient(plane: Plane) -> Plane:
    across = cv2.filter2D(plane, -1, _PREWITT, borderType=cv2.BORDER_REFLECT)
    down = cv2.filter2D(plane, -1, _PREWITT.T, borderType=cv2.BORDER_REFLECT)
    return np.asarray(cv2.magnitude(across, down), np.float32)


def _colour(reference: Pixels, damaged: Pixels) -> list[float]:
    first, second = (_chroma(picture) for picture in (reference, damaged))
    distance = np.sqrt(np.square(first - second).sum(-1))
    ratio = np.log(
        (_mean(np.sqrt(np.square(first).sum(-1))) + _FAINT_COLOUR)
        / (_mean(np.sqrt(np.square(second).sum(-1))) + _FAINT_COLOUR)
    )
    worst = float(np.percentile(distance, 95))
    return [
        float(np.log1p(_mean(distance))),
        float(np.log1p(worst)),
        max(0.0, ratio),
        max(0.0, -ratio),
    ]


def _chroma(picture: Pixels) -> Plane:
    """CIELAB's a and b, means over 4 x 4 pixels: detail of colour is hardly seen."""
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2Lab).astype(np.float32)
    return halved(halved(lab[..., 1:])) - 128


def _tone(first: Plane, second: Plane) -> list[float]:
    shift = (_mean(first) - _mean(second)) / _LUMA
    spread = (float(first.std(dtype=np.float64)) - float(second.std(dtype=np.float64))) / _LUMA
    return [max(0.0, shift), max(0.0, -shift), max(0.0, spread), max(0.0, -spread)]
